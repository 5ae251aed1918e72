//go:build unix

package command

import (
	"os/exec"
	"syscall"
)

// kill ends the program and what it has started, as far as that is still of its group.
func kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
