package engine

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// stream pushes pieces and returns what was shown and whether a stop text was met.
func stream(stops []string, pieces ...string) (shown, met string) {
	t := newTextStream(stops)
	for _, p := range pieces {
		text, ended := t.push([]byte(p))
		shown += text
		if ended {
			return shown, t.met
		}
	}
	return shown + t.flush(), ""
}

func TestTextStream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		stops      []string
		pieces     []string
		shown, met string
	}{
		{"plain", nil, []string{"a", "b"}, "ab", ""},
		{"character over three tokens", nil, []string{"\xe2", "\x82", "\xac!"}, "€!", ""},
		{"half a character at the end", nil, []string{"a\xe2\x82"}, "a\uFFFD", ""},
		{"no UTF-8 in the middle", nil, []string{"a\xffb"}, "a\uFFFDb", ""},
		{"continuation bytes alone", nil, []string{"\x80\x80\x80\x80x"}, "\uFFFDx", ""},
		{"stop inside a token", []string{"END"}, []string{"oneENDtwo"}, "one", "END"},
		{"stop over tokens", []string{"END"}, []string{"oneE", "N", "Dtwo"}, "one", "END"},
		{"stop that does not come", []string{"END"}, []string{"E", "N", "d"}, "ENd", ""},
		{"start of a stop at the end", []string{"END"}, []string{"xEN"}, "xEN", ""},
		{"first of two stops", []string{"b", "a"}, []string{"xaby"}, "x", "a"},
		{"stop begins again in itself", []string{"aab"}, []string{"aa", "ab"}, "a", "aab"},
		{"stop of bytes of a character", []string{"€"}, []string{"1\xe2\x82", "\xac2"}, "1", "€"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			shown, met := stream(c.stops, c.pieces...)
			require.Equal(t, c.shown, shown)
			require.Equal(t, c.met, met)
		})
	}
}

// TestTextStreamSplits: how a text is cut into tokens changes nothing, and what was shown is
// never taken back.
func TestTextStreamSplits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune("ab\n€😀é")), 0, 40, -1).Draw(t, "text")
		stops := rapid.SliceOfN(rapid.StringMatching(`[ab€\n]{1,4}`), 0, 3).Draw(t, "stops")
		want, wantMet := text, ""
		at := len(text)
		for _, s := range stops {
			if i := strings.Index(text, s); i >= 0 && i < at {
				at, want, wantMet = i, text[:i], s
			}
		}
		var pieces []string
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		got, met := stream(stops, pieces...)
		if got != want || (met == "") != (wantMet == "") {
			// A stop text that ends earlier may begin later than one that is still growing.
			earlier := met != "" && strings.HasPrefix(text, got+met)
			if !earlier {
				t.Fatalf("%q with stops %q cut as %q: got %q (%q), want %q (%q)",
					text, stops, pieces, got, met, want, wantMet)
			}
		}
	})
}

func FuzzTextStream(f *testing.F) {
	f.Add([]byte("abc\xe2\x82\xacEND"), "END", uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, stop string, step uint8) {
		var stops []string
		if stop != "" {
			stops = []string{stop}
		}
		s := newTextStream(stops)
		for n := int(step)%7 + 1; len(data) > 0; {
			cut := min(n, len(data))
			text, ended := s.push(data[:cut])
			if !utf8.ValidString(text) || (stop != "" && strings.Contains(text, stop) &&
				utf8.ValidString(stop) && !strings.Contains(stop, "\uFFFD")) {
				t.Fatalf("showed %q with stop %q", text, stop)
			}
			if ended {
				return
			}
			data = data[cut:]
		}
		if !utf8.ValidString(s.flush()) {
			t.Fatal("flushed what is no UTF-8")
		}
	})
}

func TestTextStreamAllocations(t *testing.T) {
	s := newTextStream([]string{"never met"})
	s.push([]byte("warm"))
	allocs := testing.AllocsPerRun(2000, func() { s.push([]byte(" token")) })
	require.Less(t, allocs, 0.01+1.0/500, "a block of %d bytes serves many tokens", textBlockBytes)
}
