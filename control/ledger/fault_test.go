package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
	"github.com/norion/norion/control/ledger/storage/sqlite"
	"github.com/norion/norion/hw/disk"
)

// small makes a closed ledger with a little of everything.
func small(t *testing.T) (dir string, o Options) {
	t.Helper()
	dir = newDir(t)
	o = options(dir, sums{"sums"})
	o.sql.PageBytes = 512
	l := open(t, o)
	sealed, err := l.Seal(event.Scope{}, []byte("private"))
	require.NoError(t, err)
	d := draft("a", 1)
	d.Payload = sealed.Digest
	_, err = l.Append(t.Context(), Batch{
		Drafts: []event.Draft{d, draft("b", 2)}, Sealed: []Sealed{sealed}, Key: "k",
	})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return dir, o
}

// sound reports whether a ledger opens for reading and verifies.
func sound(o Options) bool {
	r, err := OpenReader(context.Background(), o)
	if err != nil {
		return false
	}
	_, err = r.Verify(context.Background())
	return r.Close() == nil && err == nil
}

// L4: every flip of a single bit, in every file of a closed ledger, is found.
func TestL4BitFlip(t *testing.T) {
	t.Parallel()
	dir, o := small(t)
	step := 1
	if testing.Short() || raceEnabled {
		step = 97
	}
	names := []string{checkpointName, logKeyFile, logPubFile, payloadKeyFile, databaseFile}
	for _, name := range names {
		whole, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NotEmpty(t, whole)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, copied := o, filepath.Join(t.TempDir(), "copy")
			o.Dir = copied
			require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
			require.NoError(t, os.Chmod(copied, 0o700))
			for _, n := range names {
				require.NoError(t, os.Chmod(filepath.Join(copied, n), 0o600))
			}
			require.True(t, sound(o))
			f, err := os.OpenFile(filepath.Join(copied, name), os.O_RDWR, 0)
			require.NoError(t, err)
			defer f.Close()
			for bit := 0; bit < 8*len(whole); bit += step {
				at := int64(bit / 8)
				_, err := f.WriteAt([]byte{whole[at] ^ 1<<(bit%8)}, at)
				require.NoError(t, err)
				require.False(t, sound(o), "bit %d of byte %d", bit%8, at)
				_, err = f.WriteAt(whole[at:at+1], at)
				require.NoError(t, err)
			}
			require.True(t, sound(o))
		})
	}
}

// change runs SQL on the database of a ledger, and signs for it as an open one, so that only the
// hashes of the events speak.
func change(t *testing.T, dir, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, databaseFile))
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), statements)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	d, err := disk.OpenDir(dir)
	require.NoError(t, err)
	defer d.Close()
	s, v, err := logKeys(d, false)
	require.NoError(t, err)
	f := checkpointFile{dir: d, name: checkpointName}
	require.NoError(t, f.read())
	cp, err := ParseCheckpoint(f.last, v)
	require.NoError(t, err)
	cp.Closed = event.Digest{}
	data, err := cp.sign(s)
	require.NoError(t, err)
	require.NoError(t, f.swap(data))
}

// damages are changes of the rows of small, with where they are found.
func damages() map[string]string {
	return map[string]string{
		"UPDATE event SET body=CAST(replace(body, '1', '3') AS BLOB) WHERE seq=2": "event 2",
		"UPDATE event SET time_us=time_us+1 WHERE seq=3":                          "event 3",
		"UPDATE event SET actor='x' WHERE seq=2":                                  "event 2",
		"UPDATE event SET kind='x' WHERE seq=2":                                   "event 2",
		"UPDATE event SET schema=2 WHERE seq=2":                                   "event 2",
		"UPDATE event SET key=NULL WHERE seq=2":                                   "event 2",
		"UPDATE event SET payload=NULL WHERE seq=2":                               "event 2",
		"UPDATE event SET version=7 WHERE seq=2":                                  "event 2",
		"UPDATE event SET leaf=zeroblob(32) WHERE seq=2":                          "event 2",
		"UPDATE event SET leaf=x'00' WHERE seq=2":                                 "database",
		"UPDATE stream SET name='x' WHERE name='b'":                               "event 3",
		"UPDATE stream SET tenant='x' WHERE name='b'":                             "event 3",
		"DELETE FROM event WHERE seq=2":                                           "event 3",
		"DELETE FROM event WHERE seq=3":                                           "checkpoint",
		"UPDATE event SET seq=9 WHERE seq=2; UPDATE event SET seq=2 WHERE seq=3; " +
			"UPDATE event SET seq=3 WHERE seq=9": "event 2",
		"INSERT INTO event SELECT 4, stream, 2, kind, schema, time_us, actor, key, payload, body, " +
			"leaf FROM event WHERE seq=3": "event 4",
		"UPDATE payload SET sealed=zeroblob(30)":           "payload",
		"UPDATE payload_key SET key=zeroblob(60)":          "payload",
		"DELETE FROM payload_key":                          "payload",
		"INSERT INTO payload VALUES (zeroblob(32), x'00')": "payload",
		"UPDATE state SET value=x'00' WHERE key='a'":       "projection sums",
		"DELETE FROM state WHERE projection='sums'":        "projection sums",
		"INSERT INTO state VALUES ('sums', 'more', x'00')": "projection sums",
		"PRAGMA foreign_keys=0; DELETE FROM stream":        "database",
	}
}

// L5: rows that were changed, swapped, doubled or deleted are found and named, without the digest
// of the closed file.
func TestL5Rows(t *testing.T) {
	t.Parallel()
	for statements, where := range damages() {
		dir, o := small(t)
		change(t, dir, statements)
		r := reader(t, o)
		report, err := r.Verify(t.Context())
		require.ErrorIs(t, err, ErrDamaged, statements)
		found := fmt.Sprint(report.Findings)
		require.Contains(t, found, where, statements)
	}
}

// L5: an older database that was put back is noticed through the checkpoint, a whole directory
// through the witness.
func TestL5Restored(t *testing.T) {
	t.Parallel()
	dir, witness := newDir(t), filepath.Join(t.TempDir(), "witness")
	o := options(dir)
	o.Witness = witness
	l := open(t, o)
	require.NoError(t, l.Close())
	old := filepath.Join(t.TempDir(), "old")
	require.NoError(t, os.CopyFS(old, os.DirFS(dir)))
	l = open(t, o)
	add(t, l, draft("a", 1))
	require.NoError(t, l.Close())
	require.Empty(t, l.Degraded())

	back := func(names ...string) {
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(old, name))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		}
	}
	newest, err := os.ReadFile(filepath.Join(dir, checkpointName))
	require.NoError(t, err)
	back(databaseFile)
	_, err = Open(t.Context(), o)
	require.ErrorIs(t, err, ErrDamaged, "the closed file is another")
	change(t, dir, "")
	_, err = Open(t.Context(), o)
	require.ErrorIs(t, err, ErrRestored)
	require.False(t, sound(o))
	require.NoError(t, os.Remove(filepath.Join(dir, databaseFile)))
	_, err = Open(t.Context(), o)
	require.ErrorIs(t, err, ErrRestored, "a database that is gone")
	require.NoFileExists(t, filepath.Join(dir, databaseFile))

	back(databaseFile, checkpointName)
	require.False(t, sound(o))
	_, err = Open(t.Context(), o)
	require.ErrorIs(t, err, ErrRestored)
	alone := o
	alone.Witness = ""
	require.NoError(t, open(t, alone).Close(), "nobody else can know")

	require.NoError(t, os.WriteFile(filepath.Join(dir, checkpointName), newest[:len(newest)-1], 0o600))
	_, err = Open(t.Context(), o)
	require.ErrorIs(t, err, ErrCheckpoint)
}

// L5: a journal beside a closed database would change what is read without a byte of the database.
func TestL5JournalOfClosed(t *testing.T) {
	t.Parallel()
	dir, o := small(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, databaseFile+"-wal"), []byte("x"), 0o600))
	require.False(t, sound(o))
	_, err := Open(t.Context(), o)
	require.ErrorIs(t, err, ErrDamaged)
}

// A record that was rewritten with all its hashes is another than the one that was signed for.
func TestL5Forked(t *testing.T) {
	t.Parallel()
	dir, o := small(t)
	fork := newDir(t)
	other := o
	other.Dir = fork
	l := open(t, other)
	add(t, l, draft("a", 7), draft("b", 2))
	require.NoError(t, l.Close())
	data, err := os.ReadFile(filepath.Join(fork, databaseFile))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, databaseFile), data, 0o600))
	change(t, dir, "")
	_, err = Open(t.Context(), o)
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, checkpointName)
}

// A witness that cannot be had is named and does not stop the record.
func TestWitnessLost(t *testing.T) {
	t.Parallel()
	o := options(newDir(t))
	o.Witness = filepath.Join(t.TempDir(), "gone", "witness")
	l := open(t, o)
	add(t, l, draft("a", 1))
	require.Contains(t, l.Degraded(), "witness")
}

// A checkpoint that somebody else replaced ends writing.
func TestCheckpointSwapped(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	l := open(t, options(dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, checkpointName), []byte("x"), 0o600))
	require.ErrorIs(t, l.Sign(t.Context()), ErrUnavailable)
	_, err := l.Append(t.Context(), Batch{Drafts: []event.Draft{draft("a", 1)}})
	require.ErrorIs(t, err, ErrUnavailable)
}

// filling is a store that is full while it is told to be.
type filling struct {
	storage.Store
	err atomic.Value // an error, or none
}

func (f *filling) Update(ctx context.Context, g func(storage.Writer) error) error {
	return f.Store.Update(ctx, func(w storage.Writer) error {
		if err := g(w); err != nil {
			return err
		}
		if err, ok := f.err.Load().(storage.Fault); ok && err != "" {
			return err
		}
		return nil
	})
}

// L7: a full disk refuses, and when there is room it goes on. L8: any other fault of the disk ends
// writing until the next opening, which verifies.
func TestL7L8Disk(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	o := options(dir, sums{"sums"})
	f := &filling{}
	o.wrap = func(s storage.Store) storage.Store {
		f.Store = s
		return f
	}
	l := open(t, o)
	b := Batch{Drafts: []event.Draft{draft("a", 1)}}
	f.err.Store(storage.ErrFull)
	_, err := l.Append(t.Context(), b)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, err, storage.ErrFull)
	f.err.Store(storage.Fault(""))
	add(t, l, draft("a", 1))
	f.err.Store(storage.ErrIO)
	_, err = l.Append(t.Context(), b)
	require.ErrorIs(t, err, ErrUnavailable)
	f.err.Store(storage.Fault(""))
	_, err = l.Append(t.Context(), b)
	require.ErrorIs(t, err, ErrUnavailable, "no second try")
	require.NoError(t, l.Close())
	l = open(t, o)
	require.Equal(t, int64(2+1), verified(t, l.Reader).Events, "and the recovery")
	require.Len(t, all(t, l.Reader, Filter{Kind: event.LedgerRecovered}), 1)
	add(t, l, draft("a", 1))
}

// L7: the real engine at the end of its room acknowledges nothing that it does not keep.
func TestL7Bound(t *testing.T) {
	t.Parallel()
	o := options(newDir(t))
	o.BytesMax = 128 << 10
	l := open(t, o)
	acknowledged := int64(1)
	for {
		a, err := l.Append(t.Context(), Batch{Drafts: []event.Draft{draft("a", 1)}})
		if err != nil {
			require.ErrorIs(t, err, storage.ErrFull)
			break
		}
		acknowledged = a.Events[0].Seq
	}
	require.Greater(t, acknowledged, int64(100))
	require.Equal(t, acknowledged, verified(t, l.Reader).Events)
	require.NoError(t, l.Close())
	o.BytesMax = 0
	require.Equal(t, acknowledged+1, add(t, open(t, o), draft("a", 1))[0].Seq)
}

// L10: whichever call for a file fails, nothing that was acknowledged is lost, nothing panics and
// no file stays open.
func TestL10EveryCall(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		o := options(newDir(t))
		var failed atomic.Bool
		var dirs []*disk.Faulty
		plain := o
		o.OpenDir = func(path string) (disk.Dir, error) {
			d, err := disk.OpenDir(path)
			if err != nil {
				return nil, err
			}
			dirs = append(dirs, disk.NewFaulty(d, disk.Faults{
				Fail: func(_ disk.Op, _ string, call int) error {
					if call == n {
						failed.Store(true)
						return disk.ErrInjected
					}
					return nil
				},
			}))
			return dirs[len(dirs)-1], nil
		}
		acknowledged := scenario(t, o)
		for _, d := range dirs {
			require.Zero(t, d.OpenFiles(), "call %d", n)
		}
		if !failed.Load() {
			require.Greater(t, n, 30)
			return
		}
		l, err := Open(t.Context(), plain)
		if acknowledged == 0 && err != nil {
			continue // it was never made
		}
		require.NoError(t, err, "call %d", n)
		require.GreaterOrEqual(t, verified(t, l.Reader).Events, acknowledged, "call %d", n)
		require.NoError(t, l.Close())
	}
}

// scenario makes a ledger, appends, signs, and opens it again; it returns the newest event that was
// acknowledged.
func scenario(t *testing.T, o Options) (acknowledged int64) {
	t.Helper()
	for range 2 {
		l, err := Open(t.Context(), o)
		if err != nil {
			return acknowledged
		}
		for range 2 {
			a, err := l.Append(t.Context(), Batch{Drafts: []event.Draft{draft("a", 1)}})
			if err == nil {
				acknowledged = a.Events[0].Seq
			}
			_ = l.Sign(t.Context()) // it may fail, too
		}
		_ = l.Close() // likewise
	}
	return acknowledged
}

func TestL11Locked(t *testing.T) {
	t.Parallel()
	o := options(newDir(t))
	l := open(t, o)
	_, err := Open(t.Context(), o)
	require.ErrorIs(t, err, ErrLocked)
	add(t, l, draft("a", 1))
	require.Len(t, all(t, reader(t, o), Filter{}), 2, "a reader needs no lock")
	require.NoError(t, l.Close())
	add(t, open(t, o), draft("a", 1))
}

func TestL12Directory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Symlink(t.TempDir(), link))
	shared := filepath.Join(dir, "shared")
	require.NoError(t, os.Mkdir(shared, 0o700))
	require.NoError(t, os.Chmod(shared, 0o777))
	for _, path := range []string{file, link, shared} {
		_, err := Open(t.Context(), options(path))
		require.ErrorIs(t, err, ErrDirectory, path)
		e, ok := err.(*Error) //nolint:errorlint // the hint is at the top
		require.True(t, ok)
		require.NotEmpty(t, e.Hint)
	}
	_, err := OpenReader(t.Context(), options(filepath.Join(dir, "none")))
	require.ErrorIs(t, err, ErrNone)
	_, err = OpenReader(t.Context(), options(t.TempDir()))
	require.ErrorIs(t, err, ErrNone)

	whole, o := small(t)
	for _, name := range []string{logKeyFile, payloadKeyFile} {
		path := filepath.Join(whole, name)
		require.NoError(t, os.Chmod(path, 0o644))
		_, err = Open(t.Context(), o)
		require.ErrorIs(t, err, ErrKey, name)
		require.NoError(t, os.Chmod(path, 0o600))
	}
	require.NoError(t, open(t, o).Close())
	for name, o := range map[string]Options{
		"dir": {}, "now": {Dir: dir}, "after": {Dir: dir, Now: tick(), CheckpointAfter: -1},
		"bytes": {Dir: dir, Now: tick(), BytesMax: -1},
		"name":  {Dir: dir, Now: tick(), Projections: []Projection{sums{""}}},
		"twice": {Dir: dir, Now: tick(), Projections: []Projection{sums{"a"}, sums{"a"}}},
	} {
		_, err := Open(t.Context(), o)
		require.ErrorIs(t, err, ErrOptions, name)
	}
}

// L13: a newer ledger is refused; an older one is migrated, with a backup and an event.
func TestL13Versions(t *testing.T) {
	t.Parallel()
	dir, o := small(t)
	one, err := os.ReadFile("storage/sqlite/schema/0001.sql")
	require.NoError(t, err)
	newer := o
	newer.sql = sqlite.Options{Schema: []string{string(one), "CREATE TABLE more (a)"}}
	_, err = OpenReader(t.Context(), newer)
	require.ErrorIs(t, err, ErrTooOld)
	l := open(t, newer)
	migrated := all(t, l.Reader, Filter{Kind: event.LedgerMigrated})
	require.Len(t, migrated, 1)
	require.FileExists(t, filepath.Join(dir, databaseFile+".v1"))
	verified(t, l.Reader)
	require.NoError(t, l.Close())
	_, err = Open(t.Context(), o)
	require.ErrorIs(t, err, ErrTooNew)
	require.NoError(t, open(t, newer).Close(), "a refusal changes nothing")
}

// No plain text of a sealed payload, and no key, is in any file of the record but the key's own.
func TestNoPlainText(t *testing.T) {
	t.Parallel()
	dir, _ := small(t)
	master, err := os.ReadFile(filepath.Join(dir, payloadKeyFile))
	require.NoError(t, err)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		assert.NotContains(t, string(data), "private\n", e.Name())
		if e.Name() != logKeyFile {
			assert.NotContains(t, strings.ToLower(string(data)), "private", e.Name())
		}
		if e.Name() != payloadKeyFile {
			assert.False(t, bytes.Contains(data, master[:sealKeyBytes]), e.Name())
		}
	}
}
