package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store"
	"github.com/norion/norion/runtime/store/storetest"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	kind := func(k infer.Kind) error { return &infer.Error{Op: "x", Kind: k} }
	fromStore := func(k store.Kind) error { return &store.Error{Op: "x", Kind: k} }
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), exitFailure},
		{&usageError{message: "x"}, exitUsage},
		{kind(infer.KindInvalid), exitUsage},
		{kind(infer.KindTooLong), exitDoesNotFit},
		{kind(infer.KindUnsupported), exitModel},
		{kind(infer.KindNoTemplate), exitModel},
		{kind(infer.KindModel), exitModel},
		{kind(infer.KindNoMemory), exitDoesNotFit},
		{kind(infer.KindBusy), exitBusy},
		{kind(infer.KindDeadline), exitBusy},
		{kind(infer.KindCanceled), exitInterrupted},
		{kind(infer.KindClosed), exitFailure},
		{kind(infer.KindLost), exitFailure},
		{kind(infer.KindMissing), exitFailure},
		{kind(infer.KindRecord), exitFailure},
		{kind(infer.KindInternal), exitFailure},
		{fromStore(store.ErrName), exitModel},
		{fromStore(store.ErrUnknownModel), exitModel},
		{fromStore(store.ErrNotPulled), exitModel},
		{fromStore(store.ErrNotFound), exitModel},
		{fromStore(store.ErrNotModel), exitModel},
		{fromStore(store.ErrDamaged), exitModel},
		{fromStore(store.ErrTooNew), exitModel},
		{fromStore(store.ErrDigest), exitSource},
		{fromStore(store.ErrNoSpace), exitDoesNotFit},
		{fromStore(store.ErrPermission), exitFailure},
		{&store.Error{Op: "resolve", Kind: store.ErrPermission}, exitModel},
		{fromStore(store.ErrNetwork), exitSource},
		{fromStore(store.ErrUnavailable), exitSource},
		{fromStore(store.ErrRefused), exitSource},
		{fromStore(store.ErrNoPip), exitSource},
		{fromStore(store.ErrTerms), exitSource},
		{fromStore(store.ErrLocked), exitBusy},
		{fromStore(store.ErrCanceled), exitInterrupted},
		{fromStore(store.ErrIO), exitFailure},
		{&gguf.Error{Op: "open", Kind: gguf.ErrNotGGUF, Offset: -1}, exitModel},
		{fmt.Errorf("wrapped: %w", kind(infer.KindTooLong)), exitDoesNotFit},
		{errors.Join(errInterrupted, nil), exitInterrupted},
		{context.Canceled, exitInterrupted},
	} {
		a := &app{reached: true}
		require.Equal(t, c.want, a.exitCode(c.err), "%v", c.err)
	}
	require.Equal(t, exitUsage, (&app{}).exitCode(errors.New("unknown flag")), "before the command")
}

// TestWithoutPermission is no script, since root's processes pass over the modes of files.
func TestWithoutPermission(t *testing.T) {
	t.Parallel()
	storetest.ObeyModes(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "letters.gguf")
	require.NoError(t, os.WriteFile(path, letters().Bytes(), 0o600))
	run := func(args ...string) (code int, stderr string) {
		var out, err bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: &err, env: func(name string) (string, bool) {
			return filepath.Join(dir, "home"), name == "NORION_HOME"
		}}
		return a.main(t.Context(), args), err.String()
	}
	code, stderr := run("show", path)
	require.Zero(t, code, stderr)
	require.NoError(t, os.Chmod(path, 0))
	for _, args := range [][]string{
		{"show", path}, {"run", path, "hi"}, {"chat", path}, {"bench", "-m", path},
	} {
		code, stderr = run(args...)
		require.Equal(t, exitModel, code, "%s: %s", args, stderr)
		require.Contains(t, stderr, "permission denied", args)
		require.Contains(t, stderr, "hint: make the file readable", args)
	}
}

// full is an output with no room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no room") }

// TestFullOutput: what cannot be written is an error, said once.
func TestFullOutput(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	path := filepath.Join(home, "letters.gguf")
	require.NoError(t, os.WriteFile(path, letters().Bytes(), 0o600))
	for _, args := range [][]string{
		{"version"},
		{"version", "--json"},
		{"list", "--all"},
		{"list", "--json"},
		{"show", path},
		{"run", path, "hi", "-n", "2", "-t", "1"},
		{"run", path, "hi", "-n", "2", "-t", "1", "--logprobs", "1"},
	} {
		var err bytes.Buffer
		a := &app{out: full{}, err: &err, open: openEngine, env: func(name string) (string, bool) {
			return home, name == "NORION_HOME"
		}}
		require.Equal(t, exitFailure, a.main(t.Context(), args), args)
		require.Equal(t, 1, strings.Count(err.String(), "no room"), "%s: %s", args, err.String())
	}
}

func TestHintOf(t *testing.T) {
	t.Parallel()
	inner := &gguf.Error{Op: "open", Kind: gguf.ErrNotGGUF, Offset: -1, Hint: "from gguf"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("x"), ""},
		{&usageError{hint: "usage"}, "usage"},
		{&infer.Error{Kind: infer.KindModel, Hint: "own"}, "own"},
		{&infer.Error{Kind: infer.KindModel, Err: inner}, "from gguf"},
		{fmt.Errorf("a: %w", errors.Join(errors.New("b"), inner)), "from gguf"},
		{&store.Error{Kind: store.ErrIO, Err: &llama.Error{Hint: "from llama"}}, "from llama"},
		{&fs.PathError{Op: "open", Err: fs.ErrNotExist}, ""},
	} {
		require.Equal(t, c.want, hintOf(c.err), "%v", c.err)
	}
}

// sampling parses a command line of sampling flags.
func sampling(args ...string) (infer.Sampling, error) {
	f := &requestFlags{}
	cmd := &cobra.Command{}
	f.register(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return infer.Sampling{}, err
	}
	return f.sampling()
}

func TestSamplingDefaultsAreThoseOfLlama(t *testing.T) {
	t.Parallel()
	got, err := sampling()
	require.NoError(t, err)
	want := infer.DefaultSampling()
	want.TypicalP, want.XTCThreshold, want.DynatempExponent, want.RepeatPenalty = 1, 0.1, 1, 1
	want.PenaltyLastN, want.DRYBase, want.DRYAllowedLength = 64, 1.75, 2
	want.MirostatEta, want.MirostatTau = 0.1, 5
	require.Equal(t, want, got)
	got, err = sampling("--temp", "0")
	require.NoError(t, err)
	require.True(t, got.Greedy())
}

func TestSamplingFlags(t *testing.T) {
	t.Parallel()
	got, err := sampling("--seed=9", "--repeat-last-n=-1", "--dry-penalty-last-n=-1",
		"--dry-multiplier=1", "--logit-bias=5+1.5", "-l", "6-inf", "--dry-sequence-breaker=none")
	require.NoError(t, err)
	require.Equal(t, uint32(9), got.Seed)
	require.Equal(t, -1, got.PenaltyLastN)
	require.Equal(t, 0, got.DRYLastN)
	require.Equal(t, float32(1), got.DRYMultiplier)
	require.Equal(t, []string{}, got.DRYBreakers)
	require.Equal(t, float32(1.5), got.LogitBias[5])
	require.Equal(t, "-Inf", fmt.Sprint(got.LogitBias[6]))

	got, err = sampling("--repeat-last-n=0", "--repeat-penalty=2", "--presence-penalty=1",
		"--dry-penalty-last-n=0", "--dry-multiplier=1")
	require.NoError(t, err)
	require.Equal(t, float32(1), got.RepeatPenalty, "looking at no token, penalties do nothing")
	require.Zero(t, got.PresencePenalty)
	require.Zero(t, got.DRYMultiplier)
}

func TestSettingsAreRestored(t *testing.T) {
	t.Parallel()
	f := &chatFlags{}
	cmd := &cobra.Command{}
	f.requestFlags.register(cmd)
	s := settings{f: f, fs: cmd.Flags()}
	r, err := s.set("temp", "0.5")
	require.NoError(t, err)
	require.Equal(t, float32(0.5), r.Sampling.Temperature)
	r, err = s.set("logit-bias", "3+2")
	require.NoError(t, err)
	require.Len(t, r.Sampling.LogitBias, 1)
	for _, bad := range [][2]string{
		{"temp", "900"},
		{"temp", "x"},
		{"logit-bias", "x"},
		{"top-p", "0"},
		{"nothing", "1"},
		{"schema", "x"},
		{"system", "x"},
	} {
		_, err = s.set(bad[0], bad[1])
		require.Error(t, err, bad[0])
	}
	r, err = s.set("predict", "5")
	require.NoError(t, err)
	require.Equal(t, 5, r.MaxTokens)
	require.Equal(t, float32(0.5), r.Sampling.Temperature, "what failed changed nothing")
	require.Len(t, r.Sampling.LogitBias, 1)
	require.Contains(t, strings.Join(s.list(), "\n"), "temp                   0.5")
}

func TestParseBias(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id, want := rapid.Int32Min(0).Draw(t, "id"), rapid.Float32().Draw(t, "bias")
		gotID, got, err := parseBias(fmt.Sprintf("%d%+g", id, want))
		require.NoError(t, err)
		require.Equal(t, infer.TokenID(id), gotID)
		require.Equal(t, want, got)
	})
	for _, bad := range []string{"", "+1", "5", "x+1", "5+", "5+x", "99999999999+1"} {
		_, _, err := parseBias(bad)
		require.ErrorIs(t, err, infer.KindInvalid, bad)
	}
}

func TestReadAllBounds(t *testing.T) {
	t.Parallel()
	text, err := readAll(strings.NewReader("1234"), 4)
	require.NoError(t, err)
	require.Equal(t, "1234", text)
	_, err = readAll(strings.NewReader("12345"), 4)
	require.ErrorIs(t, err, infer.KindTooLong)
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a\tb\nc[31m\u00e9", printable("a\tb\nc\x1b[31m\r\x00\u009b\u00e9"))
	require.Equal(t, "a; b", oneLine("a\nb\n"))
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 98362432: "93.8 MiB", 1 << 50: "1024.0 TiB",
	} {
		require.Equal(t, want, size(n))
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}, env: func(string) (string, bool) {
		return "", false
	}}
	for _, cmd := range a.newRoot().Commands() {
		out := &bytes.Buffer{}
		b := &app{out: out, err: &bytes.Buffer{}, env: a.env}
		require.Zero(t, b.main(t.Context(), []string{"help", cmd.Name()}), cmd.Name())
		require.NotEmpty(t, out.String(), cmd.Name())
		require.NotEmpty(t, cmd.Short, cmd.Name())
	}
}
