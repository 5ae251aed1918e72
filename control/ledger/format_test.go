package ledger

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/norion/norion/control/event"
)

var rewrite = flag.Bool("rewrite", false, "write testdata anew, for a new version of the format")

// independent runs docs/format/ledger_verify.py, which shares no code with this package.
func independent(t *testing.T, args ...string) (output string, holds bool) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	script := filepath.Join("..", "..", "docs", "format", "ledger_verify.py")
	cmd := exec.CommandContext(t.Context(), python, append([]string{"-B", script}, args...)...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		require.Contains(t, string(out), "holds: ")
		return string(out), true
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok, err)
	require.Equal(t, 1, exit.ExitCode())
	require.True(t, strings.HasPrefix(string(out), "does not hold: "), "%s", out)
	return string(out), false
}

// fileOf writes a file and returns its path.
func fileOf(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// A record of every kind of thing is what docs/format/ledger.md says: a program written from that
// page alone computes the same root, open and closed.
func TestFormatOfRecord(t *testing.T) {
	t.Parallel()
	events := tileWidth*tileWidth + tileWidth + 3 // two levels of full tiles
	if testing.Short() || raceEnabled {
		events = 2*tileWidth + 77
	}
	l := many(t, events)
	dir := l.dir.Path(".")
	scope := event.Scope{Tenant: "acme", Workspace: "lab", Session: "s1"}
	kept, err := l.Seal(scope, []byte("kept"))
	require.NoError(t, err)
	lost, err := l.Seal(scope, []byte("forgotten"))
	require.NoError(t, err)
	newer := event.Unknown{Name: "gene.newer", Schema: 3, Raw: []byte(`{"ö":"€\u0001\u001b\"\\/",
		"n":[1.5e300,-0.001,1e21,1e-7,0.1,1e-6,123456789.25,-0,0,1.0,333333333.33333329],
		"\ud83d\ude00":null,"\ufb33":{"":[]},"1":true,"a":false}`)}
	_, err = l.Append(t.Context(), Batch{
		Drafts: []event.Draft{
			{Scope: scope, Stream: "memory", Actor: "gate", Payload: kept.Digest, Body: newer},
			{Scope: scope, Stream: "memory", Actor: "gate", Payload: lost.Digest, Body: newer},
		},
		Sealed: []Sealed{kept, lost}, Key: "k:1",
	})
	require.NoError(t, err)
	require.NoError(t, l.Forget(t.Context(), event.Draft{
		Scope: scope, Stream: "payload", Actor: "operator",
	}, event.Forgotten{Payload: lost.Digest, Reason: "asked"}))

	report := verified(t, l.Reader)
	_, holds := independent(t, "record", dir)
	require.True(t, holds, "open")
	require.NoError(t, l.Close())
	out, holds := independent(t, "record", dir)
	require.True(t, holds, "closed")
	require.Contains(t, out, report.Root)
}

// The other program finds the damages that this one finds, where it can see them.
func TestFormatFindsDamage(t *testing.T) {
	t.Parallel()
	found := 0
	for statements, where := range damages() {
		if strings.HasPrefix(where, "projection") || strings.Contains(statements, "payload_key SET") {
			continue // it computes no projection and has no AES
		}
		dir, _ := small(t)
		change(t, dir, statements)
		out, holds := independent(t, "record", dir)
		require.False(t, holds, statements)
		if where != "database" {
			require.Contains(t, out, where, statements)
		}
		found++
	}
	require.Greater(t, found, 15)
}

// It checks what this program proves, and refuses it when a bit was changed.
func TestFormatOfProofs(t *testing.T) {
	t.Parallel()
	l := many(t, 2*tileWidth+77)
	pub := filepath.Join(l.dir.Path("."), logPubFile)
	older, cp, err := l.Reader.checkpoint()
	require.NoError(t, err)
	add(t, l, draft("b", 1), draft("b", 2))
	require.NoError(t, l.Sign(t.Context()))
	p, err := l.Prove(t.Context(), 300)
	require.NoError(t, err)
	x, err := l.Export(t.Context(), 250, 520)
	require.NoError(t, err)
	c, err := l.ProveConsistency(t.Context(), cp)
	require.NoError(t, err)
	for name, data := range map[string][]byte{
		"inclusion": p.Marshal(), "export": x.Marshal(), "consistency": c.Marshal(),
		"checkpoint": older,
	} {
		out, holds := independent(t, "file", pub, fileOf(t, data), fileOf(t, older))
		require.True(t, holds, "%s: %s", name, out)
		if name == "inclusion" {
			require.Contains(t, out, string(p.Event))
		}
		for _, part := range []int{10, 3, 2} {
			flipped := slices.Clone(data)
			flipped[len(data)-len(data)/part] ^= 1
			_, holds = independent(t, "file", pub, fileOf(t, flipped), fileOf(t, older))
			require.False(t, holds, "%s at 1/%d from the end", name, part)
		}
	}
	_, holds := independent(t, "file", pub, fileOf(t, c.Marshal()), fileOf(t, x.Checkpoint))
	require.False(t, holds, "another older checkpoint")
}

// writeFormat1 makes a closed record, without its secret keys, and proofs from it.
func writeFormat1(t *testing.T, to string) {
	t.Helper()
	dir, o := small(t)
	l := open(t, o)
	older, cp, err := l.Reader.checkpoint()
	require.NoError(t, err)
	add(t, l, draft("a", 3), draft("c", 4))
	require.NoError(t, l.Sign(t.Context()))
	p, err := l.Prove(t.Context(), 3)
	require.NoError(t, err)
	x, err := l.Export(t.Context(), 2, 4)
	require.NoError(t, err)
	c, err := l.ProveConsistency(t.Context(), cp)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	files := map[string][]byte{
		"older": older, "inclusion": p.Marshal(), "export": x.Marshal(), "consistency": c.Marshal(),
	}
	for _, name := range []string{databaseFile, checkpointName, logPubFile} {
		files[name], err = os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
	}
	require.NoError(t, os.MkdirAll(to, 0o755))
	for name, data := range files {
		require.NoError(t, os.WriteFile(filepath.Join(to, name), data, 0o600))
	}
}

// A record and proofs that version 1 of the format wrote stay readable.
func TestFormat1(t *testing.T) {
	t.Parallel()
	written := filepath.Join("testdata", "format1")
	if *rewrite {
		writeFormat1(t, written)
	}
	dir := filepath.Join(t.TempDir(), "ledger")
	require.NoError(t, os.CopyFS(dir, os.DirFS(written)))
	require.NoError(t, os.Chmod(dir, 0o700))
	read := func(name string) []byte {
		require.NoError(t, os.Chmod(filepath.Join(dir, name), 0o600))
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return data
	}
	key, err := ParseKey(read(logPubFile))
	require.NoError(t, err)
	_, err = ParseCheckpoint(read(checkpointName), key)
	require.NoError(t, err)
	require.NotEmpty(t, read(databaseFile))
	report := verified(t, reader(t, Options{Dir: dir}))
	require.True(t, report.Closed)
	require.Equal(t, int64(1), report.Payloads)

	older, err := ParseCheckpoint(read("older"), key)
	require.NoError(t, err)
	p, err := ParseProof(read("inclusion"))
	require.NoError(t, err)
	e, _, err := p.Check(key)
	require.NoError(t, err)
	require.Equal(t, int64(3), e.Seq)
	x, err := ParseExport(read("export"))
	require.NoError(t, err)
	exported, _, err := x.Check(key)
	require.NoError(t, err)
	require.Equal(t, e, exported[1])
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "format", "ledger.md"))
	require.NoError(t, err)
	for _, example := range []string{
		string(p.Event), tlog.RecordHash(p.Event).String(), string(p.Checkpoint),
		string(read(logPubFile)),
	} {
		require.Contains(t, string(page), example)
	}
	c, err := ParseConsistency(read("consistency"))
	require.NoError(t, err)
	_, err = c.Check(key, older)
	require.NoError(t, err)
}
