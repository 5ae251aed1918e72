package bench_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
)

// pageReport is a small report with all that a page shows.
func pageReport() *bench.Report {
	r := &bench.Report{Name: "reuse", Quick: true, Flags: []string{"-m", "<b>"}}
	for i, side := range []bench.Side{bench.SideNorion, bench.SidePeer, bench.SidePeerDefault} {
		gaps := make([]int64, 40)
		for j := range gaps {
			gaps[j] = int64(i+1) * 1e6
		}
		r.Runs = append(r.Runs, bench.Run{
			Subject: "chat <m>", Side: side, Ideal: 30, PlayNs: 1e9, Samples: []bench.Sample{{
				Name: "turn 1", Prompt: 100, Computed: 30 * (i + 1), Answer: 41, FirstNs: 5e6,
				GapsNs: gaps,
			}},
		})
	}
	claim, _ := r.Pair("chat <m>", bench.MeasureComputed, bench.SideNorion, bench.SidePeer).
		Claim(bench.Bar{Limit: 0.1, AtMost: true})
	r.Claims = append(r.Claims, claim)
	return r
}

// TestPage: the page stands alone, its drawings are well formed, and names cannot change it.
func TestPage(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, pageReport().WriteHTML(&out))
	text := out.String()
	for _, never := range []string{"<b>", "<m>", "<script", "http:", "https:", "src=", "url("} {
		require.NotContains(t, text, never)
	}
	for _, want := range []string{"chat &lt;m&gt;", "ideal 30", "no, within noise", "Quick"} {
		require.Contains(t, text, want)
	}
	require.Equal(t, 3, strings.Count(text, "<path class="), "a series for each side")
	drawings := 0
	for rest := text; ; drawings++ {
		i := strings.Index(rest, "<svg")
		if i < 0 {
			break
		}
		rest = rest[i:]
		end := strings.Index(rest, "</svg>") + len("</svg>")
		d := xml.NewDecoder(strings.NewReader(rest[:end]))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
		}
		rest = rest[end:]
	}
	require.Equal(t, 7, drawings, "six measures and the time between tokens")
	require.ErrorIs(t, pageReport().WriteHTML(failingWriter{}), os.ErrClosed)
	require.NoError(t, (&bench.Report{}).WriteHTML(io.Discard))
}
