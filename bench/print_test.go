package bench_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
)

// peerGrid is the grid behind testdata/peer.*, which llama-bench of the pinned tree wrote: first
// -o json -oe csv with the defaults, then -o jsonl -oe md with others.
func peerGrid(other bool) bench.Grid {
	g := bench.Grid{
		Models: []string{"smollm2.gguf"}, Prompt: []int{8}, Gen: []int{4},
		PromptGen: [][2]int{{8, 4}}, Depth: []int{0, 8}, Threads: []int{1}, Reps: 2,
	}
	if other {
		g.TypeK, g.TypeV = []string{"q8_0"}, []string{"q8_0"}
		g.Flash, g.Batch, g.MicroBatch = []bench.Flash{bench.FlashOn}, []int{64}, []int{32}
	}
	return g
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return string(b)
}

// deviations of nanoseconds: llama-bench computes them in 64-bit integers, which rounds and, above
// about two seconds, wraps. They are compared by their first digits only.
var deviations = regexp.MustCompile(`("stddev_ns": |Z","\d+",")(\d\d)\d+`)

// TestPrinterAsPeer reads what llama-bench wrote and writes it again in every format: not a byte
// may differ.
func TestPrinterAsPeer(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(read(t, "peer.jsonl")), "\n")
	for _, tt := range []struct {
		file, json string
		format     bench.Format
		other      bool
	}{
		{"peer.json", read(t, "peer.json"), bench.FormatJSON, false},
		{"peer.csv", read(t, "peer.json"), bench.FormatCSV, false},
		{"peer.jsonl", "[" + strings.Join(lines, ",") + "]", bench.FormatJSONL, true},
		{"peer.md", "[" + strings.Join(lines, ",") + "]", bench.FormatMarkdown, true},
	} {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			records, err := bench.ParseRecords([]byte(tt.json))
			require.NoError(t, err)
			var out bytes.Buffer
			p := bench.NewPrinter(&out, tt.format, peerGrid(tt.other))
			tests := peerGrid(tt.other).Tests()
			require.Len(t, records, len(tests))
			for i, r := range records {
				require.Equal(t, tests[i].Prompt, r.Prompt, "the order of tests")
				require.Equal(t, tests[i].Gen, r.Gen)
				require.Equal(t, tests[i].Depth, r.Depth)
				require.NoError(t, p.Print(r))
			}
			require.NoError(t, p.Close())
			digits := func(s string) string { return deviations.ReplaceAllString(s, "$1$2") }
			require.Equal(t, digits(read(t, tt.file)), digits(out.String()))
		})
	}
}

func TestPrinterEmpty(t *testing.T) {
	t.Parallel()
	for format, want := range map[bench.Format]string{
		bench.FormatJSON: "[\n\n]\n", bench.FormatJSONL: "", bench.FormatMarkdown: "",
		bench.FormatCSV: strings.SplitAfter(read(t, "peer.csv"), "\n")[0],
	} {
		var out bytes.Buffer
		require.NoError(t, bench.NewPrinter(&out, format, bench.Grid{}).Close())
		require.Equal(t, want, out.String())
	}
}

// TestPrinterQuotes: text that a format gives a meaning to comes back as it was.
func TestPrinterQuotes(t *testing.T) {
	t.Parallel()
	r := bench.Record{ModelFilename: "a \"b\"\\\n, \x01é.gguf", SamplesNs: []int64{5}, Gen: 1}
	var out bytes.Buffer
	p := bench.NewPrinter(&out, bench.FormatJSON, bench.Grid{})
	require.NoError(t, p.Print(r))
	require.NoError(t, p.Close())
	back, err := bench.ParseRecords(out.Bytes())
	require.NoError(t, err)
	require.Equal(t, r.ModelFilename, back[0].ModelFilename)

	out.Reset()
	p = bench.NewPrinter(&out, bench.FormatCSV, bench.Grid{})
	require.NoError(t, p.Print(bench.Record{CPUInfo: `say "hi", x`, SamplesNs: []int64{5}}))
	require.Contains(t, out.String(), `,"say ""hi"", x",`)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestPrinterReportsFailedWrites(t *testing.T) {
	t.Parallel()
	for _, format := range []bench.Format{
		bench.FormatJSON, bench.FormatJSONL, bench.FormatCSV, bench.FormatMarkdown,
	} {
		p := bench.NewPrinter(failingWriter{}, format, bench.Grid{})
		require.ErrorIs(t, p.Print(bench.Record{SamplesNs: []int64{1}}), os.ErrClosed)
		require.ErrorIs(t, p.Close(), os.ErrClosed)
	}
}

func TestParseFormat(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"md", "json", "jsonl", "csv"} {
		f, err := bench.ParseFormat(s)
		require.NoError(t, err)
		require.Equal(t, s, string(f))
	}
	for _, s := range []string{"", "JSON", "sql", strings.Repeat("x", 1000)} {
		_, err := bench.ParseFormat(s)
		require.ErrorIs(t, err, bench.ErrFlag)
		require.Less(t, len(err.Error()), 200)
	}
}

func TestParseRecordsRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty":          "",
		"not JSON":       "error: failed to load model",
		"cut off":        `[{"n_gen": 4, "samples_ns": [1`,
		"an object":      `{}`,
		"wrong type":     `[{"n_gen": "four", "samples_ns": [1]}]`,
		"no samples":     `[{"n_gen": 4}]`,
		"zero time":      `[{"n_gen": 4, "samples_ns": [1, 0]}]`,
		"negative time":  `[{"n_gen": 4, "samples_ns": [-1]}]`,
		"more after it":  `[{"n_gen": 4, "samples_ns": [1]}] []`,
		"bound exceeded": `[` + strings.Repeat(" ", 16<<20) + `]`,
	} {
		_, err := bench.ParseRecords([]byte(text))
		require.ErrorIs(t, err, bench.ErrOutput, name)
	}
	at, err := bench.ParseRecords([]byte("[" + strings.Repeat(" ", 16<<20-2) + "]"))
	require.NoError(t, err, "at the bound")
	require.Empty(t, at)
}

func FuzzParseRecords(f *testing.F) {
	for _, name := range []string{"peer.json", "peer.jsonl"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte(`[{"samples_ns": [9223372036854775807], "n_gen": -1}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := bench.ParseRecords(data)
		if err != nil {
			require.ErrorIs(t, err, bench.ErrOutput)
			return
		}
		for _, format := range []bench.Format{bench.FormatJSON, bench.FormatMarkdown} {
			var out bytes.Buffer
			p := bench.NewPrinter(&out, format, bench.Grid{})
			for _, r := range records {
				require.NoError(t, p.Print(r))
			}
			require.NoError(t, p.Close())
			if format == bench.FormatJSON && len(records) > 0 {
				again, err := bench.ParseRecords(out.Bytes())
				require.NoError(t, err)
				require.Len(t, again, len(records))
				require.Equal(t, records[0].SamplesNs, again[0].SamplesNs)
			}
		}
	})
}
