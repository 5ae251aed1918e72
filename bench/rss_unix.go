//go:build unix

package bench

import (
	"os"
	"runtime"
	"syscall"
)

// peakRSS is the largest resident set of a process that has ended, in bytes, or 0.
func peakRSS(p *os.ProcessState) int64 {
	usage, ok := p.SysUsage().(*syscall.Rusage)
	if !ok || usage == nil {
		return 0
	}
	return maxRSSBytes(int64(usage.Maxrss)) //nolint:unconvert // 32 bits on some systems
}

// OwnPeakRSS is the largest resident set of this process so far, in bytes, or 0.
func OwnPeakRSS() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return maxRSSBytes(int64(usage.Maxrss)) //nolint:unconvert // 32 bits on some systems
}

// maxRSSBytes knows the unit of ru_maxrss: bytes on macOS, KiB elsewhere.
func maxRSSBytes(n int64) int64 {
	if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
		return n
	}
	return n << 10
}
