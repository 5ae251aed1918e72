package bench_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/store/storetest"
)

func TestSinksValidate(t *testing.T) {
	t.Parallel()
	ok := bench.Sinks{}.Fill(false)
	require.Equal(t, bench.DefaultSinks, ok)
	require.NoError(t, ok.Validate())
	none := bench.Sinks{Sinks: -1}.Fill(true)
	require.Zero(t, none.Sinks)
	require.NoError(t, none.Validate())
	for field, change := range map[string]func(*bench.Sinks){
		"sinks":  func(s *bench.Sinks) { s.Sinks = bench.SizeTokensMax + 1 },
		"window": func(s *bench.Sinks) { s.Window = 1 },
		"block":  func(s *bench.Sinks) { s.Block = s.Window },
		"tokens": func(s *bench.Sinks) { s.Tokens = 19 },
		"score":  func(s *bench.Sinks) { s.Score = -1 },
	} {
		bad := ok
		change(&bad)
		var e *bench.Error
		require.ErrorAs(t, bad.Validate(), &e, field)
		require.Equal(t, field, e.Field)
	}
}

// TestStreamMeasures: a stream that slows down and grows, by hand.
func TestStreamMeasures(t *testing.T) {
	t.Parallel()
	var run bench.Run
	ns := int64(0)
	for i := range 101 {
		run.Marks = append(run.Marks, bench.Mark{
			Tokens: 10 * i, Ns: ns, RSSBytes: 1000 + 2*int64(10*i),
		})
		if ns += 1e6; i >= 50 { // half as fast from the middle on
			ns += 1e6
		}
	}
	require.InDelta(t, 0.5, bench.MeasureSteady.Of(run), 1e-9)
	require.InDelta(t, 2000, bench.MeasureSlope.Of(run), 1e-6)
	require.InDelta(t, 2900./1500, bench.MeasureGrowth.Of(run), 1e-9)
	require.Zero(t, bench.MeasureSlope.Of(bench.Run{}))
	require.Zero(t, bench.MeasureSteady.Of(bench.Run{}))
	var page bytes.Buffer
	run.Subject, run.Side = "stream", bench.SideNorion
	require.NoError(t, (&bench.Report{Runs: []bench.Run{run}}).WriteHTML(&page))
	require.Equal(t, 2, bytes.Count(page.Bytes(), []byte(`<path class="norion line"`)))
}

// TestPerplexity scores one of norion's own pages in three ways. Each scores the same number of
// tokens; the window that is computed anew says what the others should reach.
func TestPerplexity(t *testing.T) {
	text, err := os.ReadFile("../docs/bench.md")
	require.NoError(t, err)
	s := bench.Scenario{
		Model: storetest.Model(t, "smollm2:135m"), Threads: 1, Method: bench.Method{Rounds: 3},
	}
	k := bench.Sinks{Sinks: 4, Window: 92, Block: 16, Score: 64, Text: string(text)}
	report, _, err := s.Stream(t.Context(), k, []string{"perplexity"})
	require.NoError(t, err)
	require.Len(t, report.Runs, 1, "what does not depend on time is measured once")
	v := report.Runs[0].Values
	require.Len(t, v, 4)
	require.InDelta(t, 64, v["tokens scored"], 0)
	anew := v["perplexity of the window computed anew"]
	require.Greater(t, anew, 1.0)
	require.Less(t, v["perplexity with sinks"], 1.25*anew)
	require.Greater(t, v["perplexity without sinks"], v["perplexity with sinks"])

	k.Text = "too short"
	_, _, err = s.Stream(t.Context(), k, []string{"perplexity"})
	require.ErrorIs(t, err, bench.ErrFlag)
	k.Text = ""
	_, _, err = s.Stream(t.Context(), k, []string{"perplexity"})
	require.ErrorIs(t, err, bench.ErrFlag)
}

// TestStreamReal: an answer several times as long as the context comes to its end.
func TestStreamReal(t *testing.T) {
	s := bench.Scenario{Model: storetest.Model(t, "smollm2:135m"), Threads: 1}
	k := bench.Sinks{Sinks: 4, Window: 250, Block: 100, Tokens: 400}
	report, _, err := s.Stream(t.Context(), k, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"perplexity: name a long text with --text"}, report.LeftOut)
	require.Len(t, report.Runs, 1)
	run := report.Runs[0]
	require.Equal(t, 400, run.Samples[0].Answer)
	require.Equal(t, 400, run.Marks[len(run.Marks)-1].Tokens)
	require.Len(t, run.Marks, 201)
	require.Positive(t, bench.MeasureSteady.Of(run))
}

// BenchmarkStream generates b.N tokens with a made-up model, as one answer that outgrows a context
// of 1,024: what the bookkeeping of a stream costs and keeps after very many tokens.
func BenchmarkStream(b *testing.B) {
	path := filepath.Join(b.TempDir(), "tiny.gguf")
	require.NoError(b, os.WriteFile(path, gguftest.TinyModel(1).Bytes(), 0o600))
	s := bench.Scenario{Model: path, Threads: 1, Method: bench.Method{Rounds: 1}}
	k := bench.DefaultSinks
	k.Tokens = max(b.N, 1000)
	report, _, err := s.Stream(b.Context(), k, []string{"stream"})
	require.NoError(b, err)
	run := report.Runs[0]
	b.ReportMetric(run.Rate, "tokens/s")
	b.ReportMetric(bench.MeasureSteady.Of(run), "last/second-tenth")
	b.ReportMetric(bench.MeasureGrowth.Of(run), "rss-last/third-tenth")
	b.ReportMetric(bench.MeasureSlope.Of(run), "rss-B/1000-tokens")
	b.ReportMetric(float64(run.Marks[len(run.Marks)-1].RSSBytes)/(1<<20), "rss-MiB")
}
