// Package storetest gives tests of other packages real models from the user's own store. It owns
// no files: it pulls what is missing through runtime/store, once for all test binaries, since the
// store's lock makes the others wait. For tests of what may not be read, it makes root obey.
//
// It must not know where a model comes from, and no code but tests may import it.
package storetest

import (
	"testing"

	"github.com/norion/norion/runtime/store"
)

// Model returns the path of a model of the catalogue, such as "smollm2:135m", in the user's store
// (NORION_HOME, else the data directory of the user). The first call on a machine downloads it.
// It fails the test, and never skips it, when the model cannot be had.
func Model(t testing.TB, name string) string {
	t.Helper()
	s, err := store.Open(store.Options{})
	if err != nil {
		t.Fatalf("open the model store: %v", err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the model store: %v", err)
		}
	}()
	m, err := s.Pull(t.Context(), name, store.PullOptions{
		Terms: func(l store.Licence) error {
			t.Logf("%s: %s (%s) %s", name, l.Title, l.URL, l.Notice)
			return nil
		},
	})
	if err != nil {
		t.Fatalf("pull %s: %v", name, err)
	}
	return m.Path
}
