package worker

import "syscall"

// self is this program's file, the same one when another has taken its name.
func self() (string, error) { return "/proc/self/exe", nil }

func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
