package bench_test

import (
	"bytes"
	"context"
	"iter"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store/storetest"
)

func TestDraftsValidate(t *testing.T) {
	t.Parallel()
	ok := bench.Drafts{}.Fill(false)
	require.Equal(t, bench.DefaultDrafts, ok)
	require.NoError(t, ok.Validate())
	require.Equal(t, bench.QuickDrafts, bench.Drafts{}.Fill(true))
	for field, bad := range map[string]bench.Drafts{
		"lines": {Lines: 1, Gen: 2},
		"gen":   {Lines: 2, Gen: 1},
	} {
		var e *bench.Error
		require.ErrorAs(t, bad.Validate(), &e, field)
		require.Equal(t, field, e.Field)
	}
}

// figure is a claim's value, by the end of its name.
func figure(t *testing.T, r *bench.Report, subject, end string) bench.Claim {
	t.Helper()
	for _, c := range r.Claims {
		if strings.HasPrefix(c.Name, subject) && strings.HasSuffix(c.Name, end) {
			return c
		}
	}
	require.Fail(t, "no claim", "%s ... %s", subject, end)
	return bench.Claim{}
}

// TestSpeculateAlone: three sides of norion in turns, what they guessed, and where a greedy answer
// parts from that of single steps.
func TestSpeculateAlone(t *testing.T) {
	t.Parallel()
	var asked []infer.Request
	open := func(ctx context.Context, w bench.EngineWish) (infer.Backend, error) {
		require.Equal(t, 1, w.Sequences)
		b, err := openFake(ctx, w)
		b.(*fakeBackend).parts = 5
		return recording{b, &asked}, err
	}
	s := bench.Scenario{
		Model: modelFile(t), Threads: 1, Open: open, Method: bench.Method{Rounds: 2},
	}
	report, pairs, err := s.Speculate(t.Context(), bench.Drafts{Lines: 3, Gen: 8}, nil)
	require.NoError(t, err)
	require.Equal(t, "speculate", report.Name)
	require.Len(t, report.Runs, 4*2*3)
	require.Len(t, pairs, 4*2)
	for i, run := range report.Runs[:3] {
		require.Equal(t, []bench.Side{bench.SideOff, bench.SideNorion, bench.SideOn}[i], run.Side)
		require.Positive(t, run.Rate)
	}
	for _, q := range []string{"quote", "json", "edit"} {
		require.InDelta(t, 5, figure(t, &report, q, "tokens as without speculation, norion").Value, 0)
		require.Equal(t, ">= 1.50", figure(t, &report, q, "norion to speculation-off").Bar)
	}
	require.Equal(t, ">= 0.98", figure(t, &report, "free", "norion to speculation-off").Bar)
	require.InDelta(t, 7, figure(t, &report, "free", "drafted, norion").Value, 0)
	require.InDelta(t, 6, figure(t, &report, "free", "accepted, norion").Value, 0)
	seeds := map[uint32]int{}
	for _, r := range asked {
		seeds[r.Sampling.Seed]++
		require.Equal(t, r.Sampling.Seed > 0, r.Sampling.Temperature > 0)
	}
	require.Equal(t, map[uint32]int{0: 3 * 6, 1: 6}, seeds, "free text has one seed on all sides")
	var out bytes.Buffer
	require.NoError(t, report.WriteText(&out, pairs))
	require.Contains(t, out.String(), "(speculation-off)")

	_, _, err = s.Speculate(t.Context(), bench.Drafts{}, []string{"talk"})
	require.ErrorIs(t, err, bench.ErrFlag)
}

// recording notes what is asked.
type recording struct {
	infer.Backend
	asked *[]infer.Request
}

func (r recording) Generate(ctx context.Context, q infer.Request) iter.Seq2[infer.Chunk, error] {
	*r.asked = append(*r.asked, q)
	return r.Backend.Generate(ctx, q)
}

// TestSpeculatePeers: llama-server speculates with its best flags only.
func TestSpeculatePeers(t *testing.T) {
	c, log := comparer(t, "norion", "llama-server", "")
	s := bench.Scenario{
		Model: modelFile(t), Threads: 1, Norion: c.Norion, Server: c.Bench, Open: openFake,
		Method: bench.Method{Quick: true},
	}
	report, pairs, err := s.Speculate(t.Context(), bench.Drafts{Lines: 2, Gen: 6},
		[]string{"quote"})
	require.NoError(t, err)
	require.Len(t, pairs, 4)
	require.InDelta(t, 9, figure(t, &report, "quote", "drafted, peer").Value, 0)
	require.InDelta(t, 4, figure(t, &report, "quote", "accepted, peer").Value, 0)
	for _, line := range log() {
		require.Equal(t, strings.Contains(line, "-np 1"), strings.Contains(line, "--spec-type"))
	}
	for _, run := range report.Runs {
		require.Equal(t, report.Runs[0].Work, run.Work)
	}
}

// TestSpeculateReal: a real model that copies a text accepts drafts, and begins as it does without
// speculation.
func TestSpeculateReal(t *testing.T) {
	require.NoError(t, llama.Start(nil))
	s := bench.Scenario{
		Model: storetest.Model(t, "smollm2:135m"), Threads: 1, Method: bench.Method{Rounds: 1},
	}
	report, _, err := s.Speculate(t.Context(), bench.Drafts{Lines: 4, Gen: 32}, []string{"quote"})
	require.NoError(t, err)
	require.Greater(t, figure(t, &report, "quote", "accepted, norion").Value, 8.0)
	require.Positive(t, figure(t, &report, "quote", "as without speculation, norion").Value)
}
