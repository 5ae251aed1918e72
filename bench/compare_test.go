package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/llama"
)

// TestMain makes the test binary also the programs that are measured.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "program" {
		os.Exit(program(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// program acts as norion, llama-bench or llama-completion. It writes its name to the log named by
// its first argument; the second says what is wrong with it.
func program(args []string) int {
	log, mode, rest := args[0], args[1], args[2:]
	f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 1
	}
	fmt.Fprintln(f, mode, strings.Join(rest, " "))
	if f.Close() != nil {
		return 1
	}
	value := func(flag string) string {
		i := slices.Index(rest, flag)
		if i < 0 || i+1 >= len(rest) {
			return "0"
		}
		return rest[i+1]
	}
	switch {
	case strings.HasSuffix(mode, "-fails"):
		fmt.Fprintln(os.Stderr, "it broke")
		return 3
	case strings.HasSuffix(mode, "-silent"):
		return 0
	case mode == "llama-server":
		return serve(rest, os.Getenv("TEST_COMMIT"))
	case mode == "llama-server-foreign":
		return serve(rest, "ffffffff")
	case slices.Contains(rest, "reuse") || slices.Contains(rest, "concurrency"):
		return scenarioAlone(rest)
	case slices.Contains(rest, "run") || strings.Contains(mode, "completion"):
		fmt.Println(" word")
		return 0
	}
	commit, ns := os.Getenv("TEST_COMMIT"), "1000"
	if strings.HasSuffix(mode, "-foreign") {
		commit = "ffffffff"
	}
	if strings.HasPrefix(mode, "peer") {
		ns = map[string]string{"none": "1250", "auto": "2000"}[value("-lm")]
	}
	if strings.HasSuffix(mode, "-otherwise") {
		rest[slices.Index(rest, "-lm")+1] = "mmap"
	}
	fmt.Printf(`[{"build_commit": %q, "n_prompt": %s, "n_gen": %s, "n_depth": %s,
		"load_mode": %q, "samples_ns": [%s]}]`, commit, value("-p"), value("-n"), value("-d"),
		value("-lm"),
		strings.TrimSuffix(strings.Repeat(ns+",", int(value("-r")[0]-'0')), ","))
	return 0
}

// comparer is a Compare over fake programs, and the log of their runs.
func comparer(t *testing.T, norion, peer, completion string) (bench.Compare, func() []string) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, llama.Start(nil))
	_, commit, _, err := llama.Version()
	require.NoError(t, err)
	t.Setenv("TEST_COMMIT", commit)
	t.Setenv("NORION_THREADS", "99") // must not reach a measured program
	log := filepath.Join(t.TempDir(), "log")
	p := func(mode string) bench.Program {
		return bench.Program{Path: exe, Args: []string{"program", log, mode}}
	}
	c := bench.Compare{Norion: p(norion), Bench: p(peer), Completion: p(completion)}
	return c, func() []string {
		b, err := os.ReadFile(log)
		require.NoError(t, err)
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

func modelFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, os.WriteFile(path, []byte("weights"), 0o600))
	return path
}

const otherDigest = "sha256:30e3f7e71a5a1f7a0e5c26a14fdc5c17fac1f9ba3dc3a1bd4c8c1e1fbb9c4c9e"

func TestCompare(t *testing.T) {
	c, log := comparer(t, "norion", "peer", "completion")
	g := bench.Grid{
		Models: []string{modelFile(t)}, Prompt: []int{8}, Gen: []int{4}, Threads: []int{1}, Reps: 2,
	}
	report, pairs, err := c.Run(t.Context(), g)
	require.NoError(t, err)

	// Two tests and the first token, five rounds, three sides.
	require.Len(t, report.Runs, 3*5*3)
	require.Len(t, log(), len(report.Runs))
	var order []string
	for _, line := range log()[:6] {
		order = append(order, strings.Fields(line)[0])
	}
	require.Equal(t, []string{"norion", "peer", "peer", "peer", "peer", "norion"}, order)
	args := func(line, after string) string { return line[strings.Index(line, after)+len(after):] }
	require.Equal(t, args(log()[0], "native "), args(log()[2], "peer "), "the same flags")
	require.Equal(t, strings.Replace(args(log()[0], "native "), "-lm auto", "-lm none", 1),
		args(log()[1], "peer "), "its best flags")

	require.Equal(t, bench.ReportSchema, report.Schema)
	require.Equal(t, 5, report.Rounds)
	require.Len(t, report.Models, 1)
	require.EqualValues(t, 7, report.Models[0].Bytes)
	require.Len(t, pairs, 2*4+3)
	require.Equal(t, bench.Summary{Median: 1.25, Min: 1.25, Max: 1.25, N: 5}, pairs[0].Ratio)
	require.Equal(t, 4, pairs[0].SelfA.N)
	require.Zero(t, pairs[0].SelfA.Spread())
	require.Equal(t, bench.Summary{Median: 2, Min: 2, Max: 2, N: 5}, pairs[2].Ratio, "its defaults")
	require.Equal(t, ">= 0.98", report.Claims[2].Bar)
	first := report.Claims[0]
	require.True(t, *first.Holds)
	require.Equal(t, ">= 0.98", first.Bar)
	require.Equal(t, 5, first.Samples)
	require.False(t, first.WithinNoise)
	for _, r := range report.Runs {
		require.Positive(t, r.WallNs)
		require.Positive(t, r.PeakRSSBytes)
		require.Positive(t, r.FirstByteNs)
		require.LessOrEqual(t, r.FirstByteNs, r.WallNs)
	}

	var out bytes.Buffer
	require.NoError(t, report.WriteJSON(&out))
	var back bench.Report
	require.NoError(t, json.Unmarshal(out.Bytes(), &back))
	require.Equal(t, report, back, "the JSON holds everything")
	out.Reset()
	require.NoError(t, report.WriteText(&out, pairs))
	require.Contains(t, out.String(), "1.250 [1.250 1.250]")
	require.ErrorIs(t, report.WriteText(failingWriter{}, pairs), os.ErrClosed)
}

func TestCompareQuick(t *testing.T) {
	c, _ := comparer(t, "norion", "peer", "completion")
	c.Quick, c.Completion.Path = true, ""
	report, _, err := c.Run(t.Context(), bench.Grid{Models: []string{modelFile(t)}})
	require.NoError(t, err)
	require.True(t, report.Quick)
	require.Len(t, report.Runs, 2*3*3)
	require.Contains(t, report.Runs[0].Subject, "pp128")
	require.Len(t, report.Runs[0].SamplesNs, 1)
}

func TestCompareFails(t *testing.T) {
	for _, tt := range []struct {
		norion, peer, completion string
		want                     bench.Kind
	}{
		{"norion-fails", "peer", "completion", bench.ErrProcess},
		{"norion", "peer-fails", "completion", bench.ErrProcess},
		{"norion", "peer", "completion-fails", bench.ErrProcess},
		{"norion", "peer-silent", "completion", bench.ErrOutput},
		{"norion", "peer", "completion-silent", bench.ErrOutput},
		{"norion-otherwise", "peer", "completion", bench.ErrOutput},
		{"norion", "peer-foreign", "completion", bench.ErrPeerBuild},
	} {
		c, _ := comparer(t, tt.norion, tt.peer, tt.completion)
		_, _, err := c.Run(t.Context(), bench.Grid{Models: []string{modelFile(t)}, Reps: 1})
		var e *bench.Error
		require.ErrorAs(t, err, &e, "%+v", tt)
		require.Equal(t, tt.want, e.Kind, "%+v", tt)
		if e.Kind == bench.ErrProcess {
			require.ErrorContains(t, err, "it broke")
		}
	}
	c, _ := comparer(t, "norion", "peer", "completion")
	path := modelFile(t)
	c.Resolve = func(context.Context, string) (string, string, error) {
		return path, otherDigest, nil
	}
	_, _, err := c.Run(t.Context(), bench.Grid{Models: []string{"m"}})
	require.ErrorContains(t, err, "not "+otherDigest)
	c.Resolve = func(context.Context, string) (string, string, error) {
		return path + "x", "", nil
	}
	_, _, err = c.Run(t.Context(), bench.Grid{Models: []string{"m"}})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, _, err = c.Run(t.Context(), bench.Grid{})
	require.ErrorIs(t, err, bench.ErrFlag)
	for _, rounds := range []int{-1, 1, bench.RoundsMin - 1, bench.RoundsMax + 1} {
		c.Rounds = rounds
		require.ErrorIs(t, c.Validate(), bench.ErrFlag)
	}
	for _, rounds := range []int{0, bench.RoundsMin, bench.RoundsMax} {
		c.Rounds = rounds
		require.NoError(t, c.Validate())
	}
}

func TestProgramCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	exe, err := os.Executable()
	require.NoError(t, err)
	_, _, err = bench.Program{Path: exe}.Run(ctx, "-test.run=^$")
	require.ErrorIs(t, err, context.Canceled)
	_, _, err = bench.Program{Path: exe + "-none"}.Run(t.Context())
	require.ErrorIs(t, err, bench.ErrProcess)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestFindPeer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := func(string) string { return dir }
	_, err := bench.FindPeer("llama-bench", env)
	require.ErrorIs(t, err, bench.ErrPeer)
	var e *bench.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Hint, "make peers")
	name := filepath.Join(dir, "llama-bench")
	require.NoError(t, os.WriteFile(name, nil, 0o755)) //nolint:gosec // a program is executable
	path, err := bench.FindPeer("llama-bench", env)
	require.NoError(t, err)
	require.Equal(t, name, path)
	_, err = bench.FindPeer("no-such-program", func(string) string { return "" })
	require.ErrorIs(t, err, bench.ErrPeer)
}

func TestClaims(t *testing.T) {
	t.Parallel()
	report := func(norion, peer []float64) *bench.Report {
		r := &bench.Report{}
		for i := range norion {
			r.Runs = append(r.Runs,
				bench.Run{Subject: "s", Side: bench.SideNorion, Round: i, Rate: norion[i]},
				bench.Run{Subject: "s", Side: bench.SidePeer, Round: i, Rate: peer[i]},
				bench.Run{Subject: "other", Side: bench.SidePeer, Round: i, Rate: 77})
		}
		return r
	}
	type v = []float64
	least := bench.Bar{Limit: 0.9}
	for _, tt := range []struct {
		name         string
		norion, peer []float64
		bar          bench.Bar
		value        float64
		holds, noise bool
	}{
		{"above", v{100, 100, 100}, v{100, 100, 100}, least, 1, true, false},
		{"at the bar", v{9, 9, 9}, v{10, 10, 10}, least, 0.9, true, false},
		{"below", v{8, 8, 8}, v{10, 10, 10}, least, 0.8, false, false},
		{"at most", v{8, 8, 8}, v{10, 10, 10}, bench.Bar{Limit: 0.9, AtMost: true}, 0.8, true, false},
		{"too much", v{11, 11}, v{10, 10}, bench.Bar{Limit: 1.05, AtMost: true}, 1.1, false, false},
		{"one round", v{10}, v{10}, least, 1, true, true},
		{"noisy", v{10, 20, 10}, v{10, 20, 10}, least, 1, true, true},
	} {
		p := report(tt.norion, tt.peer).Pair("s", bench.MeasureRate, bench.SideNorion, bench.SidePeer)
		c, ok := p.Claim(tt.bar)
		require.True(t, ok, tt.name)
		require.InDelta(t, tt.value, c.Value, 1e-12, tt.name)
		require.Equal(t, tt.holds, *c.Holds, tt.name)
		require.Equal(t, tt.noise, c.WithinNoise, tt.name)
		require.Equal(t, len(tt.norion), c.Samples)
	}
	none := report(nil, nil).Pair("s", bench.MeasureRate, bench.SideNorion, bench.SidePeer)
	_, ok := none.Claim(bench.Bar{})
	require.False(t, ok)
	p := report([]float64{1, 1}, []float64{1, 1}).Pair("s", bench.MeasureRate, bench.SideNorion,
		bench.SidePeer)
	c, ok := p.Claim(bench.Bar{})
	require.True(t, ok)
	require.Nil(t, c.Holds)
	require.Empty(t, c.Bar)
}
