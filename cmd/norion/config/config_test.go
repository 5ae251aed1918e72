package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
)

var flags = map[string][]string{
	"serve": {"port", "host", "sequences", "allow-origin", "threads"},
	"run":   {"threads", "temp"},
}

// TestLookup: a command's table comes before what stands ahead of all tables.
func TestLookup(t *testing.T) {
	t.Parallel()
	f, err := Parse("c.toml", []byte(`
threads = 4
temp = 0.5
[serve]
threads = 8
allow-origin = ["https://a.example", "https://b.example"]
serve-of = {}
`))
	require.NoError(t, err)
	for _, c := range []struct {
		command, flag string
		want          any
		at            string
	}{
		{"run", "threads", int64(4), "c.toml:2"},
		{"serve", "threads", int64(8), "c.toml:5"},
		{"serve", "temp", 0.5, "c.toml:3"},
		{"serve", "allow-origin", []any{"https://a.example", "https://b.example"}, "c.toml:6"},
	} {
		got, ok := f.Lookup(c.command, c.flag)
		require.True(t, ok, c.flag)
		require.Equal(t, Value{Data: c.want, At: c.at}, got)
	}
	_, ok := f.Lookup("run", "allow-origin")
	require.False(t, ok)
	require.Equal(t, "c.toml", f.Path())
}

// TestRefused: each mistake is named with its line and what to do.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, field, says, hint string }{
		{"port 8080", "", "c.toml:1: ", "write NAME = VALUE"},
		{"a = 1\nhost = localhost", "", "c.toml:2: ", "quotes"},
		{"threads = 1\nthreads = 2", "", "c.toml:2: ", "NAME = VALUE"},
		{"\n\nthredas = 4", "thredas", `c.toml:3: unknown key "thredas"`, "did you mean threads?"},
		{"[serve]\nprot = 1", "serve.prot", `c.toml:2: unknown key "prot"`, "did you mean port?"},
		{"[serve]\ntemp = 1", "serve.temp", `unknown key "temp"`, "known are allow-origin, host"},
		{"[sevre]\nport = 1", "sevre", `c.toml:1: unknown table "sevre"`, "did you mean serve?"},
		{"[x.y]\nport = 1", "x", `unknown table "x"`, "known are run, serve"},
		{"serve = 1", "serve", "c.toml:1: serve is a command", "write [serve]"},
		{"[[serve]]\nport = 1", "serve", "c.toml:1: serve is a command", "write [serve]"},
		{"serve = {\"port\" = 1, oprt = 2}", "serve.oprt", "c.toml:1: ", "did you mean port?"},
		{"serve.prot = 2", "serve.prot", "c.toml:1: ", "did you mean port?"},
		{strings.Repeat("#", BytesMax+1), "", "more than 65536 bytes", ""},
	} {
		f, err := Parse("c.toml", []byte(c.text))
		if err == nil {
			err = f.Check(flags)
		}
		var e *infer.Error
		require.ErrorAs(t, err, &e, c.text)
		require.Equal(t, infer.KindInvalid, e.Kind)
		require.Equal(t, c.field, e.Field, c.text)
		require.ErrorContains(t, err, c.says)
		require.Contains(t, e.Hint, c.hint, c.text)
	}
	f, err := Parse("c.toml", []byte(strings.Repeat("#", BytesMax)))
	require.NoError(t, err)
	require.NoError(t, f.Check(flags))
}

// FuzzParse: no file makes the reader panic, and what passes its check can be looked up.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "threads = 4\n[serve]\nport = 1", "serve = {port = 1}", "[[serve]]", "a.b.c = [1, [2]]",
		"serve.\"po.rt\" = '''x'''", "x = 1979-05-27T07:32:00Z", "port = nan", "[serve", "\"\" = 1",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse("c.toml", text)
		if err == nil {
			err = file.Check(flags)
		}
		if err != nil {
			var e *infer.Error
			require.ErrorAs(t, err, &e)
			return
		}
		for command, names := range flags {
			for _, name := range names {
				if v, ok := file.Lookup(command, name); ok {
					require.NotContains(t, v.At, ":0")
				}
			}
		}
	})
}
