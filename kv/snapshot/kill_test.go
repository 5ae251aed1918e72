package snapshot_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/kv/snapshot"
)

// killedState is what the killed process saves: everything follows from the first token. One in
// eight has two blocks.
func killedState(first int32) (snapshot.State, []byte) {
	n := 1 + int(first)%50_000
	if first%8 == 0 {
		n += snapshot.BlockBytes
	}
	return state(first, 3), fill(uint64(first), n)
}

// saveChild saves one state after the other until it is killed. It writes a line for each disk
// call, before it is made, and one for each state that is on disk. Where stop is a number it waits
// in that call for ever.
func saveChild(dir, stop string) int {
	at, _ := strconv.Atoi(stop)
	s, err := snapshot.Open(snapshot.Options{
		DiskBytes: 1 << 40, Dir: dir, Key: key(),
		OpenDir: func(path string) (disk.Dir, error) {
			d, err := disk.OpenDir(path)
			if err != nil {
				return nil, err
			}
			return disk.NewFaulty(d, disk.Faults{Fail: func(_ disk.Op, _ string, n int) error {
				fmt.Println(".")
				if n == at {
					select {}
				}
				return nil
			}}), nil
		},
	})
	if err != nil {
		return 1
	}
	for {
		st, data := killedState(rand.Int32N(1 << 30))
		b, err := s.Buffer(int64(len(data)))
		if err != nil {
			return 2
		}
		copy(b.Bytes(), data)
		id, err := s.Put(st, b)
		b.Release()
		if err != nil {
			return 3
		}
		if s.Flush(context.Background()) != nil || s.Stats().Saves.Failed > 0 {
			return 4
		}
		fmt.Println("+" + id.String())
	}
}

// L1: kill -9 at 200 moments of saving: in every second process exactly before a disk call, in
// the others while it runs on. The store opens, every file that is there is whole and holds what
// was put, what was reported as saved is there, and nothing half written stays after the next save.
func TestL1KillNine(t *testing.T) {
	t.Parallel()
	kills, rounds := 200, 10
	if testing.Short() {
		kills = 20
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		dir := filepath.Join(t.TempDir(), strconv.Itoa(round))
		saved := map[snapshot.ID]bool{}
		for i := range kills / rounds {
			killChild(t, dir, 1+rnd.IntN(150), i%2 == 0, saved)
			s, err := snapshot.Open(snapshot.Options{DiskBytes: 1 << 40, Dir: dir, Key: key()})
			require.NoError(t, err)
			require.Empty(t, s.Stats().Degraded)
			found := map[snapshot.ID]bool{}
			for _, x := range s.Index(ident) {
				st, data := state(x.Tokens[0], 1), []byte("x") // put between two kills
				if x.Tokens[0] >= 0 {
					st, data = killedState(x.Tokens[0])
				}
				require.Equal(t, st, x.State)
				requireHit(t, s, x.ID, data)
				found[x.ID] = true
			}
			for id := range saved {
				require.True(t, found[id], "seed %d, round %d, kill %d", seed, round, i)
			}
			saved[put(t, s, state(-1-int32(i), 1), []byte("x"))] = true
			require.Len(t, files(t, dir), len(s.Index(ident)), "nothing else stays")
			require.NoError(t, s.Close())
		}
		require.NoError(t, os.RemoveAll(dir))
	}
}

// killChild starts a process that saves, kills it at its n-th disk call and adds what it reported
// as saved.
func killChild(t *testing.T, dir string, n int, exact bool, saved map[snapshot.ID]bool) {
	t.Helper()
	stop := "-"
	if exact {
		stop = strconv.Itoa(n)
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, "save-child", dir, stop)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	calls := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if digits, ok := strings.CutPrefix(lines.Text(), "+"); ok && len(digits) == 64 {
			var id snapshot.ID
			_, err := hex.Decode(id[:], []byte(digits))
			require.NoError(t, err)
			saved[id] = true
		}
		if lines.Text() == "." {
			if calls++; calls == n {
				require.NoError(t, cmd.Process.Kill())
			}
		}
	}
	require.Error(t, cmd.Wait(), "it was killed")
	require.GreaterOrEqual(t, calls, n, "it lived until the call")
}
