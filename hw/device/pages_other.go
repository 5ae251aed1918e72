//go:build !linux

package device

import "runtime/debug"

// allocate gives memory that belongs to the caller until free is called.
func allocate(size int) (memory []byte, free func(), err error) {
	return make([]byte, size), debug.FreeOSMemory, nil
}
