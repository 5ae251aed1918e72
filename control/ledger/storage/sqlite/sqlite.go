// Package sqlite owns the SQLite form of a record's rows: the schema and its versions, the pragmas
// that make an acknowledged transaction durable, and the statements. The driver is pure Go.
//
// One connection writes; others read beside it (write-ahead log). synchronous=FULL syncs the log at
// every commit. The package must not know the tree over the rows, nor who may write them.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/norion/norion/control/ledger/storage"
	"github.com/norion/norion/hw/disk"
)

// applicationID marks the file as a record ("nori").
const applicationID = 0x6e6f7269

// readersMax bounds the connections that read at once.
const readersMax = 4

// Options says how a database is opened.
type Options struct {
	Dir      disk.Dir // directory of the file; it stays the caller's
	Name     string   // of the file in Dir
	ReadOnly bool     // nothing is created, migrated or written
	// BytesMax bounds the file; 0 is no bound. What would cross it fails with storage.ErrFull.
	BytesMax int64
	// Schema are the versions of the schema, oldest first. Default: those of this program.
	Schema []string
	// PageBytes is the size of a page of a new file. Default: 4096.
	PageBytes int
}

// Store is a record's rows in a SQLite file. It implements storage.Store.
type Store struct {
	readers  *sql.DB
	writers  *sql.DB // one connection; nil when read only
	migrated *Migration
	source   string // names the file for a backup

	mu     sync.Mutex // one transaction at a time
	writer *rows      // statements on the writing connection
	conn   *sql.Conn
}

// Open opens the file, creates it where it is missing, and brings an older schema up to date after
// a backup that was compared with it. Errors: storage.ErrTooNew, ErrTooOld, ErrNotRecord, ErrBusy,
// ErrCorrupt, ErrFull, ErrIO.
func Open(ctx context.Context, o Options) (s *Store, err error) {
	if o.Schema == nil {
		o.Schema = schema()
	}
	if err := o.prepare(); err != nil {
		return nil, err
	}
	s = &Store{source: o.dsn("mode=ro")}
	defer func() {
		if err != nil {
			err = errors.Join(classify(err), s.Close())
			s = nil
		}
	}()
	if o.ReadOnly {
		s.readers, err = sql.Open("sqlite", o.dsn("mode=ro", "query_only(1)"))
		if err != nil {
			return s, err
		}
		version, err := o.version(ctx, s.readers)
		if err == nil && version < len(o.Schema) {
			err = fmt.Errorf("%w: %d, and %d is wanted", storage.ErrTooOld, version, len(o.Schema))
		}
		return s, err
	}
	if err := s.openWriter(ctx, o); err != nil {
		return s, err
	}
	s.readers, err = sql.Open("sqlite", o.dsn("mode=ro", "query_only(1)"))
	if err != nil {
		return s, err
	}
	s.readers.SetMaxOpenConns(readersMax)
	return s, nil
}

func (s *Store) openWriter(ctx context.Context, o Options) (err error) {
	pragmas := []string{
		"journal_mode(WAL)", "synchronous(FULL)", "fullfsync(1)", "secure_delete(1)",
		"trusted_schema(0)", "cell_size_check(1)",
	}
	if o.PageBytes > 0 {
		pragmas = append([]string{fmt.Sprintf("page_size(%d)", o.PageBytes)}, pragmas...)
	}
	if s.writers, err = sql.Open("sqlite", o.dsn("mode=rwc", pragmas...)); err != nil {
		return err
	}
	s.writers.SetMaxOpenConns(1)
	if s.conn, err = s.writers.Conn(ctx); err != nil {
		return err
	}
	if s.migrated, err = o.migrate(ctx, s.conn); err != nil {
		return err
	}
	if o.BytesMax > 0 {
		if err := limit(ctx, s.conn, o.BytesMax); err != nil {
			return err
		}
	}
	s.writer = &rows{q: s.conn, prepared: map[string]*sql.Stmt{}}
	return nil
}

// limit bounds the size of the file.
func limit(ctx context.Context, c *sql.Conn, bytes int64) error {
	var page int64
	if err := c.QueryRowContext(ctx, "PRAGMA page_size").Scan(&page); err != nil {
		return err
	}
	var got int64
	return c.QueryRowContext(ctx, fmt.Sprintf("PRAGMA max_page_count=%d", max(1, bytes/page))).
		Scan(&got)
}

// prepare refuses a file that another could have put there, and creates a missing one so that only
// this user can read it.
func (o Options) prepare() error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", storage.ErrNotRecord, o.Name, fmt.Sprintf(format, args...))
	}
	fi, err := o.Dir.Lstat(o.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !o.ReadOnly:
		f, err := o.Dir.OpenFile(o.Name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fault(err)
		}
		if err := errors.Join(f.Close(), o.Dir.SyncDir(".")); err != nil {
			return fault(err)
		}
		return nil
	case err != nil:
		return fault(err)
	case !fi.Mode().IsRegular():
		return refuse("it is no regular file")
	case !disk.Own(fi):
		return refuse("another user owns it or may write to it")
	}
	return nil
}

// dsn names the file for the driver.
func (o Options) dsn(mode string, pragmas ...string) string {
	path := filepath.ToSlash(o.Dir.Path(o.Name))
	if !strings.HasPrefix(path, "/") { // a drive letter
		path = "/" + path
	}
	q := url.Values{"_pragma": append(pragmas, "foreign_keys(1)", "busy_timeout(2000)")}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: mode + "&" + q.Encode()}
	return u.String()
}

// Migration returns what opening did to the schema, or nil.
func (s *Store) Migration() *Migration { return s.migrated }

// View implements storage.Store.
func (s *Store) View(ctx context.Context, f func(storage.Reader) error) error {
	tx, err := s.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return classify(err)
	}
	err = f(&rows{q: tx})
	return classify(errors.Join(err, tx.Rollback()))
}

// Update implements storage.Store.
func (s *Store) Update(ctx context.Context, f func(storage.Writer) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return storage.ErrClosed
	}
	// A transaction that began is ended whatever becomes of the caller.
	whole := context.WithoutCancel(ctx)
	if _, err := s.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return classify(err)
	}
	err := f(s.writer)
	if err == nil {
		_, err = s.conn.ExecContext(whole, "COMMIT")
		err = classify(err)
	}
	if err != nil {
		s.writer.forget()
		// A commit that failed may have ended the transaction by itself.
		_, _ = s.conn.ExecContext(whole, "ROLLBACK")
		return classify(err)
	}
	return nil
}

// Check implements storage.Store.
func (s *Store) Check(ctx context.Context) ([]string, error) {
	var found []string
	for _, check := range []string{"PRAGMA integrity_check(20)", "PRAGMA foreign_key_check"} {
		lines, err := queryLines(ctx, s.readers, check)
		if err != nil {
			return found, classify(err)
		}
		for _, line := range lines {
			if line != "ok" {
				found = append(found, line)
			}
		}
	}
	return found, nil
}

// queryLines returns the rows of a query, each as one line.
func queryLines(ctx context.Context, db *sql.DB, query string) (lines []string, err error) {
	r, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	columns, err := r.Columns()
	if err != nil {
		return nil, err
	}
	for r.Next() {
		cells, ptrs := make([]any, len(columns)), make([]any, len(columns))
		for i := range cells {
			ptrs[i] = &cells[i]
		}
		if err := r.Scan(ptrs...); err != nil {
			return nil, err
		}
		lines = append(lines, strings.TrimSuffix(fmt.Sprintln(cells...), "\n"))
	}
	return lines, r.Err()
}

// Settle implements storage.Store.
func (s *Store) Settle(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return storage.ErrClosed
	}
	var busy, log, moved int
	err := s.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &moved)
	if err == nil && busy != 0 {
		err = fmt.Errorf("%w: a reader holds the journal", storage.ErrBusy)
	}
	return classify(err)
}

// Backup implements storage.Store.
func (s *Store) Backup(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", s.source)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", path)
	if err = errors.Join(err, db.Close()); err != nil {
		return classify(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fault(err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return fault(err)
	}
	return nil
}

// Close implements storage.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	if s.conn != nil {
		if s.writer != nil {
			errs = append(errs, s.writer.close())
		}
		errs = append(errs, s.conn.Close())
	}
	if s.writers != nil {
		errs = append(errs, s.writers.Close())
	}
	s.conn, s.writers = nil, nil
	return classify(errors.Join(errs...))
}

// classify gives the errors of the driver their faults, once.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[storage.Fault](err); ok {
		return err
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_FULL:
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return fmt.Errorf("%w: %w", storage.ErrBusy, err)
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_FORMAT, lib.SQLITE_CONSTRAINT,
		lib.SQLITE_MISMATCH, lib.SQLITE_ERROR, lib.SQLITE_RANGE, lib.SQLITE_SCHEMA:
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	case lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN, lib.SQLITE_READONLY, lib.SQLITE_PERM,
		lib.SQLITE_PROTOCOL, lib.SQLITE_NOMEM, lib.SQLITE_TOOBIG:
		return fmt.Errorf("%w: %w", storage.ErrIO, err)
	}
	return err
}

// fault classifies an error of the file system.
func fault(err error) error {
	if disk.NoSpace(err) {
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	return fmt.Errorf("%w: %w", storage.ErrIO, err)
}
