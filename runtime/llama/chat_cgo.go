//go:build cgo

package llama

/*
#cgo CFLAGS: -I${SRCDIR}/shim
#include <stdlib.h>
#include "norion_chat.h"
*/
import "C"

import "unsafe"

// Handles are pointers owned by C, freed once from the Close of the Go value that holds them.
type (
	chatHandle   struct{ p *C.nr_chat }
	parserHandle struct{ p *C.nr_parser }
)

// bytesOf is the address and size of s. C reads it during one call; the pointer keeps it alive.
func bytesOf(s string) (*C.char, C.size_t) {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))
}

// take copies a text of C and frees it.
func take(t C.nr_text) []byte {
	defer C.nr_text_free(t)
	return C.GoBytes(unsafe.Pointer(t.data), C.int(t.size))
}

// newChat reads a template; m may be nil.
func newChat(m *modelHandle, text, bos, eos string) (chatHandle, error) {
	cBOS, cEOS := C.CString(bos), C.CString(eos)
	defer C.free(unsafe.Pointer(cBOS))
	defer C.free(unsafe.Pointer(cEOS))
	var model *C.nr_model
	if m != nil {
		model = m.p
	}
	var e C.nr_error
	p, n := bytesOf(text)
	h := C.nr_chat_new(model, p, n, cBOS, cEOS, &e)
	if h == nil {
		return chatHandle{}, lastError("chat", &e)
	}
	return chatHandle{h}, nil
}

func freeChat(h chatHandle) { C.nr_chat_free(h.p) }

func chatInfo(h chatHandle) ([]byte, error) {
	var e C.nr_error
	t := C.nr_chat_info(h.p, &e)
	if t.data == nil {
		return nil, lastError("chat", &e)
	}
	return take(t), nil
}

func renderChat(h chatHandle, request string) ([]byte, error) {
	var e C.nr_error
	p, n := bytesOf(request)
	t := C.nr_chat_render(h.p, p, n, &e)
	if t.data == nil {
		return nil, lastError("render", &e)
	}
	return take(t), nil
}

func newParser(spec string) (parserHandle, error) {
	var e C.nr_error
	p, n := bytesOf(spec)
	h := C.nr_parser_new(p, n, &e)
	if h == nil {
		return parserHandle{}, lastError("parser", &e)
	}
	return parserHandle{h}, nil
}

func freeParser(h parserHandle) { C.nr_parser_free(h.p) }

func parseAnswer(h parserHandle, text string, partial bool) ([]byte, error) {
	var e C.nr_error
	p, n := bytesOf(text)
	t := C.nr_parser_parse(h.p, p, n, C.bool(partial), &e)
	if t.data == nil {
		return nil, lastError("parse", &e)
	}
	return take(t), nil
}

func schemaGrammar(schema string) ([]byte, error) {
	var e C.nr_error
	p, n := bytesOf(schema)
	t := C.nr_schema_grammar(p, n, &e)
	if t.data == nil {
		return nil, lastError("schema", &e)
	}
	return take(t), nil
}

func templateCount() int { return int(C.nr_template_count()) }

// templateAt copies the i-th template, 0 <= i < templateCount().
func templateAt(i int) (name, text string) {
	t := C.nr_template_get(C.int32_t(i))
	return C.GoString(t.name), C.GoStringN(t.text, C.int(t.size))
}
