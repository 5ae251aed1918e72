//go:build darwin || linux

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// tryLock takes the lock of an open file, or says that another process has it.
// The system drops the lock when its holder ends, however it ends.
func tryLock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return false, nil
	}
	return err == nil, err
}
