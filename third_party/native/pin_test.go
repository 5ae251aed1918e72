package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var pinFile = filepath.Join("..", "llama.cpp.pin")

func pinText(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(pinFile)
	require.NoError(t, err)
	return string(data)
}

func TestPinOfTheTree(t *testing.T) {
	t.Parallel()
	pin, err := LoadPin(pinFile)
	require.NoError(t, err)
	require.Len(t, pin.Commit, 40)
	require.Contains(t, pin.Build.Paths, "src")
	require.Contains(t, pin.Peers.Paths, "tools")
	require.Len(t, pin.ID(), 16)
}

func TestParsePinRefuses(t *testing.T) {
	t.Parallel()
	good := pinText(t)
	for _, tt := range []struct{ name, from, to, field string }{
		{"missing key", "version ", "# version ", "version"},
		{"missing group", "peers_paths ", "# ", "peers_paths"},
		{"unknown key", "commit ", "comit ", "comit"},
		{"given twice", "commit ", "version = 1\ncommit ", "version"},
		{"no equals sign", "commit ", "commit\ncommit ", "line"},
		{"short commit", "commit     = 0c", "commit     = c", "commit"},
		{"upper case", "commit     = 0c", "commit     = 0C", "commit"},
		{"plain http", "https://", "http://", "repository"},
		{"short digest", "build_sha256 = 0", "build_sha256 = ", "build_sha256"},
		{"path that climbs", "= CMakeLists.txt", "= ../CMakeLists.txt", "build_paths"},
		{"absolute path", "= CMakeLists.txt", "= /CMakeLists.txt", "build_paths"},
		{"package dir that climbs", "vendor/llama.cpp", "vendor/../..", "package_dir"},
		{"open requirement", "cmake==", "cmake>=", "cmake_package"},
		{"option for pip", "package         = ", "package         = -r", "package"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(good, tt.from, tt.to, 1)
			require.NotEqual(t, good, text)
			_, err := ParsePin(strings.NewReader(text))
			require.ErrorIs(t, err, KindPin)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, e.Field, tt.field)
			require.NotEmpty(t, e.Hint)
		})
	}
}

func TestParsePinSize(t *testing.T) {
	t.Parallel()
	good := pinText(t)
	pad := func(total int) string {
		rest := total - len(good)
		return good + strings.Repeat("#"+strings.Repeat("x", 998)+"\n", rest/1000) +
			strings.Repeat("\n", rest%1000)
	}
	_, err := ParsePin(strings.NewReader(pad(pinBytesMax)))
	require.NoError(t, err)
	_, err = ParsePin(strings.NewReader(pad(pinBytesMax + 1)))
	require.ErrorIs(t, err, KindPin)
}

func FuzzParsePin(f *testing.F) {
	f.Add(pinText(f))
	f.Add("version = 1\n")
	f.Add("=\n#\n")
	f.Fuzz(func(t *testing.T, text string) {
		pin, err := ParsePin(strings.NewReader(text))
		if err != nil {
			require.ErrorIs(t, err, KindPin)
			return
		}
		require.NoError(t, pin.Validate())
		for _, g := range pin.Groups() {
			for _, p := range g.Paths {
				require.True(t, filepath.IsLocal(filepath.FromSlash(p)), p)
			}
		}
	})
}
