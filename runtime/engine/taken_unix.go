//go:build unix

package engine

import "syscall"

// taken counts how often the system took a processor away from this process.
func taken() int64 {
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) != nil {
		return 0
	}
	return int64(use.Nivcsw) //nolint:unconvert // 32 bits on some systems
}
