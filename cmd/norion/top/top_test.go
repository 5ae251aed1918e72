package top

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/cmd/norion/presence"
	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/runtime/infer"
)

// fake observes what a test sets.
type fake struct {
	mu    sync.Mutex
	stats infer.Stats
	fail  error
	asked int
}

func (f *fake) Stats(context.Context) (infer.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	s := f.stats
	s.Held = append([]infer.Held(nil), s.Held...)
	return s, f.fail
}

func (f *fake) set(change func(*infer.Stats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.stats)
}

func someStats() infer.Stats {
	s := infer.Stats{Held: []infer.Held{
		{Name: "sequence 0", Place: "live", Tokens: 10, Bytes: 2048, Uses: 2, Worth: 0.5, AgeSeconds: 3},
		{Name: "state 7", Place: "disk", Tokens: 90, Bytes: 4096, Uses: 1, Worth: 2, Pinned: true},
	}}
	s.Totals.Computed, s.Totals.Cached = 25, infer.Cached{Live: 50, RAM: 15, Disk: 10}
	s.Now.Running, s.Now.Cells, s.Now.CellsTotal = 1, 10, 128
	return s
}

// modified is when a process's file was last written; the zero time while there is none.
func modified(t *testing.T, dir string) time.Time {
	t.Helper()
	v, err := Read(dir)
	require.NoError(t, err)
	require.Zero(t, v.Bad)
	if len(v.Processes) == 0 {
		return time.Time{}
	}
	return v.Processes[0].Written
}

// TestPublish: the file is there at once, is written again within a second of a change and not
// without one, holds some of each place, and goes with the publisher.
func TestPublish(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "running")
	synctest.Test(t, func(t *testing.T) {
		f := &fake{stats: someStats()}
		p, err := Publish(dir, "m:1", f)
		require.NoError(t, err)
		first := modified(t, dir)
		require.Equal(t, time.Now(), first.Local())
		time.Sleep(5 * presence.Interval)
		synctest.Wait()
		require.Equal(t, 6, f.asked)
		f.set(func(s *infer.Stats) { s.Held[0].AgeSeconds = 9 })
		time.Sleep(presence.Interval)
		synctest.Wait()
		require.Equal(t, first, modified(t, dir), "nothing has changed but time")
		f.set(func(s *infer.Stats) {
			for range 100 {
				s.Held = append(s.Held, infer.Held{Name: "x", Place: "ram"})
			}
			s.Held = append(s.Held, infer.Held{Name: "last", Place: "disk"})
		})
		time.Sleep(presence.Interval)
		synctest.Wait()
		v, err := Read(dir)
		require.NoError(t, err)
		require.True(t, v.Processes[0].Written.After(first))
		require.Equal(t, "m:1", v.Processes[0].Model)
		require.Equal(t, os.Getpid(), v.Processes[0].PID)
		require.Len(t, v.Processes[0].Stats.Held, 2+placeMax+1)
		f.set(func(*infer.Stats) { f.fail = errors.New("busy") })
		time.Sleep(2 * presence.Interval)
		synctest.Wait()
		require.False(t, modified(t, dir).IsZero(), "the last figures stay")
		require.NoError(t, p.Close())
	})
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)
}

// TestPublishRefused: without a directory of its own, or figures, nothing is left open or behind.
func TestPublishRefused(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(base, "file"), nil, 0o600))
	_, err := Publish(filepath.Join(base, "file", "running"), "m", &fake{})
	require.Error(t, err)
	dir := filepath.Join(base, "running")
	_, err = Publish(dir, "m", &fake{fail: errors.New("no figures")})
	require.ErrorContains(t, err, "no figures")
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)
}

// TestHostileFiles: whatever lies in the directory, the processes beside it are shown, and nothing
// reaches the terminal but what can be printed.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "running")
	p, err := Publish(dir, "good", &fake{stats: someStats()})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close()) }()
	d, err := disk.OpenDir(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, []byte(`{"pid": 1}`), 0o600))
	alive := func(name, text string) {
		unlock, ok, err := d.TryLock(name + ".lock")
		require.NoError(t, err)
		require.True(t, ok)
		t.Cleanup(func() { _ = unlock() })
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600))
	}
	bad := []string{
		"", "{", "null", "[]", `{"pid": "x"}`, `{"pid": -5}`, `{"pid": 1e99}`, "\x00\xff",
		strings.Repeat(" ", presence.FileBytesMax) + `{"pid": 1}`, strings.Repeat("[", 60000),
		`{"pid": 1, "stats": {"held": [` + strings.Repeat("{},", heldMax) + `{}]}}`,
		`{"pid": 1, "stats": {"held": [{"worth": 1e999}]}}`,
	}
	for i, text := range bad {
		alive("77-0000000"+string("0123456789abcdef"[i]), text)
	}
	alive("78-00000000", `{"pid": 78, "model": "e`+"\\u001b[2Jvil\\u202e\\n"+strings.Repeat("x", 500)+
		`", "stats": {"held": [{"name": "\u001b]0;x\u0007\n", "place": "\u009b1m", "tokens": -1,`+
		`"bytes": -9223372036854775808, "age_s": -1e300, "worth": 1e300}],`+
		`"totals": {"computed": 9223372036854775807, "cached": {"live": 9223372036854775807}}}}`)
	link := filepath.Join(dir, "79-00000000.json")
	require.NoError(t, os.Symlink(outside, link))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "80-00000000.json"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "81-00000000.json"), []byte("{}"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "81-00000000.lock")))

	v, err := Read(dir)
	require.NoError(t, err)
	require.Len(t, v.Processes, 2)
	require.Equal(t, len(bad)+1, v.Bad)
	text := Text(v, time.Now())
	require.Contains(t, text, "good")
	require.Contains(t, text, "13 more cannot be read")
	for _, r := range text {
		require.True(t, r == '\n' || r >= ' ' && r < 0x7f, "%q", r)
	}
	require.FileExists(t, outside)
	require.FileExists(t, link)
}

// TestText is what a user sees.
func TestText(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	v := View{Processes: []Process{{PID: 7, Model: "m:1", Written: now.Add(-2 * time.Minute)}}}
	v.Processes[0].Stats = someStats()
	require.Equal(t, strings.TrimPrefix(`
PID  MODEL  RUN  WAIT  PARKED  CELLS   RAM      DISK     PROMPT  COMPUTED  LIVE  RAM   DISK
7    m:1    1    0     0       10/128  0.0 KiB  0.0 KiB  100     25 %      50 %  15 %  10 %

PID  ENTRY       PLACE  TOKENS  SIZE     USES  LEASES  WORTH  AGE
7    sequence 0  live   10      2.0 KiB  2     0       0.5    2m
7    state 7     disk   90      4.0 KiB  1     0       2      2m pinned
`, "\n"), Text(v, now))
	require.Empty(t, Text(View{}, now))
	require.Equal(t, "1 more cannot be read\n", Text(View{Bad: 1}, now))
	for seconds, want := range map[float64]string{-5: "0s", 59: "59s", 7200: "2h", 259200: "3d"} {
		require.Equal(t, want, Age(seconds))
	}
}

// TestUI: the screen follows the directory each second, fits the window, and ends by a key.
func TestUI(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "running")
	synctest.Test(t, func(t *testing.T) {
		var failed error
		look := func() (string, error) {
			v, err := Read(dir)
			return Text(v, time.Now()) + "end\n", errors.Join(err, failed)
		}
		u := &ui{o: Options{Look: look}, width: 80, height: 24}
		next := func(cmd tea.Cmd) tea.Cmd {
			_, cmd = u.Update(cmd())
			return cmd
		}
		tick := next(u.Init())
		require.Contains(t, u.View().Content, "end")
		p, err := Publish(dir, "m:1", &fake{stats: someStats()})
		require.NoError(t, err)
		before := time.Now()
		tick = next(tick)
		require.Equal(t, presence.Interval, time.Since(before))
		require.Contains(t, u.View().Content, "m:1")
		require.Contains(t, u.View().Content, "q quits")
		u.Update(tea.WindowSizeMsg{Width: 12, Height: 4})
		rows := strings.Split(u.View().Content, "\n")
		require.Len(t, rows, 4)
		require.Len(t, rows[0], 12)
		require.NoError(t, p.Close())
		failed = errors.New("unreadable")
		_, cmd := u.Update(tick())
		require.Equal(t, tea.Quit(), cmd())
		require.ErrorContains(t, u.err, "unreadable")
		for _, key := range []tea.KeyPressMsg{
			{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}, {Code: tea.KeyEscape},
		} {
			_, cmd := u.Update(key)
			require.Equal(t, tea.Quit(), cmd())
		}
		_, cmd = u.Update(tea.KeyPressMsg{Code: 'x', Text: "x"})
		require.Nil(t, cmd)
	})
}
