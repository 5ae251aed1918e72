//go:build unix && !linux

package command

import "syscall"

// attributes give the program a group of its own. It ends with its input.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
