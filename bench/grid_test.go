package bench_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/bench"
)

func TestParseInts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want []int
		bad  string // part of the message
	}{
		{in: "512", want: []int{512}},
		{in: "1,2,8", want: []int{1, 2, 8}},
		{in: "1,", want: []int{1}},
		{in: "1-4", want: []int{1, 2, 3, 4}},
		{in: "64-256+64", want: []int{64, 128, 192, 256}},
		{in: "1-16*2", want: []int{1, 2, 4, 8, 16}},
		{in: "1-3*2", want: []int{1, 2}},
		{in: "5-5+9", want: []int{5}},
		{in: "0,512-1024*2,7", want: []int{0, 512, 1024, 7}},
		{in: "-1", want: []int{-1}},
		{in: "-1,99", want: []int{-1, 99}},
		{in: "2147483647", want: []int{2147483647}},
		{in: "", bad: "no number"},
		{in: ",1", bad: "no number"},
		{in: "1,,2", bad: "no number"},
		{in: "x", bad: "no number"},
		{in: "1.5", bad: "no number"},
		{in: "1-4|2", bad: "no number"},
		{in: "1--4", bad: "no number"},
		{in: "4-1", bad: "ends before"},
		{in: "1-4+0", bad: "does not get on"},
		{in: "1-4*1", bad: "does not get on"},
		{in: "0-4*2", bad: "does not get on"},
		{in: "2147483648", bad: "too large"},
		{in: "1-99999999999999999999", bad: "too large"},
		{in: "1-4097", bad: "more than 4096"},
		{in: "1-4096,1", bad: "more than 4096"},
		{in: strings.Repeat("x", 1<<20), bad: "no number"},
	} {
		got, err := bench.ParseInts(tt.in)
		if tt.bad != "" {
			require.ErrorContains(t, err, tt.bad)
			require.Less(t, len(err.Error()), 300)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, tt.want, got)
	}
	at, err := bench.ParseInts("1-4096")
	require.NoError(t, err)
	require.Len(t, at, 4096)
}

// TestParseIntsProperty: a range is its first number, then steps up to the last.
func TestParseIntsProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.IntRange(1, 1000).Draw(t, "first")
		last := rapid.IntRange(first, 4000).Draw(t, "last")
		step := rapid.IntRange(1, 100).Draw(t, "step")
		got, err := bench.ParseInts(fmt.Sprintf("%d-%d+%d", first, last, step))
		require.NoError(t, err)
		require.Equal(t, first, got[0])
		require.Len(t, got, (last-first)/step+1)
		for i := range got[1:] {
			require.Equal(t, step, got[i+1]-got[i])
		}
		require.LessOrEqual(t, got[len(got)-1], last)
	})
}

func FuzzParseInts(f *testing.F) {
	for _, s := range []string{"1,2", "1-4", "64-256+64", "1-16*2", "-1", "9-1", "0-0*0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := bench.ParseInts(s)
		if err == nil {
			require.NotEmpty(t, got)
			require.LessOrEqual(t, len(got), 4096)
		}
	})
}

// set applies flags as a command line does.
func set(t *testing.T, g *bench.Grid, pairs ...string) error {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		found := false
		for _, f := range bench.Flags() {
			if pairs[i] != f.Name && pairs[i] != f.Short && pairs[i] != f.Alias {
				continue
			}
			found = true
			if err := g.Value(f).Set(pairs[i+1]); err != nil {
				return err
			}
		}
		require.True(t, found, "no flag %s", pairs[i])
	}
	return nil
}

func TestFlags(t *testing.T) {
	t.Parallel()
	var g bench.Grid
	require.NoError(t, set(t, &g, "m", "a,b", "p", "8", "p", "16-32*2", "n", "0", "pg", "8,4",
		"pg", "1,2", "d", "0,64", "b", "64", "ub", "32", "ctk", "q8_0,f16", "ctv", "bf16", "t", "1-2",
		"poll", "0", "ngl", "-1,0", "nkvo", "0,1", "fa", "on,off,auto,1,0,-1", "lm",
		"auto,none,mmap", "r", "3"))
	require.Equal(t, bench.Grid{
		Models: []string{"a", "b"}, Prompt: []int{8, 16, 32}, Gen: []int{0},
		PromptGen: [][2]int{{8, 4}, {1, 2}}, Depth: []int{0, 64}, Batch: []int{64},
		MicroBatch: []int{32}, TypeK: []string{"q8_0", "f16"}, TypeV: []string{"bf16"},
		Threads: []int{1, 2}, Poll: []int{0}, GPULayers: []int{-1, 0},
		NoKVOffload: []bool{false, true}, Reps: 3,
		Flash: []bench.Flash{1, 0, -1, 1, 0, -1},
		Load:  []bench.LoadMode{bench.LoadAuto, bench.LoadNone, bench.LoadMap},
	}, g)
	require.NoError(t, g.Validate())
	require.Len(t, g.Tests(), (3+0+2)*2*2*2*2*2*2*6*3)

	for _, bad := range [][2]string{
		{"p", "x"},
		{"t", ""},
		{"pg", "8"},
		{"pg", "8,4,2"},
		{"pg", "1-2"},
		{"pg", "a,b"},
		{"ctk", "q3"},
		{"ctv", ""},
		{"nkvo", "yes"},
		{"fa", "maybe"},
		{"lm", "mlock"},
		{"lm", ""},
		{"r", "many"},
	} {
		var g bench.Grid
		err := set(t, &g, bad[0], bad[1])
		require.ErrorIs(t, err, bench.ErrFlag, "%v", bad)
	}
}

func TestFlagValue(t *testing.T) {
	t.Parallel()
	var g bench.Grid
	v := g.Value(bench.Flags()[1])
	require.Empty(t, v.String())
	require.NoError(t, v.Set("1,2"))
	require.NoError(t, v.Set("3"))
	require.Equal(t, "1,2,3", v.String())
	require.Equal(t, "list", v.Type())
}

func TestGridValidate(t *testing.T) {
	t.Parallel()
	ok := bench.Grid{Models: []string{"m"}}
	require.NoError(t, ok.Validate(), "llama-bench's defaults")
	const most = bench.TokensMax
	for _, tt := range []struct {
		name string
		at   func(*bench.Grid) // still accepted, or nil
		over func(*bench.Grid) // refused
	}{
		{"model", nil, func(g *bench.Grid) { g.Models = nil }},
		{
			"n-prompt", func(g *bench.Grid) { g.Prompt = []int{most} },
			func(g *bench.Grid) { g.Prompt = []int{most + 1} },
		},
		{"n-gen", nil, func(g *bench.Grid) { g.Gen = []int{-1} }},
		{
			"threads", func(g *bench.Grid) { g.Threads = []int{512} },
			func(g *bench.Grid) { g.Threads = []int{513} },
		},
		{"threads", nil, func(g *bench.Grid) { g.Threads = []int{0} }},
		{"batch-size", nil, func(g *bench.Grid) { g.Batch = []int{0} }},
		{"ubatch-size", nil, func(g *bench.Grid) { g.MicroBatch = []int{0} }},
		{
			"poll", func(g *bench.Grid) { g.Poll = []int{0, 100} },
			func(g *bench.Grid) { g.Poll = []int{101} },
		},
		{"n-gpu-layers", nil, func(g *bench.Grid) { g.GPULayers = []int{-2} }},
		{"n-depth", nil, func(g *bench.Grid) { g.Depth = []int{-1} }},
		{"pg", nil, func(g *bench.Grid) { g.PromptGen = [][2]int{{-1, 3}} }},
		{"pg", nil, func(g *bench.Grid) { g.PromptGen = [][2]int{{1, most + 1}} }},
		{
			"repetitions", func(g *bench.Grid) { g.Reps = bench.RepsMax },
			func(g *bench.Grid) { g.Reps = bench.RepsMax + 1 },
		},
		{"repetitions", nil, func(g *bench.Grid) { require.NoError(t, set(t, g, "r", "0")) }},
		{"n-prompt", nil, func(g *bench.Grid) { g.Prompt, g.Gen = []int{0}, []int{0} }},
		{
			"n-prompt", func(g *bench.Grid) { g.Models = make([]string, bench.TestsMax/2) },
			func(g *bench.Grid) { g.Models = make([]string, bench.TestsMax/2+1) },
		},
	} {
		g := ok
		if tt.at != nil {
			tt.at(&g)
			require.NoError(t, g.Validate(), tt.name)
		}
		tt.over(&g)
		var e *bench.Error
		require.ErrorAs(t, g.Validate(), &e, tt.name)
		require.Equal(t, bench.ErrFlag, e.Kind)
		require.Equal(t, tt.name, e.Field)
	}
}

// TestArgs: the flags of a test give that test back.
func TestArgs(t *testing.T) {
	t.Parallel()
	var g bench.Grid
	require.NoError(t, set(t, &g, "m", "x", "p", "0,8", "n", "0,4", "pg", "8,4", "d", "0,64", "ub",
		"32", "ctk", "q8_0", "t", "3", "poll", "7", "ngl", "-1,5", "nkvo", "1", "fa", "on",
		"lm", "none,auto"))
	for _, want := range g.Tests() {
		args := bench.LongArgs(want.Args("x", 2))
		var back bench.Grid
		for i := 0; i < len(args); i += 2 {
			if args[i] == "-o" {
				require.Equal(t, "json", args[i+1])
				continue
			}
			require.NoError(t, set(t, &back, strings.TrimLeft(args[i], "-"), args[i+1]))
		}
		require.NoError(t, back.Validate())
		require.Equal(t, 2, back.Reps)
		require.Equal(t, []bench.Test{want}, back.Tests())
	}
}

func TestLongArgs(t *testing.T) {
	t.Parallel()
	require.Equal(t,
		[]string{
			"-m", "x_y", "--flash-attn", "1", "--cache-type-k=q8_0", "--n-prompt", "3", "--pg", "1,2",
			"-t", "2", "--", "-fa",
		},
		bench.LongArgs([]string{
			"-m", "x_y", "-fa", "1", "-ctk=q8_0", "--n_prompt", "3", "-pg", "1,2",
			"-t", "2", "--", "-fa",
		}))
}

func TestTestNames(t *testing.T) {
	t.Parallel()
	for want, test := range map[string]bench.Test{
		"pp512":             {Prompt: 512},
		"tg128 @ d4096":     {Gen: 128, Depth: 4096},
		"pp512+tg128":       {Prompt: 512, Gen: 128},
		"pp512+tg128 @ d16": {Prompt: 512, Gen: 128, Depth: 16},
	} {
		require.Equal(t, want, test.String())
	}
}

func TestQuickGrid(t *testing.T) {
	t.Parallel()
	small := bench.QuickGrid(bench.Grid{})
	require.Equal(t, []int{128}, small.Prompt)
	require.Equal(t, []int{32}, small.Gen)
	require.Equal(t, 1, small.Reps)
	asked := bench.Grid{Gen: []int{7}, Reps: 2}
	require.Equal(t, asked, bench.QuickGrid(asked), "what was asked for stays")
}
