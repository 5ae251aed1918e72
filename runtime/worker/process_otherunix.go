//go:build unix && !linux

package worker

import (
	"os"
	"syscall"
)

func self() (string, error) { return os.Executable() }

// processAttributes has no signal at the parent's end: the child ends with its connection.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
