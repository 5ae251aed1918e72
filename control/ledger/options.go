package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/norion/norion/control/ledger/storage"
	"github.com/norion/norion/control/ledger/storage/sqlite"
	"github.com/norion/norion/hw/disk"
)

// Options says how a ledger is opened.
type Options struct {
	// Dir is the directory of the ledger; Open makes it.
	Dir string
	// Now is the clock of the events' times. Required to write.
	Now func() time.Time
	// Projections are kept up to date with every event, in this order.
	Projections []Projection
	// Witness is the path of a second checkpoint file, best on another disk; "" is none. It
	// convicts a whole directory that was put back.
	Witness string
	// CheckpointAfter is how long the signed checkpoint may lag behind. Default: 1 s. A copy of
	// the database that is older than that is noticed.
	CheckpointAfter time.Duration
	// BytesMax bounds the database file; 0 is no bound.
	BytesMax int64
	// OpenDir opens a directory. Default: disk.OpenDir.
	OpenDir func(path string) (disk.Dir, error)

	wrap func(storage.Store) storage.Store // of tests
	sql  sqlite.Options                    // of tests: Schema, PageBytes
}

func (o Options) withDefaults() Options {
	if o.CheckpointAfter == 0 {
		o.CheckpointAfter = time.Second
	}
	if o.OpenDir == nil {
		o.OpenDir = disk.OpenDir
	}
	if o.wrap == nil {
		o.wrap = func(s storage.Store) storage.Store { return s }
	}
	return o
}

// Validate refuses options that make no sense. Errors: ErrOptions.
func (o Options) Validate() error {
	switch {
	case o.Dir == "":
		return badOption("Dir", "there is none")
	case o.CheckpointAfter < 0:
		return badOption("CheckpointAfter", "it is negative")
	case o.BytesMax < 0:
		return badOption("BytesMax", "it is negative")
	}
	var names []string
	for _, p := range o.Projections {
		name := p.Name()
		if name == "" || name == systemState || strings.ContainsAny(name, " \n") ||
			slices.Contains(names, name) {
			return badOption("Projections", fmt.Sprintf("the name %q", name))
		}
		names = append(names, name)
	}
	return nil
}

func badOption(field, what string) error {
	return &Error{Op: "open", Kind: ErrOptions, Field: field, Err: errors.New(what)}
}
