// Package nvidia asks NVIDIA's driver about its devices, through NVML. It owns the questions, how
// long they may take, and what a refusal means; it must not know who uses the answers.
//
// It is a package of its own because of how NVML is linked: its library is opened when it is there,
// so the linker is told to let symbols be missing until they are called. A program that does not
// import this package is linked as strictly as ever. A program that does, on a system whose
// compiler binds all symbols at the start (Ubuntu, Fedora), needs -ldflags=-extldflags=-Wl,-z,lazy.
//
// The package is empty where there is no cgo, and on systems other than Linux.
package nvidia
