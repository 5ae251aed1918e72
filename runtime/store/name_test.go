package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/store"
)

// unsafeNames must never reach the file system (fault row N5).
func unsafeNames() []string {
	return []string{
		"", ".", "..", "../x", "a/../b", "/etc/passwd", `C:\x`, `\\host\share`, "a\\b", "~",
		"%2e%2e", "%2e%2e%2fx", "a%00b", "a\x00b", "a\x00.gguf", "a\nb", "a b", " a", "a ", "a:",
		":a", "a::b", "a:b:c", "a@b", "-rf", "--help", ".hidden", "a:.b", "a..b", "a.", "a:b.",
		"con", "nul", "aux", "prn", "com1", "lpt9", "com0", "con.gguf.x", "a:nul", "aux:1",
		"NUL", "SmolLM2:135m", "ａ", "a\u202eb", "é", "a*", "a?", "a|b", "$HOME", "a`b`",
		strings.Repeat("a", store.NameBytesMax+1), strings.Repeat("../", 3000),
		strings.Repeat("a", 10<<10),
	}
}

func TestN5ParseNameRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range unsafeNames() {
		_, err := store.ParseName(s)
		require.ErrorIs(t, err, store.ErrName, "%q", s)
		require.Less(t, len(err.Error()), 500, "a message repeats hostile text: %q", s)
	}
}

func TestN5OperationsRefuse(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	outside := filepath.Join(filepath.Dir(s.Root()), "outside.json")
	require.NoError(t, os.WriteFile(outside, []byte("{}"), 0o644))
	for _, n := range append(unsafeNames(), "../outside", "manifests/../../outside") {
		_, err := s.Pull(t.Context(), n, store.PullOptions{})
		requireError(t, err, store.ErrName)
		_, err = s.Remove(t.Context(), n)
		requireError(t, err, store.ErrName)
		requireError(t, s.Verify(t.Context(), n, nil), store.ErrName)
		if !filepath.IsAbs(n) { // that is a path, which Resolve may follow
			_, err = s.Resolve(t.Context(), n)
			require.Error(t, err, "%q", n)
		}
	}
	require.FileExists(t, outside)
	require.Empty(t, files(t, s, "manifests"))
}

func TestN5SymlinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	data := modelBytes(1)
	donor := open(t, nil)
	add(t, donor, "m:1", data)
	for _, dir := range []string{"manifests", "blobs"} {
		s := open(t, nil)
		require.NoError(t, os.Remove(filepath.Join(s.Root(), dir)))
		require.NoError(t, os.Symlink(filepath.Join(donor.Root(), dir),
			filepath.Join(s.Root(), dir)))
		_, err := s.Resolve(t.Context(), "m:1")
		require.Error(t, err)
		_, err = s.Add(t.Context(), entry(t, "n:1", data, fileSource(t, data)),
			store.PullOptions{})
		require.Error(t, err)
	}
	s := open(t, nil)
	m := add(t, s, "m:1", data)
	require.NoError(t, os.Rename(m.Path, m.Path+".moved"))
	require.NoError(t, os.Symlink(filepath.Base(m.Path)+".moved", m.Path))
	_, err := s.Resolve(t.Context(), "m:1")
	requireError(t, err, store.ErrDamaged)
}

func TestN5DigestOfWrongForm(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0a", 32)
	_, err := store.ParseDigest(good)
	require.NoError(t, err)
	_, err = store.ParseDigest("sha256:" + good)
	require.NoError(t, err)
	for _, d := range []string{
		"", "sha256:", "sha256:../../../etc/passwd", good[1:], good + "0", strings.ToUpper(good),
		"sha256-" + good, "md5:" + good, "sha256:sha256:" + good, good[:63] + "g",
		good[:63] + "\x00", strings.Repeat("/", 64), strings.Repeat("a", 10<<10),
	} {
		_, err := store.ParseDigest(d)
		require.ErrorIs(t, err, store.ErrDigest, "%q", d)
	}
}

func TestParseNameAccepts(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"smollm2:135m", "gemma3:270m", "qwen2.5:0.5b", "llama3.2", "a", "0", "phi4-mini",
		"nomic-embed-text:v1.5", "a_b-c.d:e_f", "console", "com", "com10", "lpt", "null",
		strings.Repeat("a", store.NameBytesMax),
	} {
		n, err := store.ParseName(s)
		require.NoError(t, err)
		require.Equal(t, s, n.String())
	}
}

func TestNamesMapToDistinctFiles(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	rapid.Check(t, func(rt *rapid.T) {
		part := rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,8}`)
		text := part.Draw(rt, "family")
		if rapid.Bool().Draw(rt, "tagged") {
			text += ":" + part.Draw(rt, "tag")
		}
		n, err := store.ParseName(text)
		if err != nil { // a device name
			return
		}
		_, err = s.Resolve(t.Context(), n.String())
		var e *store.Error
		require.ErrorAs(rt, err, &e)
		require.Equal(rt, store.ErrUnknownModel, e.Kind)
	})
}

func FuzzParseName(f *testing.F) {
	for _, s := range append(unsafeNames(), "smollm2:135m", "a", "com1.x") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := store.ParseName(s)
		if err != nil {
			require.ErrorIs(t, err, store.ErrName)
			require.True(t, n.IsZero())
			return
		}
		require.Equal(t, s, n.String())
		require.LessOrEqual(t, len(s), store.NameBytesMax)
		fileName := strings.ReplaceAll(s, ":", "@")
		require.True(t, filepath.IsLocal(fileName))
		require.Equal(t, fileName, filepath.Base(fileName))
		require.NotContains(t, s, "..")
		require.Equal(t, strings.ToLower(s), s)
		require.False(t, strings.ContainsAny(s, "/\\%@~$\x00 "))
	})
}

func FuzzParseDigest(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("0", 64))
	f.Add("sha256:..")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := store.ParseDigest(s)
		if err != nil {
			require.ErrorIs(t, err, store.ErrDigest)
			return
		}
		require.Equal(t, "sha256:"+strings.TrimPrefix(s, "sha256:"), d.String())
		require.True(t, filepath.IsLocal(strings.TrimPrefix(d.String(), "sha256:")))
	})
}
