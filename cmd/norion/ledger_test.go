package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger"
)

// odd is a body of a kind that this program does not know, with text that a terminal would act on.
const odd = "{\"text\":\"\\n\\u001b[2J\u009b2J\u202etxt.exe\U000e0041</script>\"}"

// record appends to the record of a script: three requests of two tenants, a change with a sealed
// text whose digest goes into $PAYLOAD, and an odd event. Its clock begins on 2026-01-02: record.
func record(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: record")
	}
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	ctx := context.Background()
	l, err := ledger.Open(ctx, ledger.Options{
		Dir: filepath.Join(ts.Getenv("NORION_HOME"), "ledger"),
		Now: func() time.Time {
			now = now.Add(12 * time.Hour)
			return now
		},
	})
	ts.Check(err)
	for i, tenant := range []string{"", "a", "a"} {
		scope := event.Scope{Tenant: tenant}
		request := string("xyz"[i])
		_, err := l.Append(ctx, ledger.Batch{Drafts: []event.Draft{{
			Scope: scope, Stream: "request/" + request, Actor: "engine",
			Body: event.Started{
				Request: request, Model: event.DigestOf([]byte("model")), Profile: "general",
			},
		}}})
		ts.Check(err)
	}
	sealed, err := l.Seal(event.Scope{Tenant: "a"}, []byte("a private text"))
	ts.Check(err)
	_, err = l.Append(ctx, ledger.Batch{
		Drafts: []event.Draft{{
			Scope: event.Scope{Tenant: "a"}, Stream: "memory", Actor: "gate", Payload: sealed.Digest,
			Body: event.Applied{
				Proposal: "p1", Lease: "l1", Candidate: event.DigestOf([]byte("c")), Generation: 1,
			},
		}, {
			Scope: event.Scope{Tenant: "a"}, Stream: "newer", Actor: "engine",
			Body: event.Unknown{Name: "newer.kind", Schema: 9, Raw: []byte(odd)},
		}},
		Sealed: []ledger.Sealed{sealed},
	})
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv("PAYLOAD", sealed.Digest.String())
}

// edit replaces a text of a file by another of its length: edit FILE OLD NEW.
func edit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 || len(args[1]) != len(args[2]) {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	if !bytes.Contains(data, []byte(args[1])) {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(path, bytes.Replace(data, []byte(args[1]), []byte(args[2]), 1), 0o600))
}
