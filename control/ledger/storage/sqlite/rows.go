package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// streamsMax bounds the streams whose names a transaction or a connection remembers.
const streamsMax = 4096

// querier is a connection, a transaction or a pool.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// stream is a row of the table of streams.
type stream struct {
	id    int64
	scope event.Scope
	name  string
}

type streamName struct {
	scope event.Scope
	name  string
}

// rows reads and writes in one transaction. It implements storage.Writer. prepared, where it is not
// nil, keeps statements over transactions.
type rows struct {
	q        querier
	prepared map[string]*sql.Stmt
	streams  map[streamName]int64 // ids by name, of the writer
	names    map[int64]stream     // by id, of a walk
}

// forget drops what is remembered of streams: a transaction that made some was undone, and their
// ids will be given to others.
func (r *rows) forget() {
	clear(r.streams)
	clear(r.names)
}

func (r *rows) close() error {
	var errs []error
	for _, s := range r.prepared {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func (r *rows) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := r.prepared[query]; ok {
		return s, nil
	}
	s, err := r.q.PrepareContext(ctx, query)
	if err == nil {
		r.prepared[query] = s
	}
	return s, err
}

func (r *rows) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if r.prepared == nil {
		return r.q.ExecContext(ctx, query, args...)
	}
	s, err := r.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args...)
}

func (r *rows) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if r.prepared == nil {
		return r.q.QueryContext(ctx, query, args...)
	}
	s, err := r.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// one scans the first row of a query; it reports false where there is none.
func (r *rows) one(ctx context.Context, query string, args []any, to ...any) (bool, error) {
	q, err := r.query(ctx, query, args...)
	if err != nil {
		return false, classify(err)
	}
	if !q.Next() {
		return false, classify(errors.Join(q.Err(), q.Close()))
	}
	return true, classify(errors.Join(scan(q, to...), q.Close()))
}

// scan reads the cells of a row. A cell of another type is damage.
func scan(q *sql.Rows, to ...any) error {
	if err := q.Scan(to...); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	return nil
}

// each calls visit for the rows of a query.
func (r *rows) each(ctx context.Context, query string, args []any,
	visit func(*sql.Rows) error,
) error {
	q, err := r.query(ctx, query, args...)
	if err != nil {
		return classify(err)
	}
	for q.Next() {
		if err := visit(q); err != nil {
			return errors.Join(classify(err), classify(q.Close()))
		}
	}
	return classify(errors.Join(q.Err(), q.Close()))
}

// Last implements storage.Reader.
func (r *rows) Last(ctx context.Context) (int64, error) {
	var n int64
	_, err := r.one(ctx, "SELECT coalesce(max(seq), 0) FROM event", nil, &n)
	return n, err
}

// Rows implements storage.Reader. Every byte of a row goes into the event, so that its hash covers
// the row.
func (r *rows) Rows(ctx context.Context, first, last int64, f func(*storage.Row) error) error {
	var (
		row                         storage.Row
		id, version, schema, micros int64
		kind, actor                 string
		key, payload, body, leaf    sql.RawBytes
		into                        = []any{
			&row.Seq, &id, &version, &kind, &schema, &micros, &actor, &key, &payload, &body, &leaf,
		}
	)
	const query = "SELECT seq, stream, version, kind, schema, time_us, actor, key, payload, body, " +
		"leaf FROM event WHERE seq BETWEEN ? AND ? ORDER BY seq"
	return r.each(ctx, query, []any{first, last}, func(q *sql.Rows) error {
		if err := scan(q, into...); err != nil {
			return err
		}
		s, err := r.stream(ctx, id)
		if err != nil {
			return err
		}
		row.Event = event.Event{
			Seq: row.Seq, Scope: s.scope, Stream: s.name, Version: version, Kind: event.Kind(kind),
			Schema: int(schema), Time: time.UnixMicro(micros).UTC(), Actor: actor,
			Key: string(key), Body: body,
		}
		if len(leaf) != storage.LeafBytes || payload != nil && len(payload) != len(row.Payload) {
			return fmt.Errorf("%w: event %d: a digest of another size", storage.ErrCorrupt, row.Seq)
		}
		copy(row.Leaf[:], leaf)
		copy(row.Payload[:], payload)
		return f(&row)
	})
}

// stream returns a stream by its id.
func (r *rows) stream(ctx context.Context, id int64) (stream, error) {
	if s, ok := r.names[id]; ok {
		return s, nil
	}
	s := stream{id: id}
	ok, err := r.one(ctx, "SELECT tenant, workspace, session, name FROM stream WHERE id=?",
		[]any{id}, &s.scope.Tenant, &s.scope.Workspace, &s.scope.Session, &s.name)
	if err != nil {
		return s, err
	}
	if !ok {
		return s, fmt.Errorf("%w: stream %d is missing", storage.ErrCorrupt, id)
	}
	if r.names == nil || len(r.names) >= streamsMax {
		r.names = map[int64]stream{}
	}
	r.names[id] = s
	return s, nil
}

// streamID finds a stream, and makes it where create is set; 0 where there is none.
func (r *rows) streamID(ctx context.Context, n streamName, create bool) (int64, error) {
	if id, ok := r.streams[n]; ok {
		return id, nil
	}
	args := []any{n.scope.Tenant, n.scope.Workspace, n.scope.Session, n.name}
	var id int64
	ok, err := r.one(ctx,
		"SELECT id FROM stream WHERE tenant=? AND workspace=? AND session=? AND name=?", args, &id)
	if err != nil || !ok && !create {
		return 0, err
	}
	if !ok {
		made, err := r.exec(ctx,
			"INSERT INTO stream (tenant, workspace, session, name) VALUES (?, ?, ?, ?)", args...)
		if err != nil {
			return 0, classify(err)
		}
		if id, err = made.LastInsertId(); err != nil {
			return 0, err
		}
	}
	if r.streams == nil || len(r.streams) >= streamsMax {
		r.streams = map[streamName]int64{}
	}
	r.streams[n] = id
	return id, nil
}

// Leaves implements storage.Reader.
func (r *rows) Leaves(ctx context.Context, first, last int64) ([][storage.LeafBytes]byte, error) {
	var all [][storage.LeafBytes]byte
	err := r.each(ctx, "SELECT leaf FROM event WHERE seq BETWEEN ? AND ? ORDER BY seq",
		[]any{first, last}, func(q *sql.Rows) error {
			var leaf sql.RawBytes
			if err := scan(q, &leaf); err != nil {
				return err
			}
			if len(leaf) != storage.LeafBytes {
				return fmt.Errorf("%w: a leaf hash of %d bytes", storage.ErrCorrupt, len(leaf))
			}
			all = append(all, [storage.LeafBytes]byte(leaf))
			return nil
		})
	return all, err
}

// Version implements storage.Reader.
func (r *rows) Version(ctx context.Context, scope event.Scope, name string) (int64, error) {
	id, err := r.streamID(ctx, streamName{scope, name}, false)
	if err != nil || id == 0 {
		return 0, err
	}
	var n int64
	_, err = r.one(ctx, "SELECT coalesce(max(version), 0) FROM event WHERE stream=?", []any{id}, &n)
	return n, err
}

// Keyed implements storage.Reader.
func (r *rows) Keyed(ctx context.Context, scope event.Scope, key string) (
	first, last int64, err error,
) {
	_, err = r.one(ctx, `SELECT coalesce(min(e.seq), 0), coalesce(max(e.seq), 0)
		FROM event e JOIN stream s ON s.id=e.stream
		WHERE e.key=? AND s.tenant=? AND s.workspace=? AND s.session=?`,
		[]any{key, scope.Tenant, scope.Workspace, scope.Session}, &first, &last)
	return first, last, err
}

// Tile implements storage.Reader.
func (r *rows) Tile(ctx context.Context, level int, n int64) ([]byte, error) {
	var data []byte
	_, err := r.one(ctx, "SELECT data FROM tile WHERE level=? AND n=?", []any{level, n}, &data)
	return data, err
}

// Payload implements storage.Reader.
func (r *rows) Payload(ctx context.Context, d event.Digest) (p storage.Payload, err error) {
	_, err = r.one(ctx, `SELECT p.sealed, k.key FROM payload p
		LEFT JOIN payload_key k ON k.digest=p.digest WHERE p.digest=?`, []any{d[:]}, &p.Sealed, &p.Key)
	return p, err
}

// Payloads implements storage.Reader.
func (r *rows) Payloads(ctx context.Context, f func(event.Digest, storage.Payload) error) error {
	return r.each(ctx, `SELECT p.digest, p.sealed, k.key FROM payload p
		LEFT JOIN payload_key k ON k.digest=p.digest ORDER BY p.digest`, nil,
		func(q *sql.Rows) error {
			var digest, sealed, key sql.RawBytes
			if err := scan(q, &digest, &sealed, &key); err != nil {
				return err
			}
			var d event.Digest
			if len(digest) != len(d) {
				return fmt.Errorf("%w: a payload's digest of %d bytes", storage.ErrCorrupt, len(digest))
			}
			copy(d[:], digest)
			return f(d, storage.Payload{Sealed: sealed, Key: key})
		})
}

// Get implements storage.Reader.
func (r *rows) Get(ctx context.Context, projection, key string) ([]byte, error) {
	var value []byte
	_, err := r.one(ctx, "SELECT value FROM state WHERE projection=? AND key=?",
		[]any{projection, key}, &value)
	return value, err
}

// Range implements storage.Reader.
func (r *rows) Range(ctx context.Context, projection, prefix string,
	f func(key string, value []byte) error,
) error {
	query := "SELECT key, value FROM state WHERE projection=? AND key>=?"
	args := []any{projection, prefix}
	if end := after(prefix); end != "" {
		query, args = query+" AND key<?", append(args, end)
	}
	return r.each(ctx, query+" ORDER BY key", args, func(q *sql.Rows) error {
		var key string
		var value sql.RawBytes
		if err := scan(q, &key, &value); err != nil {
			return err
		}
		return f(key, value)
	})
}

// after is the first text behind all that begin with prefix; "" where there is none.
func after(prefix string) string {
	b := []byte(prefix)
	for len(b) > 0 {
		if b[len(b)-1]++; b[len(b)-1] != 0 {
			break
		}
		b = b[:len(b)-1]
	}
	return string(b)
}

// Projections implements storage.Reader.
func (r *rows) Projections(ctx context.Context) (all []string, err error) {
	err = r.each(ctx, "SELECT DISTINCT projection FROM state ORDER BY projection", nil,
		func(q *sql.Rows) error {
			var name string
			err := scan(q, &name)
			all = append(all, name)
			return err
		})
	return all, err
}

// AddEvent implements storage.Writer.
func (r *rows) AddEvent(ctx context.Context, row *storage.Row) error {
	id, err := r.streamID(ctx, streamName{row.Scope, row.Stream}, true)
	if err != nil {
		return err
	}
	var key, payload any
	if row.Key != "" {
		key = row.Key
	}
	if !row.Payload.IsZero() {
		payload = row.Payload[:]
	}
	_, err = r.exec(ctx, `INSERT INTO event (seq, stream, version, kind, schema, time_us, actor, key,
		payload, body, leaf) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		row.Seq, id, row.Version, string(row.Kind), row.Schema, row.Time.UnixMicro(), row.Actor, key,
		payload, row.Body, row.Leaf[:])
	return classify(err)
}

// AddTile implements storage.Writer.
func (r *rows) AddTile(ctx context.Context, level int, n int64, data []byte) error {
	_, err := r.exec(ctx, "INSERT INTO tile (level, n, data) VALUES (?, ?, ?)", level, n, data)
	return classify(err)
}

// AddPayload implements storage.Writer.
func (r *rows) AddPayload(ctx context.Context, d event.Digest, p storage.Payload) error {
	made, err := r.exec(ctx,
		"INSERT INTO payload (digest, sealed) VALUES (?, ?) ON CONFLICT DO NOTHING", d[:], p.Sealed)
	if err != nil {
		return classify(err)
	}
	if n, err := made.RowsAffected(); err != nil || n == 0 {
		return classify(err) // a forgotten text stays forgotten
	}
	_, err = r.exec(ctx, "INSERT INTO payload_key (digest, key) VALUES (?, ?)", d[:], p.Key)
	return classify(err)
}

// DropKey implements storage.Writer.
func (r *rows) DropKey(ctx context.Context, d event.Digest) (bool, error) {
	done, err := r.exec(ctx, "DELETE FROM payload_key WHERE digest=?", d[:])
	if err != nil {
		return false, classify(err)
	}
	n, err := done.RowsAffected()
	return n > 0, err
}

// Put implements storage.Writer.
func (r *rows) Put(ctx context.Context, projection, key string, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	_, err := r.exec(ctx, `INSERT INTO state (projection, key, value) VALUES (?, ?, ?)
		ON CONFLICT DO UPDATE SET value=excluded.value`, projection, key, value)
	return classify(err)
}

// Delete implements storage.Writer.
func (r *rows) Delete(ctx context.Context, projection, key string) error {
	_, err := r.exec(ctx, "DELETE FROM state WHERE projection=? AND key=?", projection, key)
	return classify(err)
}

// Clear implements storage.Writer.
func (r *rows) Clear(ctx context.Context, projection string) error {
	_, err := r.exec(ctx, "DELETE FROM state WHERE projection=?", projection)
	return classify(err)
}

// Nested implements storage.Writer.
func (r *rows) Nested(ctx context.Context, f func() error) error {
	if _, err := r.exec(ctx, "SAVEPOINT nested"); err != nil {
		return classify(err)
	}
	err := f()
	end := "RELEASE nested"
	if err != nil {
		r.forget()
		end = "ROLLBACK TO nested; RELEASE nested"
	}
	for _, query := range strings.Split(end, "; ") {
		if _, e := r.exec(ctx, query); e != nil {
			return errors.Join(err, classify(e))
		}
	}
	return err
}
