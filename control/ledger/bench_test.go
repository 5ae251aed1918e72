package ledger

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// observation is an event of about 256 bytes.
func observation(n int64) event.Draft {
	return event.Draft{
		Stream: "request/01", Actor: "engine", Body: event.Crossed{Sensor: "queue", ValueMilli: n},
	}
}

// BenchmarkAppend compares durable appends with the engine's own: the same journal, syncs and size
// of rows, and the check of a stream's version, without hashes, checkpoints and canonical bytes.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprintf("raw/%d", size), func(b *testing.B) { benchmarkRaw(b, size) })
		b.Run(fmt.Sprintf("ledger/%d", size), func(b *testing.B) {
			l := open(b, Options{Dir: newDir(b), Now: tick()})
			n, took := int64(0), []time.Duration{}
			for b.Loop() {
				start := time.Now()
				var batch Batch
				for range size {
					batch.Drafts = append(batch.Drafts, observation(n))
					n++
				}
				_, err := l.Append(b.Context(), batch)
				require.NoError(b, err)
				took = append(took, time.Since(start))
			}
			report(b, n, took)
		})
	}
}

// report gives events per second and the time that 99 of 100 appends take at most.
func report(b *testing.B, events int64, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// BenchmarkHash is what the tree costs of an append, for each event: canonical bytes, leaf hash and
// inner hashes. The checkpoint's signature comes once a second.
func BenchmarkHash(b *testing.B) {
	e, err := event.New(observation(1))
	require.NoError(b, err)
	var t tree
	var data []byte
	for b.Loop() {
		data = e.AppendCanonical(data[:0])
		t.append(tlog.RecordHash(data))
	}
}

func benchmarkRaw(b *testing.B, size int) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "raw.db")+
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	require.NoError(b, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(b.Context(), `CREATE TABLE e (
		seq INTEGER PRIMARY KEY, stream TEXT NOT NULL,
		version INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (stream, version))`)
	require.NoError(b, err)
	insert, err := db.PrepareContext(b.Context(),
		"INSERT INTO e (stream, version, body) VALUES (?, ?, ?)")
	require.NoError(b, err)
	defer insert.Close()
	body, n, took := []byte(strings.Repeat("x", 256)), int64(0), []time.Duration{}
	for b.Loop() {
		start := time.Now()
		tx, err := db.BeginTx(b.Context(), nil)
		require.NoError(b, err)
		in := tx.StmtContext(b.Context(), insert)
		for range size {
			n++
			_, err := in.ExecContext(b.Context(), "request/01", n, body)
			require.NoError(b, err)
		}
		require.NoError(b, tx.Commit())
		took = append(took, time.Since(start))
	}
	report(b, n, took)
}

// BenchmarkMillion measures opening, verifying and proving on 10^6 events.
func BenchmarkMillion(b *testing.B) {
	if testing.Short() {
		b.Skip("a million events")
	}
	const events = 1_000_000
	l := many(b, events)
	dir := l.dir.Path(".")
	_, cp, err := l.Reader.checkpoint()
	require.NoError(b, err)
	for name, step := range map[string]int64{"prove/near": 1, "prove/far": 104_729 * 256} {
		b.Run(name, func(b *testing.B) {
			index := int64(0)
			for b.Loop() {
				index = (index + step) % events
				require.NoError(b, l.store.View(b.Context(), func(v storage.Reader) error {
					hashes, err := l.inclusion(b.Context(), v, cp.Size, index)
					if err != nil {
						return err
					}
					leaves, err := v.Leaves(b.Context(), index+1, index+1)
					if err != nil {
						return err
					}
					return tlog.CheckRecord(hashes, cp.Size, cp.Root, index, leaves[0])
				}))
			}
		})
	}
	require.NoError(b, l.Close())
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			l, err := Open(b.Context(), options(dir))
			require.NoError(b, err)
			require.NoError(b, l.Close())
		}
	})
	b.Run("verify", func(b *testing.B) {
		r, err := OpenReader(b.Context(), Options{Dir: dir})
		require.NoError(b, err)
		defer r.Close()
		for b.Loop() {
			report, err := r.Verify(b.Context())
			require.NoError(b, err)
			require.Equal(b, int64(events), report.Events)
		}
		b.ReportMetric(float64(b.N)*events/b.Elapsed().Seconds(), "events/s")
	})
}
