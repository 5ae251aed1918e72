package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
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
