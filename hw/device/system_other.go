//go:build !darwin

package device

// systemMemory is not known here. Linux says it in proc.
func systemMemory() (RAM, error) { return RAM{}, ErrUnknown }

// systemPerformanceCores is not known here.
func systemPerformanceCores() int { return 0 }
