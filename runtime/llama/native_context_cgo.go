//go:build cgo

package llama

/*
#include <stdlib.h>
#include "norion.h"
*/
import "C"

import "unsafe"

func typeNumber(name string) C.int32_t {
	var a arena
	defer a.free()
	return C.nr_type_from_name(a.text(name))
}

func newContext(h modelHandle, p *ContextParams) (contextHandle, error) {
	params := C.nr_context_defaults()
	params.n_ctx, params.n_seq_max = C.uint32_t(p.Tokens), C.uint32_t(p.Sequences)
	params.n_batch, params.n_ubatch = C.uint32_t(p.Batch), C.uint32_t(p.MicroBatch)
	params.n_outputs_max = C.uint32_t(reservedOutputs(p.Outputs))
	params.n_threads, params.n_threads_batch = C.int32_t(p.Threads), C.int32_t(p.ThreadsBatch)
	params.flash_attn = map[FlashAttention]C.int32_t{FlashAuto: -1, FlashOn: 1, FlashOff: 0}[p.Flash]
	params.type_k, params.type_v = typeNumber(p.TypeK), typeNumber(p.TypeV)
	params.pooling = C.int32_t(p.Pooling) - 1
	params.attention = C.int32_t(p.Attention) - 1
	params.rope_freq_base = C.float(p.RopeFreqBase)
	params.rope_freq_scale = C.float(p.RopeFreqScale)
	params.embeddings = C.bool(p.Embeddings)
	params.offload_kqv, params.op_offload = C.bool(!p.NoOffloadKQV), C.bool(!p.NoOffloadOps)
	params.swa_full, params.kv_unified = C.bool(!p.SmallWindow), C.bool(p.Unified)
	params.perf = C.bool(p.Performance)
	var e C.nr_error
	c := contextHandle{p: C.nr_context_new(h.p, &params, &e)}
	if c.p == nil {
		return c, lastError("context", &e)
	}
	c.err = newError()
	return c, nil
}

func positions(h modelHandle) int { return int(C.nr_positions(h.p)) }

func freeContext(h contextHandle) {
	C.nr_context_free(h.p)
	C.free(unsafe.Pointer(h.err))
}

func contextInfo(h contextHandle) ContextInfo {
	var i C.nr_context_info
	C.nr_context_get_info(h.p, &i)
	return ContextInfo{
		Tokens: int(i.n_ctx), SequenceTokens: int(i.n_ctx_seq), Batch: int(i.n_batch),
		MicroBatch: int(i.n_ubatch), Sequences: int(i.n_seq_max), Threads: int(i.n_threads),
		ThreadsBatch: int(i.n_threads_batch), Shift: bool(i.can_shift), Causal: bool(i.causal),
		Pooling: Pooling(i.pooling + 1), EmbeddingSize: int(i.n_vector),
		Memory: bool(i.has_memory), WindowCells: int(i.n_window),
	}
}

// batchArrays views the batch's places: C memory that lives as long as the context.
func batchArrays(h contextHandle) arrays {
	b := C.nr_context_batch(h.p)
	n := int(b.capacity)
	return arrays{
		token:  unsafe.Slice((*Token)(unsafe.Pointer(b.token)), n),
		pos:    unsafe.Slice((*Pos)(unsafe.Pointer(b.pos)), n),
		seq:    unsafe.Slice((*Seq)(unsafe.Pointer(b.seq)), n),
		output: unsafe.Slice((*int8)(unsafe.Pointer(b.output)), n),
	}
}

func abort(h contextHandle, on bool) { C.nr_abort(h.p, C.bool(on)) }

func setThreads(h contextHandle, n, batch int) {
	C.nr_context_set_threads(h.p, C.int32_t(n), C.int32_t(batch))
}

func setLoras(h contextHandle, loras []loraHandle, scales []float32) bool {
	var a arena
	defer a.free()
	n := len(loras)
	list := (**C.nr_lora)(a.alloc(n, unsafe.Sizeof((*C.nr_lora)(nil))))
	scale := (*C.float)(a.alloc(n, C.sizeof_float))
	for i, l := range loras {
		unsafe.Slice(list, n)[i] = l.p
		unsafe.Slice(scale, n)[i] = C.float(scales[i])
	}
	return bool(C.nr_context_set_loras(h.p, list, scale, C.size_t(n)))
}

func newThreads(p ThreadsParams) (threadsHandle, error) {
	var e C.nr_error
	h := threadsHandle{C.nr_threads_new(C.int32_t(p.N), C.int32_t(p.Poll),
		C.int32_t(p.Priority), &e)}
	if h.p == nil {
		return h, lastError("thread pool", &e)
	}
	return h, nil
}

func freeThreads(h threadsHandle) { C.nr_threads_free(h.p) }

func attach(h contextHandle, decode, batch threadsHandle) {
	C.nr_context_attach(h.p, decode.p, batch.p)
}

func decode(h contextHandle, n int) error {
	if C.nr_decode(h.p, C.int32_t(n), h.err) == C.NR_OK {
		return nil
	}
	return lastError("decode", h.err)
}

func encode(h contextHandle, n int) error {
	if C.nr_encode(h.p, C.int32_t(n), h.err) == C.NR_OK {
		return nil
	}
	return lastError("encode", h.err)
}

func syncContext(h contextHandle) { C.nr_sync(h.p) }

// step fills the picks that C keeps for the context, runs them and reads what they gave.
func step(h contextHandle, m modelHandle, n int, picks []Pick) error {
	list := C.nr_context_picks(h.p, C.int32_t(len(picks)))
	if list == nil && len(picks) > 0 {
		return fail("step", Memory, hints[Memory], "no room for %d picks", len(picks))
	}
	places := unsafe.Slice(list, len(picks))
	for i := range picks {
		p, c := &picks[i], &places[i]
		c.sampler, c.place = p.Sampler.h.p, C.int32_t(p.Place)
		c.special, c.follows = number(p.Special), number(p.Follows)
		p.Made, p.Token, p.EOG, p.Piece, p.Err = false, 0, false, nil, nil
	}
	if C.nr_step(h.p, C.int32_t(n), C.int32_t(len(picks)), h.err) != C.NR_OK {
		return lastError("step", h.err)
	}
	for i := range picks {
		p, c := &picks[i], &places[i]
		switch {
		case c.code != C.NR_OK:
			p.Err = native("step", int32(c.code), C.GoString(&c.piece[0]))
		case c.made == 0: // there was nothing to follow
		case c.size < 0: // a piece longer than the fixed place
			p.Piece = make([]byte, -c.size)
			p.Piece = p.Piece[:piece(m, Token(c.token), p.Piece, p.Special)]
		default:
			p.Piece = unsafe.Slice((*byte)(unsafe.Pointer(&c.piece[0])), int(c.size))
		}
		if c.made != 0 {
			p.Made, p.Token, p.EOG = true, Token(c.token), c.eog != 0
		}
	}
	return nil
}

func number(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

func logits(h contextHandle, place, vocabulary int) []float32 {
	p := C.nr_logits(h.p, C.int32_t(place))
	if p == nil {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(p)), vocabulary)
}

func embedding(h contextHandle, seq Seq, dst []float32) bool {
	p := C.nr_embeddings_seq(h.p, C.int32_t(seq))
	if p == nil {
		return false
	}
	copy(dst, unsafe.Slice((*float32)(unsafe.Pointer(p)), len(dst)))
	return true
}

func setEmbeddings(h contextHandle, on bool) { C.nr_context_set_embeddings(h.p, C.bool(on)) }

func embeddingAt(h contextHandle, place int, dst []float32) bool {
	p := C.nr_embeddings(h.p, C.int32_t(place))
	if p == nil {
		return false
	}
	copy(dst, unsafe.Slice((*float32)(unsafe.Pointer(p)), len(dst)))
	return true
}

func logprobs(h contextHandle, place int, token Token, top []TopLogprob) (float32, bool) {
	var a arena
	defer a.free()
	n := len(top)
	tokens := (*C.int32_t)(a.alloc(n, C.sizeof_int32_t))
	values := (*C.float)(a.alloc(n, C.sizeof_float))
	var own C.float
	ok := C.nr_logprobs(h.p, C.int32_t(place), C.int32_t(token), &own, C.int32_t(n), tokens, values)
	for i := range top {
		top[i] = TopLogprob{
			Token:   Token(unsafe.Slice(tokens, n)[i]),
			Logprob: float32(unsafe.Slice(values, n)[i]),
		}
	}
	return float32(own), bool(ok)
}

func clearMemory(h contextHandle) { C.nr_memory_clear(h.p, false) }

func seqRemove(h contextHandle, seq Seq, p0, p1 Pos) bool {
	return bool(C.nr_seq_rm(h.p, C.int32_t(seq), C.int32_t(p0), C.int32_t(p1)))
}

func seqCopy(h contextHandle, from, to Seq, p0, p1 Pos) {
	C.nr_seq_cp(h.p, C.int32_t(from), C.int32_t(to), C.int32_t(p0), C.int32_t(p1))
}

func seqKeep(h contextHandle, seq Seq) { C.nr_seq_keep(h.p, C.int32_t(seq)) }

func seqAdd(h contextHandle, seq Seq, p0, p1, delta Pos) {
	C.nr_seq_add(h.p, C.int32_t(seq), C.int32_t(p0), C.int32_t(p1), C.int32_t(delta))
}

func seqDivide(h contextHandle, seq Seq, p0, p1 Pos, d int) {
	C.nr_seq_div(h.p, C.int32_t(seq), C.int32_t(p0), C.int32_t(p1), C.int32_t(d))
}

func seqPosMin(h contextHandle, seq Seq) Pos { return Pos(C.nr_seq_pos_min(h.p, C.int32_t(seq))) }

func seqPosMax(h contextHandle, seq Seq) Pos { return Pos(C.nr_seq_pos_max(h.p, C.int32_t(seq))) }

func stateSize(h contextHandle, seq Seq, flags StateFlags) int {
	return int(C.nr_seq_state_size(h.p, C.int32_t(seq), C.uint32_t(flags)))
}

func stateGet(h contextHandle, seq Seq, dst []byte, flags StateFlags) int {
	return int(C.nr_seq_state_get(h.p, C.int32_t(seq),
		(*C.uint8_t)(unsafe.SliceData(dst)), C.size_t(len(dst)), C.uint32_t(flags)))
}

func stateSet(h contextHandle, seq Seq, src []byte, flags StateFlags) int {
	return int(C.nr_seq_state_set(h.p, C.int32_t(seq),
		(*C.uint8_t)(unsafe.SliceData(src)), C.size_t(len(src)), C.uint32_t(flags)))
}

func memoryUse(h contextHandle) []MemoryUse {
	var list [64]C.nr_memory
	n := min(int(C.nr_memory_breakdown(h.p, &list[0], C.int32_t(len(list)))), len(list))
	out := make([]MemoryUse, n)
	for i := range out {
		m := &list[i]
		out[i] = MemoryUse{
			Buffer: C.GoString(&m.buffer[0]), Device: C.GoString(&m.device[0]),
			Host: bool(m.host), Model: uint64(m.model), Context: uint64(m.context),
			Compute: uint64(m.compute), Output: uint64(m.output),
		}
	}
	return out
}
