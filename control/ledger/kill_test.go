package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/hw/disk"
)

// The environment of a child that appends until it is killed.
const (
	killDir  = "NORION_TEST_LEDGER"
	killCall = "NORION_TEST_LEDGER_CALL" // the call for a file at which it kills itself; 0: none
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		call, err := strconv.Atoi(os.Getenv(killCall))
		if err == nil {
			err = appendUntilKilled(dir, call)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// appendUntilKilled appends from four goroutines and prints what was acknowledged.
func appendUntilKilled(dir string, call int) error {
	o := Options{
		Dir: dir, Now: time.Now, CheckpointAfter: time.Millisecond,
		Projections: []Projection{sums{"sums"}},
	}
	if call > 0 {
		o.OpenDir = func(path string) (disk.Dir, error) {
			d, err := disk.OpenDir(path)
			return disk.NewFaulty(d, disk.Faults{Fail: func(_ disk.Op, _ string, n int) error {
				if n == call {
					p, err := os.FindProcess(os.Getpid())
					return errors.Join(err, p.Kill())
				}
				return nil
			}}), err
		}
	}
	l, err := Open(context.Background(), o)
	if err != nil {
		return err
	}
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for failed.Load() == nil {
				a, err := l.Append(context.Background(), Batch{
					Drafts: []event.Draft{draft("a", 1), draft("b", 1)},
				})
				if err == nil {
					_, err = fmt.Printf("%d\n", a.Events[1].Seq)
				}
				if err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	return *failed.Load()
}

// killed runs a child until it has acknowledged n appends and kills it, or until it kills itself.
// It returns the newest event that was acknowledged, and how many appends were.
func killed(t *testing.T, dir string, n, call int) (last int64, acks int) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), killDir+"="+dir, killCall+"="+strconv.Itoa(call))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		seq, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			break // the last line was cut
		}
		last = max(last, seq)
		if acks++; acks == n {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	require.Error(t, cmd.Wait())
	require.NoError(t, ctx.Err())
	require.Empty(t, stderr.String())
	return last, acks
}

// whole opens a ledger after a kill and wants each acknowledged event to be there, each append as a
// whole, and everything to verify. It returns the number of events.
func whole(t *testing.T, dir string, acknowledged int64) int64 {
	t.Helper()
	o := options(dir, sums{"sums"})
	l, err := Open(t.Context(), o)
	require.NoError(t, err)
	r, err := l.Verify(t.Context())
	require.NoError(t, err)
	require.GreaterOrEqual(t, r.Events, acknowledged)
	a, err := l.Version(t.Context(), event.Scope{}, "a")
	require.NoError(t, err)
	b, err := l.Version(t.Context(), event.Scope{}, "b")
	require.NoError(t, err)
	require.Equal(t, a, b, "an append in part")
	require.NoError(t, l.Close())
	return r.Events
}

// L1: a process that is killed at any moment loses nothing that it acknowledged.
func TestL1Kill(t *testing.T) {
	t.Parallel()
	kills, each := 320, 40
	if testing.Short() || raceEnabled {
		kills = 12
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir, acknowledged, before := newDir(t), 0, int64(0)
	for k := range kills {
		if k%each == 0 { // else it grows, and verifying it takes longer each time
			dir, before = newDir(t), 0
		}
		last, acks := killed(t, dir, 1+random.IntN(60), 0)
		acknowledged += acks
		events := whole(t, dir, last)
		require.Greater(t, events, before)
		before = events
	}
	require.GreaterOrEqual(t, acknowledged, kills)
	t.Logf("%d kills, %d acknowledged appends, none lost", kills, acknowledged)
}

// L1: likewise at every call for a file of the record, from the first on.
func TestL1KillAtEveryCall(t *testing.T) {
	t.Parallel()
	calls := 90
	if testing.Short() || raceEnabled {
		calls = 12
	}
	for call := 1; call <= calls; call++ {
		dir := newDir(t)
		last, _ := killed(t, dir, 0, call)
		whole(t, dir, last)
	}
}

// L3: a journal that was cut at any place loses whole appends from its end and nothing else, and
// the record says that it was recovered. What the checkpoint covers cannot be lost unseen.
func TestL3TornTail(t *testing.T) {
	t.Parallel()
	o := options(newDir(t), sums{"sums"})
	o.CheckpointAfter = time.Hour
	o.sql.PageBytes = 512
	l := open(t, o)
	signed := add(t, l, draft("a", 1))[0].Seq
	require.NoError(t, l.Sign(t.Context()))
	journal := filepath.Join(o.Dir, databaseFile+"-wal")
	covered, err := os.Stat(journal)
	require.NoError(t, err)
	for n := range 3 {
		add(t, l, draft("a", int64(n)), draft("b", int64(n)))
	}
	torn := filepath.Join(t.TempDir(), "torn")
	require.NoError(t, os.CopyFS(torn, os.DirFS(o.Dir)))
	require.NoError(t, os.Chmod(torn, 0o700))
	written := all(t, l.Reader, Filter{})
	whole, err := os.ReadFile(filepath.Join(torn, databaseFile+"-wal"))
	require.NoError(t, err)
	require.Greater(t, int64(len(whole)), covered.Size())

	step := 23
	if testing.Short() || raceEnabled {
		step = 301
	}
	seen := map[int]bool{}
	for cut := len(whole); cut > 0; cut -= step {
		events := openTorn(t, o, torn, whole[:cut])
		if events == nil {
			require.Less(t, int64(cut), covered.Size(), "refused although the checkpoint's events are there")
			break
		}
		last := len(events)
		if r, err := events[last-1].Decode(); err == nil && events[last-1].Kind == event.LedgerRecovered {
			last--
			require.Equal(t, event.Recovered{From: signed, To: int64(last)}, r)
		}
		require.Equal(t, written[:last], events[:last])
		require.Zero(t, (int64(last)-signed)%2, "half an append")
		require.Equal(t, int64(last) > signed, last < len(events))
		seen[last] = true
	}
	require.Len(t, seen, 4, "each append was cut off in turn")
}

// openTorn opens a copy of a ledger with another journal, verifies it, and gives its events; nil
// where it is refused as older than its checkpoint.
func openTorn(t *testing.T, o Options, from string, journal []byte) []event.Event {
	t.Helper()
	o.Dir = newDir(t)
	require.NoError(t, os.CopyFS(o.Dir, os.DirFS(from)))
	require.NoError(t, os.Chmod(o.Dir, 0o700))
	files, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	for _, f := range files {
		require.NoError(t, os.Chmod(filepath.Join(o.Dir, f.Name()), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(o.Dir, databaseFile+"-wal"), journal, 0o600))
	l, err := Open(t.Context(), o)
	if err != nil {
		require.ErrorIs(t, err, ErrRestored)
		return nil
	}
	verified(t, l.Reader)
	events := all(t, l.Reader, Filter{})
	require.NoError(t, l.Close())
	require.NoError(t, os.RemoveAll(o.Dir))
	return events
}
