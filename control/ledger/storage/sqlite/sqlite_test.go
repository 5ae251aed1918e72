package sqlite_test

import (
	"database/sql"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/ledger/storage"
	"github.com/norion/norion/control/ledger/storage/sqlite"
	"github.com/norion/norion/control/ledger/storage/storagetest"
	"github.com/norion/norion/hw/disk"
)

func openDir(t *testing.T, path string) disk.Dir {
	t.Helper()
	d, err := disk.OpenDir(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storagetest.Run(t, func(t *testing.T, dir string) storage.Store {
		t.Helper()
		s, err := sqlite.Open(t.Context(), sqlite.Options{Dir: openDir(t, dir), Name: "record.db"})
		require.NoError(t, err)
		return s
	})
}

func open(t *testing.T, o sqlite.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func put(t *testing.T, s *sqlite.Store, value []byte) error {
	t.Helper()
	return s.Update(t.Context(), func(w storage.Writer) error {
		return w.Put(t.Context(), "p", "k", value)
	})
}

func get(t *testing.T, s *sqlite.Store) (value []byte) {
	t.Helper()
	require.NoError(t, s.View(t.Context(), func(r storage.Reader) (err error) {
		value, err = r.Get(t.Context(), "p", "k")
		return err
	}))
	return value
}

// A file that has reached its bound refuses what does not fit, and goes on with what does.
func TestL7Full(t *testing.T) {
	t.Parallel()
	o := sqlite.Options{Dir: openDir(t, t.TempDir()), Name: "r.db", BytesMax: 256 << 10}
	s := open(t, o)
	require.NoError(t, put(t, s, []byte("small")))
	require.ErrorIs(t, put(t, s, make([]byte, 300<<10)), storage.ErrFull)
	require.Equal(t, "small", string(get(t, s)))
	require.NoError(t, put(t, s, []byte("also small")))
	require.NoError(t, s.Close())
	o.BytesMax = 0
	s = open(t, o)
	require.Equal(t, "also small", string(get(t, s)))
	require.NoError(t, put(t, s, make([]byte, 300<<10)))
}

// Two writers on one file wait for each other, and one that waits too long is told.
func TestL11Busy(t *testing.T) {
	t.Parallel()
	o := sqlite.Options{Dir: openDir(t, t.TempDir()), Name: "r.db"}
	one, two := open(t, o), open(t, o)
	require.NoError(t, one.Update(t.Context(), func(storage.Writer) error {
		require.ErrorIs(t, put(t, two, nil), storage.ErrBusy)
		return nil
	}))
	require.NoError(t, put(t, two, nil))
}

func TestL12ForeignFiles(t *testing.T) {
	t.Parallel()
	if os.Getuid() < 0 {
		t.Skip("modes say nothing here")
	}
	path := t.TempDir()
	dir := openDir(t, path)
	write := func(name string, mode os.FileMode, data string) {
		require.NoError(t, os.WriteFile(filepath.Join(path, name), []byte(data), mode))
		require.NoError(t, os.Chmod(filepath.Join(path, name), mode))
	}
	write("shared", 0o666, "")
	write("text", 0o600, strings.Repeat("this is no database\n", 100))
	require.NoError(t, os.Symlink("text", filepath.Join(path, "link")))
	require.NoError(t, os.Mkdir(filepath.Join(path, "dir"), 0o700))
	db := query(t, filepath.Join(path, "other"), "CREATE TABLE t (a); PRAGMA user_version=1")
	require.NoError(t, db.Close())
	for name, want := range map[string]error{
		"shared": storage.ErrNotRecord, "link": storage.ErrNotRecord, "dir": storage.ErrNotRecord,
		"other": storage.ErrNotRecord, "text": storage.ErrCorrupt,
	} {
		for _, readOnly := range []bool{false, true} {
			_, err := sqlite.Open(t.Context(), sqlite.Options{Dir: dir, Name: name, ReadOnly: readOnly})
			require.ErrorIs(t, err, want, name)
		}
	}
	_, err := sqlite.Open(t.Context(), sqlite.Options{Dir: dir, Name: "none", ReadOnly: true})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoFileExists(t, filepath.Join(path, "none"))
}

// query runs statements on a file beside the package.
func query(t *testing.T, path, statements string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), statements)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(path, 0o600))
	return db
}

const (
	version1 = `
		CREATE TABLE state (projection TEXT, key TEXT, value BLOB, PRIMARY KEY (projection, key));
		CREATE TABLE "odd ""name" (b REAL, a);
		INSERT INTO "odd ""name" VALUES (1.5, NULL), (0.5, 'x');`
	version2 = `ALTER TABLE state ADD COLUMN more TEXT`
)

// A newer schema is refused, an older one is migrated after a backup that can be opened, and a
// migration that fails leaves the old one.
func TestL13Versions(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	o := sqlite.Options{Dir: openDir(t, path), Name: "r.db", Schema: []string{version1}}
	s := open(t, o)
	require.Nil(t, s.Migration())
	require.NoError(t, put(t, s, []byte("old")))
	require.NoError(t, s.Close())

	broken := o
	broken.Schema = []string{version1, version2 + "; CREATE TABLE state (a)"}
	_, err := sqlite.Open(t.Context(), broken)
	require.Error(t, err)
	s = open(t, o)
	require.Equal(t, "old", string(get(t, s)))
	require.NoError(t, s.Close())

	newer := o
	newer.Schema = []string{version1, version2}
	newer.ReadOnly = true
	_, err = sqlite.Open(t.Context(), newer)
	require.ErrorIs(t, err, storage.ErrTooOld, "a reader migrates nothing")
	newer.ReadOnly = false
	s = open(t, newer)
	m := s.Migration()
	require.Equal(t, []any{1, 2, "r.db.v1"}, []any{m.From, m.To, m.Backup})
	require.False(t, m.Digest.IsZero())
	require.Equal(t, "old", string(get(t, s)))
	require.NoError(t, put(t, s, []byte("new")))
	require.NoError(t, s.Close())

	_, err = sqlite.Open(t.Context(), o)
	require.ErrorIs(t, err, storage.ErrTooNew)
	o.Name = m.Backup
	require.Equal(t, "old", string(get(t, open(t, o))))
}

func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	o := sqlite.Options{Dir: openDir(t, path), Name: "r.db"}
	s := open(t, o)
	require.NoError(t, put(t, s, []byte("value")))
	require.NoError(t, s.Close())
	db := query(t, filepath.Join(path, o.Name), `INSERT INTO payload_key VALUES (x'01', x'02')`)
	require.NoError(t, db.Close())
	found, err := open(t, o).Check(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Contains(t, found[0], "payload_key")
}
