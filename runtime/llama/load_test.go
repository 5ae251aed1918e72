//go:build cgo

package llama_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/llama"
)

func TestLoadCanceled(t *testing.T) {
	path := []string{storedPath(t, smol)}
	calls := 0
	_, err := llama.LoadModel(t.Context(), llama.ModelParams{
		Paths: path, CPUOnly: true,
		Progress: func(done float32) bool { calls++; return done < 0.3 },
	})
	requireCode(t, llama.Canceled, err)
	require.Greater(t, calls, 1)

	cause := fmt.Errorf("the user went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = llama.LoadModel(ctx, llama.ModelParams{
		Paths: path, CPUOnly: true,
		Progress: func(float32) bool { cancel(cause); return true },
	})
	requireCode(t, llama.Canceled, err)
	require.ErrorIs(t, err, cause)
	_, err = llama.LoadModel(ctx, llama.ModelParams{Paths: path, CPUOnly: true})
	requireCode(t, llama.Canceled, err)

	last := float32(0)
	m, err := llama.LoadModel(t.Context(), llama.ModelParams{
		Paths: path, CPUOnly: true,
		Progress: func(done float32) bool {
			require.GreaterOrEqual(t, done, last)
			last = done
			return true
		},
	})
	require.NoError(t, err)
	require.EqualValues(t, 1, last)
	require.NoError(t, m.Close())
}

func TestLoadModes(t *testing.T) {
	t.Parallel()
	for i, name := range llama.LoadModes() {
		var m llama.LoadMode
		require.NoError(t, m.UnmarshalText([]byte(name)))
		require.EqualValues(t, i, m)
		require.Equal(t, name, m.String())
	}
	var m llama.LoadMode
	requireCode(t, llama.Invalid, m.UnmarshalText([]byte("maps")))
	require.Equal(t, "LoadMode(6)", (llama.LoadDirect + 1).String())
}

func TestR6ProgressPanics(t *testing.T) {
	_, err := llama.LoadModel(t.Context(), llama.ModelParams{
		Paths: []string{tinyFile(t)}, CPUOnly: true,
		Progress: func(float32) bool { panic("a defect of the caller") },
	})
	requireCode(t, llama.Internal, err)
	require.ErrorContains(t, err, "a defect of the caller")
	m := load(t, tiny(t))
	require.NoError(t, m.Close())
}

// panicHandler counts lines and panics at each.
type panicHandler struct{ lines *atomic.Int64 }

func (h panicHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h panicHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h panicHandler) WithGroup(string) slog.Handler            { return h }
func (h panicHandler) Handle(context.Context, slog.Record) error {
	h.lines.Add(1)
	panic("handler")
}

// TestR6LogHandlerPanics also computes, since lines come from the middle of everything.
func TestR6LogHandlerPanics(t *testing.T) {
	var lines atomic.Int64
	require.NoError(t, llama.Start(slog.New(panicHandler{&lines})))
	defer func() { require.NoError(t, llama.Start(nil)) }()
	m := load(t, tiny(t))
	c, err := m.NewContext(small())
	require.NoError(t, err)
	feed(t, c, 0, 0, 5, 6)
	require.NoError(t, c.Close())
	require.NoError(t, m.Close())
	require.Positive(t, lines.Load())
}

// TestR6LogFromForeignThreads loads from goroutines that C has never seen, and reads the lines.
func TestR6LogFromForeignThreads(t *testing.T) {
	var text bytes.Buffer // the handler locks around it
	require.NoError(t, llama.Start(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{
		Level: slog.LevelDebug,
	}))))
	defer func() { require.NoError(t, llama.Start(nil)) }()
	done := make(chan error)
	for range 4 {
		go func() {
			m, err := llama.LoadModel(background, llama.ModelParams{
				Paths: []string{"no-such-file.gguf"}, CPUOnly: true,
			})
			if err == nil {
				err = m.Close()
			}
			done <- err
		}()
	}
	for range 4 {
		requireCode(t, llama.Load, <-done)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	require.True(t, slices.ContainsFunc(lines, func(s string) bool {
		return strings.Contains(s, "level=ERROR") && strings.Contains(s, "no-such-file.gguf")
	}), "the reason is in the log: %s", text.String())
	for _, line := range lines {
		require.True(t, strings.HasPrefix(line, "time="), "%q is not a whole line", line)
		require.Contains(t, line, "source=llama.cpp")
	}
}

// TestLoadRefusals is quiet on standard error, and leaves nothing behind under the sanitizer.
func TestLoadRefusals(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile(storedPath(t, smol))
	require.NoError(t, err)
	whole := gguftest.Model().Bytes()
	for name, content := range map[string][]byte{
		"garbage": []byte(strings.Repeat("not a model ", 1000)), "empty": {},
		"magic only": []byte("GGUF"), "truncated in the header": data[:100_000],
		"truncated in the data": data[:len(data)/2], "tiny truncated": whole[:len(whole)-64],
		"unknown architecture": gguftest.Model().With(
			gguftest.KV{Key: "general.architecture", Value: "no-such"}).Bytes(),
		"an adapter":    adapter("llama", "blk.0.attn_q.weight", 32, 32, 1).Bytes(),
		"no vocabulary": gguftest.Model().Without("tokenizer.ggml.tokens").Bytes(),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "a directory"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "no permission"), whole, 0o000))
	require.Empty(t, child(t, "load refusals", dir))
}

func loadRefusals(args []string) error {
	names, err := os.ReadDir(args[0])
	if err != nil {
		return err
	}
	paths := []string{filepath.Join(args[0], "missing"), "/dev/null"}
	for _, name := range names {
		if name.Name() == "no permission" && os.Geteuid() == 0 {
			continue // root may read everything
		}
		paths = append(paths, filepath.Join(args[0], name.Name()))
	}
	for _, path := range paths {
		m, err := llama.LoadModel(background, llama.ModelParams{Paths: []string{path}, CPUOnly: true})
		if !isCode(err, llama.Load) {
			return fmt.Errorf("%s: want a load error, got %v, %v", path, m, err)
		}
	}
	return nil
}

func TestModelParamsRefused(t *testing.T) {
	ok := tinyFile(t)
	overrides := make([]llama.BufferOverride, llama.OverridesMax+1)
	override := func(pattern, buffer string) []llama.BufferOverride {
		return []llama.BufferOverride{{Pattern: pattern, Buffer: buffer}}
	}
	for name, p := range map[string]llama.ModelParams{
		"no path": {}, "an empty path": {Paths: []string{""}},
		"a NUL":          {Paths: []string{ok + "\x00.gguf"}},
		"many paths":     {Paths: make([]string, llama.PathsMax+1)},
		"layers":         {Paths: []string{ok}, GPULayers: -1},
		"many layers":    {Paths: []string{ok}, GPULayers: math.MaxInt32 + 1},
		"split":          {Paths: []string{ok}, Split: 9},
		"load mode":      {Paths: []string{ok}, Load: 9},
		"main GPU":       {Paths: []string{ok}, MainGPU: llama.DevicesMax},
		"devices":        {Paths: []string{ok}, Devices: make([]string, llama.DevicesMax+1)},
		"split share":    {Paths: []string{ok}, TensorSplit: []float32{-1}},
		"split NaN":      {Paths: []string{ok}, TensorSplit: []float32{float32(math.NaN())}},
		"overrides":      {Paths: []string{ok}, Overrides: overrides},
		"override NUL":   {Paths: []string{ok}, Overrides: override("a\x00", "")},
		"device NUL":     {Paths: []string{ok}, Devices: []string{"CPU\x00"}},
		"many shares":    {Paths: []string{ok}, TensorSplit: make([]float32, llama.DevicesMax+1)},
		"negative GPU":   {Paths: []string{ok}, MainGPU: -1},
		"negative split": {Paths: []string{ok}, Split: -1},
	} {
		_, err := llama.LoadModel(t.Context(), p)
		requireCode(t, llama.Invalid, err, name)
	}
	for name, p := range map[string]llama.ModelParams{
		"unknown device": {Paths: []string{ok}, Devices: []string{"no-such"}},
		"unknown buffer": {Paths: []string{ok}, Overrides: override(".", "no")},
		"bad pattern":    {Paths: []string{ok}, Overrides: override("(", "CPU")},
	} {
		_, err := llama.LoadModel(t.Context(), p)
		requireCode(t, llama.Load, err, name)
	}
}

// TestContextParamsNeverAbort makes contexts from the corners of every parameter, in a process of
// its own: each works or is a typed error.
func TestContextParamsNeverAbort(t *testing.T) {
	child(t, "odd contexts", tinyFile(t))
	child(t, "odd contexts", storedPath(t, smol))
}

func oddContexts(args []string) error {
	m, err := llama.LoadModel(background, llama.ModelParams{Paths: args, CPUOnly: true})
	if err != nil {
		return err
	}
	defer m.Close()
	for _, name := range slices.Sorted(maps.Keys(oddParams)) {
		p := oddParams[name]
		if p.Threads == 0 {
			p.Threads = 1
		}
		if p.Tokens == 0 {
			p.Tokens = 256
		}
		c, err := m.NewContext(p)
		if err != nil {
			if !isCode(err, llama.Invalid) && !isCode(err, llama.Memory) &&
				!isCode(err, llama.Unsupported) {
				return fmt.Errorf("%s: %w", name, err)
			}
			continue
		}
		last := llama.Seq(c.Info().Sequences - 1)
		if err := compute(c, last, 0, 5); err != nil {
			return fmt.Errorf("%s: decode: %w", name, err)
		}
		for i := range c.Batch().Room() {
			if _, err := c.Batch().Add(5, llama.Pos(i)+1, last, false); err != nil {
				return fmt.Errorf("%s: fill: %w", name, err)
			}
		}
		if err := c.Decode(); err != nil && !isCode(err, llama.Full) &&
			!isCode(err, llama.Invalid) {
			return fmt.Errorf("%s: decode a full batch: %w", name, err)
		}
		if err := c.Embedding(last, make([]float32, m.Info().EmbeddingSize)); err != nil &&
			!isCode(err, llama.Unsupported) && !isCode(err, llama.Invalid) {
			return fmt.Errorf("%s: embedding: %w", name, err)
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

var oddParams = map[string]llama.ContextParams{
	"one token":          {Tokens: 1},
	"one place":          {Batch: 1},
	"one at once":        {MicroBatch: 1},
	"batch over context": {Batch: 100_000},
	"many sequences":     {Sequences: llama.SequencesMax, Tokens: 256},
	"many, unified":      {Sequences: llama.SequencesMax, Tokens: 256, Unified: true},
	"too many sequences": {Sequences: llama.SequencesMax + 1},
	"more seqs than batch": {
		Sequences: 64, Batch: 4, MicroBatch: 2,
	},
	"many outputs":        {Outputs: 1000, Batch: 64},
	"q4_0 keys":           {TypeK: "q4_0"},
	"q4_0, no flash":      {TypeK: "q4_0", TypeV: "q4_0", Flash: llama.FlashOff},
	"iq4_nl":              {TypeK: "iq4_nl", TypeV: "iq4_nl"},
	"f32":                 {TypeK: "f32", TypeV: "f32"},
	"bf16":                {TypeK: "bf16", TypeV: "bf16"},
	"mixed":               {TypeK: "q8_0", TypeV: "f16"},
	"unknown type":        {TypeK: "q2_K"},
	"flash on":            {Flash: llama.FlashOn},
	"full attention":      {Attention: llama.AttentionFull},
	"vectors":             {Embeddings: true},
	"vectors, one output": {Embeddings: true, Outputs: 1},
	"mean":                {Embeddings: true, Pooling: llama.PoolingMean},
	"cls":                 {Embeddings: true, Pooling: llama.PoolingCLS},
	"last":                {Embeddings: true, Pooling: llama.PoolingLast},
	"none":                {Embeddings: true, Pooling: llama.PoolingNone},
	"rank":                {Embeddings: true, Pooling: llama.PoolingRank},
	"rank, no vectors":    {Pooling: llama.PoolingRank},
	"mean, no vectors":    {Pooling: llama.PoolingMean},
	"mean, full attention": {
		Embeddings: true, Pooling: llama.PoolingMean, Attention: llama.AttentionFull,
	},
	"rope":             {RopeFreqBase: 1e6, RopeFreqScale: 0.25},
	"many threads":     {Threads: llama.ThreadsMax},
	"too many threads": {Threads: llama.ThreadsMax + 1},
	"small window":     {SmallWindow: true},
}
