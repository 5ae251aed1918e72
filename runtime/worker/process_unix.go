//go:build unix

package worker

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Supported says that this system has workers.
const Supported = true

// socketPair makes a connection between two ends that nobody else can reach. The second is the
// child's; neither is inherited but by being named.
func socketPair() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	file := os.NewFile(uintptr(fds[0]), "socket")
	ours, err := net.FileConn(file) // a copy
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// command describes the process: an empty environment, no descriptors but those that are named, and
// an end with this process.
func command(o *Options) (*exec.Cmd, error) {
	argv := o.Command
	if argv == nil {
		path, err := self()
		if err != nil {
			return nil, err
		}
		argv = []string{path, "worker"}
	}
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...)
	cmd.Args[0] = filepath.Base(os.Args[0])
	cmd.Env = append([]string{}, o.Env...) // not nil, which would be this process's own
	cmd.SysProcAttr = processAttributes()
	return cmd, nil
}

// stayOnThread keeps the goroutine on one thread until the function that it returns is called: the
// kernel ends the child with the thread that started it.
func stayOnThread() (leave func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}
