//go:build !unix

package command

import (
	"os/exec"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return nil }

// kill ends the program, but nothing that it has started.
func kill(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
