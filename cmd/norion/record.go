package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger"
	"github.com/norion/norion/control/loop"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store"
)

// recordFlags say whether requests are recorded.
type recordFlags struct {
	record  bool
	witness string
}

func (f *recordFlags) add(fs *pflag.FlagSet) {
	fs.BoolVar(&f.record, "record", false,
		"record each request, and refuse what cannot be recorded; no text is kept: see norion ledger")
	fs.StringVar(&f.witness, "witness", "",
		"`FILE` with a second copy of the record's checkpoint, best on another disk")
}

// recorder records the requests of backends. The nil recorder records nothing.
type recorder struct {
	ledger *ledger.Ledger
	scope  func(infer.Request) event.Scope
}

// openRecorder opens the record for writing; it returns nil where none is asked for.
func (a *app) openRecorder(
	ctx context.Context, f *recordFlags, scope func(infer.Request) event.Scope,
) (*recorder, error) {
	switch {
	case !f.record && f.witness != "":
		return nil, flagError("witness", "add --record", "there is nothing to witness")
	case !f.record:
		return nil, nil
	}
	home, err := store.Home(a.getenv)
	if err != nil {
		return nil, err
	}
	l, err := ledger.Open(ctx, ledger.Options{
		Dir: filepath.Join(home, ledgerDir), Witness: f.witness, Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	a.sayDegraded(l)
	return &recorder{ledger: l, scope: scope}, nil
}

// sayDegraded names what of a record does not work.
func (a *app) sayDegraded(l *ledger.Ledger) {
	if what := l.Degraded(); what != "" {
		fmt.Fprintf(a.err, "note: the record goes on, but %s\n", oneLine(what))
	}
}

// over gives a backend whose requests are recorded.
func (r *recorder) over(b infer.Backend) (infer.Backend, error) {
	if r == nil {
		return b, nil
	}
	return loop.Recorded(b, loop.Recording{
		Record: r.ledger, Now: time.Now, NewID: rand.Text, Scope: r.scope,
	})
}

// close ends recording.
func (r *recorder) close(a *app) error {
	if r == nil {
		return nil
	}
	err := r.ledger.Close()
	a.sayDegraded(r.ledger)
	return err
}

// single is the scope of who runs norion for themselves.
func single(infer.Request) event.Scope { return event.Scope{} }

// ofSalt is the scope of a server's request: the digest that stands for the tenant and the
// workspace of its key, which also keeps their prefixes apart; nobody's without a key.
func ofSalt(r infer.Request) event.Scope { return event.Scope{Tenant: r.KV.Salt} }
