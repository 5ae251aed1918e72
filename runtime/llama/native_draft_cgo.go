//go:build cgo

package llama

/*
#cgo noescape nr_drafter_feed
#cgo nocallback nr_drafter_feed
#cgo noescape nr_drafter_draft
#cgo nocallback nr_drafter_draft
#include "norion_draft.h"
*/
import "C"

import "unsafe"

// drafterHandle is owned by its Drafter, whose Close frees it.
type drafterHandle struct{ p *C.nr_drafter }

func newDrafter(p DrafterParams) (drafterHandle, error) {
	var e C.nr_error
	h := drafterHandle{C.nr_drafter_new(C.int32_t(p.Match), C.int32_t(p.Min), C.int32_t(p.Max),
		C.int32_t(p.Entries), &e)}
	if h.p == nil {
		return h, lastError("drafter", &e)
	}
	return h, nil
}

func freeDrafter(h drafterHandle)  { C.nr_drafter_free(h.p) }
func resetDrafter(h drafterHandle) { C.nr_drafter_reset(h.p) }

func feedDrafter(h drafterHandle, tokens []Token) {
	C.nr_drafter_feed(h.p, (*C.int32_t)(unsafe.SliceData(tokens)), C.size_t(len(tokens)))
}

func draftTokens(h drafterHandle, dst []Token) int {
	return int(C.nr_drafter_draft(h.p, (*C.int32_t)(unsafe.SliceData(dst)), C.size_t(len(dst))))
}

func draftAccepted(h drafterHandle, n int) { C.nr_drafter_accepted(h.p, C.int32_t(n)) }
