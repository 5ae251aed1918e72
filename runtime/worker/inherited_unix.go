//go:build unix

package worker

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// closeInherited closes what the parent left open to its children without meaning to. Whatever this
// process opened itself has the flag to be closed at an exec; what came through one has not.
func closeInherited() error {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // closed, as the directory was; or this process's own
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}
