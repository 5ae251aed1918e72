package device

import "golang.org/x/sys/unix"

// systemMemory reads the size of the memory. What is available is not asked: the kernel's figure
// needs Mach calls.
func systemMemory() (RAM, error) {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return RAM{}, err
	}
	return RAM{TotalBytes: int64(n)}, ErrUnknown
}

// systemPerformanceCores counts Apple's performance cores; 0 where all are alike.
func systemPerformanceCores() int {
	n, err := unix.SysctlUint32("hw.perflevel0.physicalcpu")
	if err != nil {
		return 0
	}
	return int(n)
}
