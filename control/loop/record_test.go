package loop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger"
	"github.com/norion/norion/control/loop"
	"github.com/norion/norion/runtime/infer"
)

const secret = "the text of a prompt, which no file may have"

var model = event.DigestOf([]byte("model"))

// backend answers with a script. Before its first chunk it calls asked.
type backend struct {
	infer.Backend
	digest string
	asked  func()
	say    []infer.Chunk
	err    error
	boom   bool
}

func (b *backend) Info() infer.Info { return infer.Info{Digest: b.digest} }

func (b *backend) Generate(ctx context.Context, _ infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		b.asked()
		for _, c := range b.say {
			if !yield(c, nil) {
				return
			}
		}
		if b.boom {
			panic("boom")
		}
		if err := ctx.Err(); err != nil {
			yield(infer.Chunk{}, &infer.Error{Kind: infer.KindCanceled, Err: err})
		} else if b.err != nil {
			yield(infer.Chunk{}, b.err)
		}
	}
}

func (b *backend) CountTokens(context.Context, infer.Request) (int, error) { return 7, nil }

// ids gives request ids in order.
func ids() func() string {
	n := 0
	return func() string {
		n++
		return fmt.Sprintf("r%d", n)
	}
}

// steps is a clock that goes on by a second at each look.
func steps() func() time.Time {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func recording(r loop.Record) loop.Recording {
	return loop.Recording{
		Record: r, Now: steps(), NewID: ids(),
		Scope: func(r infer.Request) event.Scope { return event.Scope{Tenant: r.KV.Salt} },
	}
}

func open(t *testing.T) (*ledger.Ledger, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ledger")
	l, err := ledger.Open(t.Context(), ledger.Options{Dir: dir, Now: steps()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l, dir
}

// requests are the events of requests, in order.
func requests(t *testing.T, l *ledger.Ledger) (all []event.Event, bodies []event.Body) {
	t.Helper()
	require.NoError(t, l.Events(t.Context(), ledger.Filter{Kind: "request."},
		func(e event.Event) error {
			b, err := e.Decode()
			all, bodies = append(all, e), append(bodies, b)
			return err
		}))
	return all, bodies
}

func pieces(final *infer.Final) []infer.Chunk {
	return []infer.Chunk{{Text: "a", Tokens: 1}, {Text: "b", Tokens: 2, Final: final}}
}

// ending is a way in which a request ends, and what is recorded of it.
type ending struct {
	b      backend
	leave  bool
	cancel bool
	want   event.Ended
}

func endings() map[string]ending {
	final := &infer.Final{
		Reason: infer.FinishTools, Usage: infer.Usage{PromptTokens: 40, CompletionTokens: 9},
	}
	ended := func(o event.Outcome, reason string, prompt, answer int64) event.Ended {
		return event.Ended{
			Request: "r1", Outcome: o, Reason: reason, PromptTokens: prompt,
			CompletionTokens: answer, DurationUs: 1e6,
		}
	}
	return map[string]ending{
		"done": {b: backend{say: pieces(final)}, want: ended(event.OutcomeDone, "tool_calls", 40, 9)},
		"fails": {
			b:    backend{say: pieces(nil), err: &infer.Error{Kind: infer.KindLost}},
			want: ended(event.OutcomeFailed, "engine-lost", 0, 3),
		},
		"refused": {
			b:    backend{err: &infer.Error{Kind: infer.KindTooLong}},
			want: ended(event.OutcomeFailed, "too-long", 0, 0),
		},
		"canceled": {
			b: backend{say: pieces(nil)}, cancel: true,
			want: ended(event.OutcomeCancelled, "canceled", 0, 3),
		},
		"left": {
			b: backend{say: pieces(final)}, leave: true,
			want: ended(event.OutcomeCancelled, "left", 0, 1),
		},
		"panics": {
			b: backend{say: pieces(nil), boom: true}, want: ended(event.OutcomeCancelled, "left", 0, 3),
		},
	}
}

// run lets a backend answer once and looks at the record at each border.
func (x *ending) run(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	x.b.digest = model.String()
	x.b.asked = func() {
		_, bodies := requests(t, l)
		require.Equal(t, []event.Body{
			event.Started{Request: "r1", Model: model, Profile: "general"},
		}, bodies, "recorded before the backend is asked")
	}
	b, err := loop.Recorded(&x.b, recording(l))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer func() { require.Equal(t, x.b.boom, recover() != nil) }()
	for c, err := range b.Generate(ctx, infer.Request{
		ID: "req_1", Prompt: secret, KV: infer.KVPolicy{Salt: "acme"},
	}) {
		if c.Final != nil || err != nil {
			_, bodies := requests(t, l)
			require.Len(t, bodies, 2, "recorded before the caller knows")
		}
		if x.leave {
			break
		}
		if x.cancel {
			cancel()
		}
	}
}

// Each way in which a request can end is recorded, behind its start.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	for name, x := range endings() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, dir := open(t)
			x.run(t, l)
			all, bodies := requests(t, l)
			require.Len(t, bodies, 2)
			require.Equal(t, x.want, bodies[1])
			for _, e := range all {
				require.Equal(t, "request/req_1", e.Stream)
				require.Equal(t, event.Scope{Tenant: "acme"}, e.Scope)
			}
			noFileHas(t, dir, secret)
		})
	}
}

// noFileHas wants a text in no file below a directory.
func noFileHas(t *testing.T, dir, text string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		require.False(t, bytes.Contains(data, []byte(text)), path)
		return err
	}))
}

// failing is a record that fails at the n-th append.
type failing struct {
	loop.Record
	at, n int
}

func (f *failing) Append(ctx context.Context, b ledger.Batch) (ledger.Appended, error) {
	if f.n++; f.n == f.at {
		return ledger.Appended{}, &ledger.Error{
			Op: "append", Kind: ledger.ErrUnavailable, Hint: "free some space",
			Err: errors.New("a path"),
		}
	}
	return f.Record.Append(ctx, b)
}

// L7: nothing is generated without its record.
func TestL7Unrecorded(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	inner := &backend{digest: model.String(), asked: func() { t.Error("it was asked") }}
	b, err := loop.Recorded(inner, recording(&failing{Record: l, at: 1}))
	require.NoError(t, err)
	chunks := 0
	for c, err := range b.Generate(t.Context(), infer.Request{Prompt: "x"}) {
		require.Empty(t, c)
		require.ErrorIs(t, err, infer.KindRecord)
		require.ErrorIs(t, err, ledger.ErrUnavailable)
		require.Equal(t, "free some space", infer.HintOf(err))
		chunks++
	}
	require.Equal(t, 1, chunks)

	// An end that cannot be recorded is named, and the answer is given all the same.
	inner.asked = func() {}
	inner.say = pieces(&infer.Final{Reason: infer.FinishStop, Notes: []string{"one"}})
	b, err = loop.Recorded(inner, recording(&failing{Record: l, at: 2}))
	require.NoError(t, err)
	var last infer.Chunk
	for c, err := range b.Generate(t.Context(), infer.Request{Prompt: "x"}) {
		require.NoError(t, err)
		last = c
	}
	require.Equal(t, []string{"one", "its end is not in the record"}, last.Final.Notes)
	require.Equal(t, []string{"one"}, inner.say[1].Final.Notes)

	inner.say, inner.err = nil, &infer.Error{Kind: infer.KindBusy, Hint: "later"}
	b, err = loop.Recorded(inner, recording(&failing{Record: l, at: 2}))
	require.NoError(t, err)
	for _, err := range b.Generate(t.Context(), infer.Request{Prompt: "x"}) {
		require.Equal(t, infer.KindBusy, infer.KindOf(err))
		require.Equal(t, "later", infer.HintOf(err))
		require.ErrorContains(t, err, "not in the record")
		require.NotContains(t, err.Error(), "a path")
	}
}

// stuck is a record whose disk does not answer.
type stuck struct{}

func (stuck) Append(ctx context.Context, _ ledger.Batch) (ledger.Appended, error) {
	<-ctx.Done()
	return ledger.Appended{}, &ledger.Error{Op: "append", Kind: ledger.ErrPending, Err: ctx.Err()}
}

// L9: a record that is slow ends a request at its deadline, or with its caller.
func TestL9SlowRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := &backend{digest: model.String(), asked: func() { t.Error("it was asked") }}
		b, err := loop.Recorded(inner, recording(stuck{}))
		require.NoError(t, err)
		r := infer.Request{Prompt: "x", Deadline: time.Now().Add(time.Minute)}
		for _, err := range b.Generate(t.Context(), r) {
			require.Equal(t, infer.KindDeadline, infer.KindOf(err))
		}
		require.Equal(t, r.Deadline, time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		for _, err := range b.Generate(ctx, infer.Request{Prompt: "x"}) {
			require.Equal(t, infer.KindCanceled, infer.KindOf(err))
		}
	})
}

// Requests without an id, or with one that is no name, have streams of their own.
func TestStreams(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	inner := &backend{
		digest: model.String(), asked: func() {}, say: pieces(&infer.Final{Reason: "stop"}),
	}
	b, err := loop.Recorded(inner, recording(l))
	require.NoError(t, err)
	for _, id := range []string{"", "two words", "a", "a"} {
		for _, err := range b.Generate(t.Context(), infer.Request{ID: id, Prompt: "x"}) {
			require.NoError(t, err)
		}
	}
	all, bodies := requests(t, l)
	var streams, starts []string
	for i, e := range all {
		if s, ok := bodies[i].(event.Started); ok {
			streams, starts = append(streams, e.Stream), append(starts, s.Request)
		}
	}
	require.Equal(t, []string{"request/r1", "request/r2", "request/a", "request/a"}, streams)
	require.Equal(t, []string{"r1", "r2", "r3", "r4"}, starts)
}

// What a backend can do besides stays within reach, and a model without a digest is refused.
func TestRecorded(t *testing.T) {
	t.Parallel()
	l, _ := open(t)
	b, err := loop.Recorded(&backend{digest: model.String()}, recording(l))
	require.NoError(t, err)
	n, err := b.(infer.Counter).CountTokens(t.Context(), infer.Request{})
	require.NoError(t, err)
	require.Equal(t, 7, n)
	_, err = b.(infer.Detokenizer).Detokenize(t.Context(), nil)
	require.ErrorIs(t, err, infer.KindUnsupported)
	for _, digest := range []string{"", "sha256:00", "x"} {
		_, err := loop.Recorded(&backend{digest: digest}, recording(l))
		require.ErrorIs(t, err, infer.KindInvalid, digest)
		require.NotEmpty(t, infer.HintOf(err))
	}
	_, err = loop.Recorded(&backend{digest: model.String()}, loop.Recording{})
	require.ErrorIs(t, err, infer.KindInvalid)
}
