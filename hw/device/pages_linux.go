package device

import "golang.org/x/sys/unix"

// allocate gives memory in huge pages where they are to be had, as the weights of a model are kept:
// with small ones the same memory is read more slowly. It belongs to the caller until free is
// called.
func allocate(size int) (memory []byte, free func(), err error) {
	memory, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, err
	}
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE) // small pages serve, too
	return memory, func() { _ = unix.Munmap(memory) }, nil
}
