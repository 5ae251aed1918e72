package ledger

import (
	"context"
	"time"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// Stats says what is in a record.
type Stats struct {
	Events    int64                `json:"events"`
	Signed    int64                `json:"signed"` // that the checkpoint covers
	Streams   int64                `json:"streams"`
	BodyBytes int64                `json:"body_bytes"`
	FileBytes int64                `json:"file_bytes"` // of the database, without its journal
	First     time.Time            `json:"first"`
	Last      time.Time            `json:"last"`
	Kinds     map[event.Kind]int64 `json:"kinds"`
	Actors    map[string]int64     `json:"actors"`
	Scopes    map[string]int64     `json:"scopes"`
}

// Stats counts. Errors: ErrCheckpoint, ErrUnavailable, ErrDamaged.
func (r *Reader) Stats(ctx context.Context) (Stats, error) {
	s := Stats{
		Kinds: map[event.Kind]int64{}, Actors: map[string]int64{}, Scopes: map[string]int64{},
	}
	_, cp, err := r.checkpoint()
	if err != nil {
		return s, wrap("stats", err)
	}
	fi, err := r.dir.Lstat(databaseFile)
	if err != nil {
		return s, wrap("stats", err)
	}
	s.Signed, s.FileBytes = cp.Size, fi.Size()
	err = r.store.View(ctx, func(v storage.Reader) error {
		last, err := v.Last(ctx)
		if err != nil {
			return err
		}
		return v.Rows(ctx, 1, last, func(row *storage.Row) error {
			s.add(row.Event)
			return nil
		})
	})
	return s, wrap("stats", err)
}

func (s *Stats) add(e event.Event) {
	if s.Events++; s.Events == 1 {
		s.First = e.Time
	}
	if e.Version == 1 {
		s.Streams++
	}
	s.Last = e.Time
	s.BodyBytes += int64(len(e.Body))
	s.Kinds[e.Kind]++
	s.Actors[e.Actor]++
	s.Scopes[e.Scope.String()]++
}
