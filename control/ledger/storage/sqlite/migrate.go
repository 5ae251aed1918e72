package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// schema returns the versions of the schema, oldest first: NNNN.sql makes version N of N-1.
func schema() []string {
	names, err := fs.Glob(schemaFiles, "schema/*.sql")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	slices.Sort(names)
	var all []string
	for _, name := range names {
		data, err := schemaFiles.ReadFile(name)
		if err != nil {
			panic(err) // it is embedded
		}
		if path.Base(name) != fmt.Sprintf("%04d.sql", len(all)+1) {
			panic("the versions of the schema have a gap at " + name)
		}
		all = append(all, string(data))
	}
	return all
}

// Migration says what was done to an older database.
type Migration struct {
	From, To int
	Backup   string       // name of the backup in the directory
	Digest   event.Digest // of the backup's rows
}

// version returns the version of the schema, 0 for an empty file.
func (o Options) version(ctx context.Context, q querier) (int, error) {
	var version, app, tables int
	if err := q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, err
	}
	if err := q.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app); err != nil {
		return 0, err
	}
	err := q.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables)
	switch {
	case err != nil:
		return 0, err
	case version == 0 && app == 0 && tables == 0:
		return 0, nil
	case app != applicationID:
		return 0, fmt.Errorf("%w: %s is a database of something else", storage.ErrNotRecord, o.Name)
	case version > len(o.Schema):
		return 0, fmt.Errorf("%w: %d, and this program knows %d", storage.ErrTooNew, version,
			len(o.Schema))
	}
	return version, nil
}

// migrate brings the schema up to date in one transaction. What held events is copied before, and
// the copy is compared row by row.
func (o Options) migrate(ctx context.Context, c *sql.Conn) (*Migration, error) {
	from, err := o.version(ctx, c)
	if err != nil || from == len(o.Schema) {
		return nil, err
	}
	var m *Migration
	if from > 0 {
		m = &Migration{From: from, To: len(o.Schema), Backup: fmt.Sprintf("%s.v%d", o.Name, from)}
		if m.Digest, err = o.backup(ctx, c, m.Backup); err != nil {
			return nil, fmt.Errorf("backup before the migration: %w", err)
		}
	}
	if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, err
	}
	err = func() error {
		for _, text := range o.Schema[from:] {
			if _, err := c.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		_, err := c.ExecContext(ctx, fmt.Sprintf(
			"PRAGMA application_id=%d; PRAGMA user_version=%d", applicationID, len(o.Schema)))
		return err
	}()
	if err != nil {
		_, undone := c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return nil, errors.Join(err, undone)
	}
	_, err = c.ExecContext(ctx, "COMMIT")
	return m, err
}

// backup copies the database to name and compares the copy with it. One that an interrupted
// migration left is made anew.
func (o Options) backup(ctx context.Context, c *sql.Conn, name string) (d event.Digest, err error) {
	if err := o.Dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	if _, err := c.ExecContext(ctx, "VACUUM INTO ?", o.Dir.Path(name)); err != nil {
		return d, err
	}
	f, err := o.Dir.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return d, err
	}
	if err := errors.Join(f.Sync(), f.Close(), o.Dir.SyncDir(".")); err != nil {
		return d, err
	}
	copied := o
	copied.Name = name
	db, err := sql.Open("sqlite", copied.dsn("mode=ro", "query_only(1)"))
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if lines, err := queryLines(ctx, db, "PRAGMA integrity_check"); err != nil ||
		!slices.Equal(lines, []string{"ok"}) {
		return d, errors.Join(err, fmt.Errorf("%w: the copy: %v", storage.ErrCorrupt, lines))
	}
	was, err := contents(ctx, c)
	if err != nil {
		return d, err
	}
	if d, err = contents(ctx, db); err == nil && d != was {
		err = fmt.Errorf("%w: the copy differs", storage.ErrCorrupt)
	}
	return d, err
}

// contents digests every row of every table, whatever the schema.
func contents(ctx context.Context, q querier) (event.Digest, error) {
	tables, err := column(ctx, q, "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name")
	if err != nil {
		return event.Digest{}, err
	}
	h := sha256.New()
	for _, table := range tables {
		columns, err := column(ctx, q, "SELECT name FROM pragma_table_info(?) ORDER BY cid", table)
		if err != nil {
			return event.Digest{}, err
		}
		fmt.Fprintf(h, "%q %q\n", table, columns)
		if err := digestRows(ctx, q, h, table, columns); err != nil {
			return event.Digest{}, err
		}
	}
	return event.Digest(h.Sum(nil)), nil
}

// digestRows writes the rows of a table to h, sorted by all their columns.
func digestRows(ctx context.Context, q querier, h io.Writer, table string, columns []string) error {
	cells, names := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		names[i] = identifier(c)
		cells[i] = "quote(" + names[i] + ")"
	}
	r, err := q.QueryContext(ctx, "SELECT "+strings.Join(cells, "||','||")+" FROM "+
		identifier(table)+" ORDER BY "+strings.Join(names, ","))
	if err != nil {
		return err
	}
	for r.Next() {
		var line sql.RawBytes
		if err := r.Scan(&line); err != nil {
			return errors.Join(err, r.Close())
		}
		if _, err := fmt.Fprintf(h, "%s\n", line); err != nil {
			return errors.Join(err, r.Close())
		}
	}
	return errors.Join(r.Err(), r.Close())
}

// identifier quotes a name for SQL.
func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// column returns the one column of a query.
func column(ctx context.Context, q querier, query string, args ...any) (all []string, err error) {
	r, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for r.Next() {
		var s string
		if err := r.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, r.Err()
}
