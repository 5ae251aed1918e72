//go:build unix && !linux

package worker_test

import (
	"os"
	"syscall"
)

func self(s syscall.Signal) { _ = syscall.Kill(os.Getpid(), s) }
