//go:build !linux

package storetest

import (
	"os"
	"runtime"
	"testing"
)

// ObeyModes makes what the test's goroutine does from here on obey the permissions of files. It
// skips the test for a user who stands above them, and where files have none.
func ObeyModes(t testing.TB) {
	t.Helper()
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("this user may read everything")
	}
}
