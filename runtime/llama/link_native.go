//go:build cgo

package llama

/*
#cgo CFLAGS: -I${SRCDIR}/../../third_party/dist/include
#cgo LDFLAGS: -L${SRCDIR}/../../third_party/dist/lib
#cgo !asan LDFLAGS: -lnorion-shim
#cgo asan LDFLAGS: -lnorion-shim-asan
#cgo LDFLAGS: -lllama-common
#cgo !llamadl LDFLAGS: -lllama-common-base -lcpp-httplib
#cgo LDFLAGS: -lllama -lggml
#cgo cuda,!llamadl LDFLAGS: -lggml-cuda
#cgo !llamadl LDFLAGS: -lggml-cpu
#cgo darwin,!llamadl LDFLAGS: -lggml-blas -lggml-metal
#cgo LDFLAGS: -lggml-base
#cgo cuda,!llamadl LDFLAGS: -lcudart -lcublas -lcublasLt -lcuda
#cgo linux,!llamadl,!noopenmp LDFLAGS: -lgomp
#cgo linux LDFLAGS: -lstdc++ -lm -ldl -lpthread
#cgo darwin LDFLAGS: -lc++ -framework Foundation -framework Accelerate
#cgo darwin LDFLAGS: -framework Metal -framework MetalKit
#cgo linux,llamadl LDFLAGS: -Wl,-rpath,$ORIGIN
#cgo darwin,llamadl LDFLAGS: -Wl,-rpath,@loader_path

#if !__has_include(<llama.h>) || !__has_include("native_stamp.h")
#error "llama.cpp is not built here: run `make native` at the top of the repository"
#else
#include "native_stamp.h"
#endif
#ifndef NORION_NATIVE_FLAGS
#define NORION_NATIVE_FLAGS ""
#endif
*/
import "C"

// nativeStamp is the digest of the libraries and headers that this package was linked with. The go
// command does not look at libraries; it sees this constant change, and links again.
const nativeStamp = C.NORION_NATIVE_STAMP

// NativeStamp names the native build in this program: the stamp in third_party/dist/build.json.
func NativeStamp() string { return nativeStamp }

// NativeFlags are the cmake options of that build, separated by spaces.
func NativeFlags() string { return C.NORION_NATIVE_FLAGS }
