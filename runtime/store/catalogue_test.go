package store_test

import (
	"encoding/json"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/store"
)

func TestDefaultCatalogue(t *testing.T) {
	t.Parallel()
	c, err := store.DefaultCatalogue()
	require.NoError(t, err)

	e, ok := c.Lookup(name(t, "smollm2"))
	require.True(t, ok)
	require.Equal(t, "smollm2:135m", e.Name.String())
	require.Equal(t, "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
		e.SHA256.String())
	require.Len(t, e.Sources[0].Wheels, 1)

	e, ok = c.Lookup(name(t, "gemma3:270m"))
	require.True(t, ok)
	require.Equal(t, "sha256:a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
		e.SHA256.String())
	require.Len(t, e.Sources[0].Wheels, 4)
	require.NotEmpty(t, e.Template)
	require.Contains(t, e.Licence.Notice, e.Licence.Title)

	for _, e := range c.Models {
		require.NotEmpty(t, e.Description, e.Name)
		require.NotEmpty(t, e.Licence.Title, e.Name)
		require.Equal(t, e.SHA256.IsZero(), e.UnverifiedOffline, e.Name)
	}
	_, ok = c.Lookup(name(t, "nobody"))
	require.False(t, ok)
}

func TestParseCatalogueRefuses(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("0", 64)
	model := func(fields string) string {
		return `{"schema": 1, "hub": "https://hub.example", "models": [{
			"name": "m:1", "description": "", "parameters": "", "quantisation": "",
			"licence": {"name": "mit", "title": "MIT"}, "sha256": "` + digest + `", ` +
			fields + `}]}`
	}
	source := func(fields string) string { return model(`"sources": [{` + fields + `}]`) }
	wheel := func(fields string) string {
		return source(`"kind": "wheel", "wheels": [{` + fields + `}]`)
	}
	_, err := store.ParseCatalogue([]byte(source(`"kind": "https", "url": "https://a.example/m"`)))
	require.NoError(t, err)
	for _, tc := range []struct{ text, want string }{
		{``, "unexpected end"},
		{`[]`, "cannot unmarshal"},
		{`{"schema": 1}`, "hub"},
		{`{"schema": 1, "hub": "https://h", "extra": 1}`, "unknown field"},
		{`{"schema": 1, "hub": "https://h"} {}`, "after top-level"},
		{`{"schema": 0, "hub": "https://h"}`, "schema"},
		{`{"schema": 1, "hub": "http://h.example"}`, "use https"},
		{`{"schema": 1, "hub": "https://u:p@h"}`, "password"},
		{model(`"sources": []`), "0 sources"},
		{model(`"size": -1, "sources": [{"kind": "file", "path": "x"}]`), "size"},
		{model(`"size": 2199023255553, "sources": [{"kind": "file", "path": "x"}]`), "size"},
		{source(`"kind": "ftp"`), "unknown kind"},
		{source(`"kind": "https", "url": "http://a.example/m"`), "use https"},
		{source(`"kind": "https", "url": "file:///etc/passwd"`), "no host"},
		{source(`"kind": "https", "url": "https://u:p@a.example/m"`), "password"},
		{source(`"kind": "https", "url": "://"`), "not a URL"},
		{source(`"kind": "hub", "repository": "a", "file": "f"`), "owner/name"},
		{source(`"kind": "hub", "repository": "../a", "file": "f"`), "owner/name"},
		{source(`"kind": "hub", "repository": "a/b", "file": "../f"`), "plain path"},
		{source(`"kind": "hub", "repository": "a/b", "file": "f?x"`), "plain path"},
		{source(`"kind": "hub", "repository": "a/b", "file": "f", "revision": "a/b"`), "word"},
		{source(`"kind": "file"`), "path"},
		{source(`"kind": "wheel"`), "0 wheels"},
		{wheel(`"package": "-rx", "version": "1"`), "plain words"},
		{wheel(`"package": "p", "version": "1 --index-url=x"`), "plain words"},
		{wheel(`"package": "p", "version": "1", "members": ["m"]`), "sha256"},
		{wheel(`"package": "p", "version": "1", "sha256": "` + digest + `"`), "members"},
		{wheel(`"package": "p", "version": "1", "sha256": "` + digest +
			`", "members": ["../m"]`), "plain path"},
		{wheel(`"package": "p", "version": "1", "sha256": "` + digest +
			`", "members": ["/m"]`), "plain path"},
		{strings.Replace(source(`"kind": "file", "path": "x"`), digest, "", 1), "sha256"},
		{strings.Replace(source(`"kind": "file", "path": "x"`), "m:1", "../m", 1), "name"},
		{strings.Replace(source(`"kind": "file", "path": "x"`), `"mit"`, `""`, 1), "licence"},
	} {
		_, err := store.ParseCatalogue([]byte(tc.text))
		requireError(t, err, store.ErrCatalogue)
		require.ErrorContains(t, err, tc.want, tc.text)
	}
	_, err = store.ParseCatalogue([]byte(`{"schema": 2, "later": true}`))
	requireError(t, err, store.ErrTooNew)
}

func TestParseCatalogueSizeBound(t *testing.T) {
	t.Parallel()
	const bytesMax = 1 << 20
	text := `{"schema": 1, "hub": "https://hub.example", "models": []}`
	_, err := store.ParseCatalogue([]byte(text + strings.Repeat(" ", bytesMax-len(text))))
	require.NoError(t, err)
	_, err = store.ParseCatalogue([]byte(text + strings.Repeat(" ", bytesMax-len(text)+1)))
	requireError(t, err, store.ErrCatalogue)
}

func TestCatalogueNamesAreUnique(t *testing.T) {
	t.Parallel()
	data := modelBytes(1)
	e := entry(t, "m:1", data, fileSource(t, data))
	twin := e
	twin.Name, twin.Aliases = name(t, "n:1"), []store.Name{e.Name}
	_, err := store.Open(store.Options{Root: t.TempDir(), Catalogue: catalogue(e, twin)})
	requireError(t, err, store.ErrCatalogue)
}

func FuzzParseCatalogue(f *testing.F) {
	f.Add([]byte(`{"schema": 1, "hub": "https://h", "models": [{"name": "m:1", "description": "",
		"parameters": "", "quantisation": "", "licence": {"name": "mit", "title": ""},
		"unverified_offline": true, "sources": [{"kind": "hub", "repository": "a/b",
		"file": "f"}, {"kind": "https", "url": "https://h/m"}, {"kind": "file", "path": "p"}]}]}`))
	f.Add([]byte(`{"schema": 1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := store.ParseCatalogue(data)
		if err != nil {
			var e *store.Error
			require.ErrorAs(t, err, &e)
			return
		}
		again, err := json.Marshal(c)
		require.NoError(t, err)
		_, err = store.ParseCatalogue(again)
		require.NoError(t, err)
	})
}

func TestHome(t *testing.T) {
	t.Parallel()
	abs := func(elem ...string) string {
		p, err := filepath.Abs(filepath.Join(elem...))
		require.NoError(t, err)
		return p
	}
	user := abs("u")
	system := filepath.Join(user, ".local", "share", "norion")
	switch runtime.GOOS {
	case "darwin":
		system = filepath.Join(user, "Library", "Application Support", "norion")
	case "windows":
		system = filepath.Join(user, "AppData", "Local", "norion")
	}
	for _, tc := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HOME": user}, system},
		{map[string]string{"HOME": user, "XDG_DATA_HOME": "relative"}, system},
		{map[string]string{"HOME": user, "XDG_DATA_HOME": abs("x")}, abs("x", "norion")},
		{map[string]string{"NORION_HOME": abs("n"), "XDG_DATA_HOME": abs("x")}, abs("n")},
		{map[string]string{"NORION_HOME": "n"}, abs("n")},
	} {
		got, err := store.Home(func(k string) string { return tc.env[k] })
		require.NoError(t, err)
		require.Equal(t, tc.want, got)
	}
	_, err := store.Home(func(k string) string { return map[string]string{"HOME": "rel"}[k] })
	requireError(t, err, store.ErrOptions)
}

func TestOptionsValidate(t *testing.T) {
	t.Parallel()
	for _, o := range []store.Options{
		{Root: "a\x00b"},
		{RetryDelay: -1},
		{StallTimeout: -1},
		{Hub: "http://hub.example"},
		{Hub: "https://user:secret@hub.example"},
		{HubToken: "a\nb"},
	} {
		requireError(t, o.Validate(), store.ErrOptions)
		_, err := store.Open(o)
		requireError(t, err, store.ErrOptions)
		require.NotContains(t, err.Error(), "secret")
	}
	require.NoError(t, (&store.Options{}).Validate())
}
