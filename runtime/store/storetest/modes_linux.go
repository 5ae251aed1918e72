package storetest

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// ObeyModes makes what the test's goroutine does from here on obey the permissions of files, for
// root, too. It takes root's power to pass over them from the thread, which ends with the test.
func ObeyModes(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: Go ends the thread with the goroutine
	self := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var powers [2]unix.CapUserData
	if err := unix.Capget(&self, &powers[0]); err != nil {
		t.Fatalf("read the thread's capabilities: %v", err)
	}
	powers[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
	if err := unix.Capset(&self, &powers[0]); err != nil {
		t.Fatalf("give up capabilities of the thread: %v", err)
	}
}
