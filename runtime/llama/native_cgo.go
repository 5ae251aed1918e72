//go:build cgo

package llama

/*
#include <stdlib.h>
#include "norion.h"
*/
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// Handles are pointers owned by C. Each is freed by the free function of its kind, once, from
// the Close of the Go value that holds it.
type (
	modelHandle   struct{ p *C.nr_model }
	loraHandle    struct{ p *C.nr_lora }
	threadsHandle struct{ p *C.nr_threads }
	contextHandle struct {
		p   *C.nr_context
		err *C.nr_error // for the calls of every token
	}
	samplerHandle struct {
		p   *C.nr_sampler
		err *C.nr_error
	}
)

// newError is C memory for the errors of one handle, freed with it. A call that may call back, to
// log, moves what it points to from Go's stack to the heap: 1 KiB for every token.
func newError() *C.nr_error { return (*C.nr_error)(C.calloc(1, C.sizeof_nr_error)) }

//export norionLog
func norionLog(level C.int32_t, line *C.char, size C.size_t) {
	logLine(int32(level), C.GoStringN(line, C.int(size)))
}

//export norionProgress
func norionProgress(handle C.uintptr_t, done C.float) C.bool {
	watch, ok := cgo.Handle(handle).Value().(*progress)
	return C.bool(ok && watch.step(float32(done)))
}

func nativeStart(minLevel int32) error {
	C.nr_start(C.int32_t(minLevel))
	C.nr_log_level(C.int32_t(minLevel))
	return nil
}

// Distribute spreads the pages of models that are loaded from now on, and the threads of all
// contexts, over the memory nodes of the machine. Start comes before it. It holds for the whole
// process and for good; on a machine with one node it does nothing.
func Distribute() { C.nr_distribute() }

// HugeBytes is how many bytes of weights the system was asked, since the start, to keep in huge
// pages: 0 where norion does not ask. Weights that were freed count too.
func HugeBytes() uint64 { return uint64(C.nr_huge_bytes()) }

// failAllocation lets an allocation of C++ on this thread fail, once, after n others. For tests.
func failAllocation(n int) { C.nr_test_fail_alloc(C.int64_t(n)) }

// lastError turns the error that C filled into a Go one.
func lastError(op string, e *C.nr_error) error {
	return native(op, int32(e.code), C.GoString(&e.text[0]))
}

// Version is llama.cpp's version and commit and the CPU features it uses.
func Version() (version, commit, system string, err error) {
	return C.GoString(C.nr_version()), C.GoString(C.nr_commit()),
		C.GoString(C.nr_system_info()), nil
}

// Devices lists what llama.cpp can compute on, in its own order.
func Devices() ([]Device, error) {
	var out []Device
	for i := C.int32_t(0); i < C.nr_device_count(); i++ {
		var d C.nr_device
		if !C.nr_device_get(i, &d) {
			continue
		}
		out = append(out, Device{
			Name: C.GoString(&d.name[0]), Description: C.GoString(&d.description[0]),
			ID: C.GoString(&d.id[0]), Type: DeviceType(d._type),
			FreeBytes: uint64(d.free), TotalBytes: uint64(d.total),
		})
	}
	return out, nil
}

// arena frees what was allocated through it. One call, one arena.
type arena struct{ held []unsafe.Pointer }

func (a *arena) free() {
	for _, p := range a.held {
		C.free(p)
	}
}

// alloc is zeroed C memory for n values of the given size.
func (a *arena) alloc(n int, size uintptr) unsafe.Pointer {
	p := C.calloc(C.size_t(max(n, 1)), C.size_t(size))
	a.held = append(a.held, p)
	return p
}

func (a *arena) text(s string) *C.char {
	p := C.CString(s)
	a.held = append(a.held, unsafe.Pointer(p))
	return p
}

// texts is an array of NUL-ended strings.
func (a *arena) texts(list []string) **C.char {
	p := (**C.char)(a.alloc(len(list), unsafe.Sizeof((*C.char)(nil))))
	for i, s := range list {
		unsafe.Slice(p, len(list))[i] = a.text(s)
	}
	return p
}

func loadModel(p *ModelParams, watch *progress) (modelHandle, error) {
	var a arena
	defer a.free()
	params := (*C.nr_model_params)(a.alloc(1, C.sizeof_nr_model_params))
	params.paths, params.n_paths = a.texts(p.Paths), C.int32_t(len(p.Paths))
	params.devices, params.n_devices = a.texts(p.Devices), C.int32_t(len(p.Devices))
	params.gpu_layers = -1
	if p.CPUOnly {
		// With no layer there, a GPU would still hold weights in its pinned memory and compute prompts.
		params.gpu_layers, params.n_devices = 0, -1
	} else if p.GPULayers > 0 {
		params.gpu_layers = C.int32_t(p.GPULayers)
	}
	params.split_mode = map[SplitMode]C.int32_t{
		SplitLayer: 1, SplitNone: 0, SplitRow: 2, SplitTensor: 3,
	}[p.Split]
	params.load_mode = C.int32_t(p.Load) - 1
	params.main_gpu = C.int32_t(p.MainGPU)
	if n := len(p.TensorSplit); n > 0 {
		split := (*C.float)(a.alloc(n, C.sizeof_float))
		for i, v := range p.TensorSplit {
			unsafe.Slice(split, n)[i] = C.float(v)
		}
		params.tensor_split, params.n_tensor_split = split, C.int32_t(n)
	}
	patterns, buffers := []string{}, []string{}
	for _, o := range p.Overrides {
		patterns, buffers = append(patterns, o.Pattern), append(buffers, o.Buffer)
	}
	params.override_patterns, params.override_buffers = a.texts(patterns), a.texts(buffers)
	params.n_overrides = C.int32_t(len(p.Overrides))
	params.vocab_only = C.bool(p.VocabularyOnly)
	params.check_tensors = C.bool(p.CheckTensors)
	params.no_extra_buffers = C.bool(p.NoRepack)
	params.dry = C.bool(p.Dry)
	handle := cgo.NewHandle(watch)
	defer handle.Delete()
	params.progress = C.uintptr_t(handle)
	var e C.nr_error
	h := modelHandle{C.nr_model_load(params, &e)}
	if h.p == nil {
		return h, lastError("load", &e)
	}
	return h, nil
}

func freeModel(h modelHandle) { C.nr_model_free(h.p) }

func modelInfo(h modelHandle) ModelInfo {
	var i C.nr_model_info
	C.nr_model_get_info(h.p, &i)
	const ropeMany = 8 // bit of the M-RoPE family in llama_rope_type
	return ModelInfo{
		Description: C.GoString(&i.description[0]), Vocabulary: int(i.n_vocab),
		TrainedTokens: int(i.n_ctx_train), EmbeddingSize: int(i.n_embd_out),
		Layers: int(i.n_layer), Heads: int(i.n_head), HeadsKV: int(i.n_head_kv),
		Window: int(i.n_swa), Parameters: int64(i.n_params), Bytes: int64(i.size),
		BOS: Token(i.bos), EOS: Token(i.eos), EOT: Token(i.eot),
		AddBOS: bool(i.add_bos), AddEOS: bool(i.add_eos),
		Encoder: bool(i.has_encoder), Decoder: bool(i.has_decoder),
		Recurrent: bool(i.recurrent), Hybrid: bool(i.hybrid), Diffusion: bool(i.diffusion),
		MultiplePosRope: i.rope_type > 0 && i.rope_type&ropeMany != 0,
	}
}

func modelMeta(h modelHandle, key string) (string, bool) {
	var a arena
	defer a.free()
	k := a.text(key)
	n := C.nr_model_meta(h.p, k, nil, 0)
	if n < 0 {
		return "", false
	}
	buf := (*C.char)(a.alloc(int(n)+1, 1))
	C.nr_model_meta(h.p, k, buf, C.size_t(n)+1)
	return C.GoStringN(buf, n), true
}

func tokenize(h modelHandle, text string, dst []Token, addSpecial, parseSpecial bool) int {
	return int(C.nr_tokenize(h.p, (*C.char)(unsafe.Pointer(unsafe.StringData(text))),
		C.int32_t(len(text)), (*C.int32_t)(unsafe.SliceData(dst)), C.int32_t(len(dst)),
		C.bool(addSpecial), C.bool(parseSpecial)))
}

func piece(h modelHandle, token Token, dst []byte, special bool) int {
	return int(C.nr_piece(h.p, C.int32_t(token), (*C.char)(unsafe.Pointer(unsafe.SliceData(dst))),
		C.int32_t(len(dst)), C.bool(special)))
}

func detokenize(h modelHandle, tokens []Token, dst []byte, removeSpecial, special bool) int {
	return int(C.nr_detokenize(h.p, (*C.int32_t)(unsafe.SliceData(tokens)),
		C.int32_t(len(tokens)), (*C.char)(unsafe.Pointer(unsafe.SliceData(dst))),
		C.int32_t(len(dst)), C.bool(removeSpecial), C.bool(special)))
}

func tokenEOG(h modelHandle, token Token) bool {
	return bool(C.nr_token_eog(h.p, C.int32_t(token)))
}

func tokenAttr(h modelHandle, token Token) int {
	return int(C.nr_token_attr(h.p, C.int32_t(token)))
}

func loadLora(h modelHandle, path string) (loraHandle, error) {
	var a arena
	defer a.free()
	var e C.nr_error
	l := loraHandle{C.nr_lora_load(h.p, a.text(path), &e)}
	if l.p == nil {
		return l, lastError("load adapter", &e)
	}
	return l, nil
}

func freeLora(h loraHandle) { C.nr_lora_free(h.p) }
