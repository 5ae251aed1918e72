//go:build unix

package worker_test

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// die ends this process, or does worse.
func die(how string) {
	switch how {
	case "exit":
		os.Exit(0)
	case "panic":
		go panic("of the model")
	case "garbage": // to the parent
		for fd := 3; fd < 32; fd++ {
			if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
				_, _ = unix.Write(fd, make([]byte, 4096))
			}
		}
	default:
		self(map[string]syscall.Signal{
			"kill": unix.SIGKILL, "segv": unix.SIGSEGV, "abort": unix.SIGABRT, "stop": unix.SIGSTOP,
		}[how])
	}
	select {}
}

func signalZero(pid int) error { return unix.Kill(pid, 0) }
