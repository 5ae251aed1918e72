package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// apply confines all threads of this process, for good. What the kernel does not have is named in
// the notes.
func (c *Confinement) apply(writable string) (notes []string, err error) {
	if c.Off {
		return []string{"the model's process is not confined, as asked"}, nil
	}
	if err := c.limit(); err != nil {
		return nil, err
	}
	note, err := confineFiles(writable)
	if err != nil {
		return nil, fmt.Errorf("landlock: %w", err)
	}
	notes = append(notes, note...)
	if !seccomp.Supported() {
		return append(notes, "the model's process may use the network: this kernel has no seccomp"), nil
	}
	if err := seccomp.LoadFilter(filter()); err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	return notes, nil
}

// limit sets the limits of resources. No core file is written, since it would hold prompts.
func (c *Confinement) limit() error {
	limits := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: c.Files}
	if c.MemoryBytes > 0 {
		limits[unix.RLIMIT_DATA] = c.MemoryBytes
	}
	var errs []error
	for resource, most := range limits {
		var now unix.Rlimit
		if err := unix.Getrlimit(resource, &now); err != nil {
			errs = append(errs, err)
			continue
		}
		most = min(most, now.Max)
		errs = append(errs, unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}))
	}
	return errors.Join(errs...)
}

// Parts of Landlock came with these versions of its interface.
const (
	abiFiles    = 1
	abiTruncate = 3
)

// confineFiles lets this process write to the cache and to devices that compute, and nowhere else.
func confineFiles(writable string) (notes []string, err error) {
	abi, err := llsys.LandlockGetABIVersion()
	switch {
	case err != nil || abi < abiFiles:
		note := "the model's process may write files: this kernel has no Landlock"
		return []string{note}, nil //nolint:nilerr // the error says the same
	case abi < abiTruncate:
		notes = append(notes, "the model's process may shorten files: this kernel's Landlock is old")
	}
	all := landlock.V11.BestEffort()
	// Each thread has a domain of its own: before Linux 6.15 this scope would keep the Go runtime from
	// interrupting its threads. The filter of system calls has the rule in its place.
	all.Scoped &^= llsys.ScopeSignal
	rules := []landlock.Rule{landlock.RODirs("/")}
	if writable != "" {
		rules = append(rules, landlock.RWDirs(writable).IgnoreIfMissing())
	}
	devices := []string{"/dev/null", "/dev/kfd"}
	for _, pattern := range []string{"/dev/nvidia*", "/dev/dri/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		devices = append(devices, found...)
	}
	rules = append(rules, landlock.RWFiles(devices...).WithIoctlDev().IgnoreIfMissing())
	return notes, all.Restrict(rules...)
}

// filter refuses what a model never needs: sockets but those of this machine, other processes, and
// what reaches the kernel on a way around this filter.
func filter() seccomp.Filter {
	refused := []string{
		"bpf", "execve", "execveat", "io_uring_setup", "kexec_load", "keyctl", "kill", "mount",
		"open_by_handle_at", "perf_event_open", "pidfd_send_signal", "process_vm_readv",
		"process_vm_writev", "ptrace", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setns", "tkill",
		"unshare", "userfaultfd",
	}
	return seccomp.Filter{
		NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls: []seccomp.SyscallGroup{{
				Action: seccomp.ActionErrno, Names: refused,
				NamesWithCondtions: []seccomp.NameWithConditions{
					unless("socket", unix.AF_UNIX), unless("tgkill", uint64(os.Getpid())),
				},
			}},
		},
	}
}

// unless refuses a system call whose first argument is another one.
func unless(name string, first uint64) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{
		Name: name,
		Conditions: seccomp.ArgumentConditions{{
			Argument: 0, Operation: seccomp.NotEqual, Value: first,
		}},
	}
}
