package snapshot_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv/snapshot"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files again")

// Files of format version 1 can be read for ever: their names, keys, tags and fields stay as
// docs/format/snapshot.md says.
func TestGolden(t *testing.T) {
	t.Parallel()
	st, data := state(-2, 5), fill(42, 300)
	st.Recompute, st.Part = 1234567*time.Microsecond, snapshot.Partial
	at := time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	for mode, id := range map[string]string{
		"plain":     "a4d23e42297bae490157c9273ee52455d056d1aee97b72fab39e0dca274ec866",
		"encrypted": "5764f3d5ec5304df803e9ac2b4456cb9147fc865512bc890761cc9aa634022a2",
	} {
		golden := filepath.Join("testdata", "v1-"+mode+".golden")
		dir := t.TempDir()
		s := opened(t, dir, func(o *snapshot.Options) {
			modes[mode](o)
			o.Now = func() time.Time { return at }
		})
		require.Equal(t, id, s.ID(st).String(), mode)
		file := filepath.Join(dir, snapshot.FileName(s.ID(st)))
		if *rewrite {
			put(t, s, st, data)
			written, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(golden, written, 0o644))
		}
		raw, err := os.ReadFile(golden)
		require.NoError(t, err)
		overwrite(t, file, raw)
		s = opened(t, dir, modes[mode])
		index := s.Index(ident)
		require.Len(t, index, 1, mode)
		require.Equal(t, st, index[0].State)
		require.Equal(t, at, s.List()[0].Saved)
		requireHit(t, s, s.ID(st), data)
	}
}
