package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger"
)

// A server records what it is asked, by tenant, in a record that is locked and can be read
// meanwhile.
func TestServeRecords(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	var out bytes.Buffer
	require.Zero(t, newApp(home, &out, io.Discard).main(t.Context(),
		[]string{"keys", "create", "us", "--tenant", "a team of us"}))
	user := strings.TrimSpace(out.String())
	s := serveAt(t, home, nil, "--record", "--keys")
	code, text := s.ask(http.MethodPost, "/v1/completions", user, hello)
	require.Equal(t, http.StatusOK, code, text)

	o := ledger.Options{Dir: filepath.Join(home, ledgerDir), Now: time.Now}
	_, err := ledger.Open(t.Context(), o)
	require.ErrorIs(t, err, ledger.ErrLocked)
	r, err := ledger.OpenReader(t.Context(), o)
	require.NoError(t, err)
	report, err := r.Verify(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(3), report.Events)
	var bodies []event.Body
	require.NoError(t, r.Events(context.Background(), ledger.Filter{Kind: "request."},
		func(e event.Event) error {
			require.Len(t, e.Scope.Tenant, 64, "a digest in place of a name of any letters")
			require.Contains(t, e.Stream, "request/req_")
			b, err := e.Decode()
			bodies = append(bodies, b)
			return err
		}))
	require.NoError(t, r.Close())
	started, ok := bodies[0].(event.Started)
	require.True(t, ok)
	require.False(t, started.Model.IsZero())
	ended, ok := bodies[1].(event.Ended)
	require.True(t, ok)
	require.Equal(t, started.Request, ended.Request)
	require.Equal(t, event.OutcomeDone, ended.Outcome)
	require.Positive(t, ended.CompletionTokens)
	s.end()
	l, err := ledger.Open(t.Context(), o)
	require.NoError(t, err, "the server gave it up")
	require.NoError(t, l.Close())
}
