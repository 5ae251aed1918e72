package event_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/control/event"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

var (
	digest = event.DigestOf([]byte("x"))
	sig    = strings.Repeat("A", 86) + "=="
	scope  = event.Scope{Tenant: "acme", Workspace: "lab", Session: "s1"}
)

// bodies has one body of each kind.
func bodies() map[event.Kind]event.Body {
	effect := event.Effect{
		Stream: "gene/coding", Kind: event.SensorCrossed, Schema: 1,
		Body: []byte(`{"above":true,"bound_milli":1,"sensor":"rss","value_milli":2}`),
	}
	all := []event.Body{
		event.Created{Ledger: strings.Repeat("0f", 16), LogKey: "norion+0f0f0f0f+AQ==", Format: 1},
		event.Recovered{From: 5, To: 9},
		event.Migrated{From: 1, To: 2, Backup: digest},
		event.Forgotten{Payload: digest, Reason: "operator"},
		event.Started{Request: "r1", Model: digest, Profile: "general"},
		event.Ended{
			Request: "r1", Outcome: event.OutcomeDone, Reason: "stop", PromptTokens: 7,
			CompletionTokens: 9, DurationUs: 1_500_000,
		},
		event.Verified{Request: "r1", Verifier: "json-schema", Verdict: event.VerdictPass},
		event.Crossed{Sensor: "rss", Above: true, ValueMilli: 812, BoundMilli: -800},
		event.Proposed{
			Proposal: "p1", Class: "gene.edit", Subject: "gene/coding", Baseline: digest,
			Candidate: digest, Effects: []event.Effect{effect}, Generation: 3, Rollback: 2,
			Risk: event.RiskLow, ExpiresUs: 1,
		},
		event.Issued{
			Receipt: digest, Proposal: "p1", Executor: "replay", Statement: []byte(`{"a":1}`),
			Signature: sig,
		},
		event.Decided{
			Proposal: "p1", Candidate: digest, Decision: event.Hold, Policy: digest, Facts: digest,
			Receipts: []event.Digest{digest}, Missing: []string{"privacy-scan"}, False: []string{},
			AtUs: 1,
		},
		event.Leased{Lease: "l1", Proposal: "p1", Candidate: digest, Generation: 3, ExpiresUs: 2},
		event.Applied{Proposal: "p1", Lease: "l1", Candidate: digest, Generation: 4},
		event.Undone{Proposal: "p1", Reason: "read-back", Generation: 5, Restored: 3},
		event.Policy{
			Policy: digest, Replaces: digest, Rules: []byte(`{"b":[1,2]}`), Operator: "op+1+AQ==",
			Signature: sig,
		},
		event.Operator{Key: "op+1+AQ=="},
	}
	m := map[event.Kind]event.Body{}
	for _, b := range all {
		m[b.Kind()] = b
	}
	return m
}

// made is an event with all that a record adds.
func made(t *testing.T, b event.Body) event.Event {
	t.Helper()
	e, err := event.New(event.Draft{
		Scope: scope, Stream: "gene/coding", Actor: "operator", Payload: digest, Body: b,
	})
	require.NoError(t, err)
	e.Seq, e.Version, e.Key = 42, 7, "key-1"
	e.Time = time.Date(2026, 11, 26, 1, 2, 3, 456789000, time.UTC)
	return e
}

// Every kind has a golden file, and reads back as the same body.
func TestGolden(t *testing.T) {
	t.Parallel()
	all := bodies()
	require.Len(t, all, len(event.Kinds()))
	for _, kind := range event.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			e := made(t, all[kind])
			data := e.AppendCanonical(nil)
			file := filepath.Join("testdata", string(kind)+".json")
			if *rewrite {
				require.NoError(t, os.WriteFile(file, append(data, '\n'), 0o600))
			}
			golden, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(golden), string(data)+"\n")
			canonical, err := event.Canonical(data)
			require.NoError(t, err)
			require.Equal(t, string(canonical), string(data), "the envelope is canonical, too")
			back, err := event.Parse(data)
			require.NoError(t, err)
			require.Equal(t, e, back)
			body, err := back.Decode()
			require.NoError(t, err)
			require.Equal(t, all[kind], body)
		})
	}
}

func TestUnknownIsKept(t *testing.T) {
	t.Parallel()
	for _, u := range []event.Unknown{
		{Name: "gene.dreamt", Schema: 1, Raw: []byte(`{"deep":{"er":[1,2.5,"x"]}}`)},
		{Name: event.RequestEnded, Schema: 2, Raw: []byte(`{"other":true}`)},
	} {
		e := made(t, u)
		require.Equal(t, u.Schema, e.Schema)
		back, err := event.Parse(e.AppendCanonical(nil))
		require.NoError(t, err)
		body, err := back.Decode()
		require.NoError(t, err)
		require.Equal(t, u, body)
	}
	_, err := event.New(event.Draft{Stream: "s", Actor: "a", Body: event.Unknown{
		Name: event.RequestEnded, Schema: 1, Raw: []byte(`{}`),
	}})
	require.ErrorIs(t, err, event.ErrInvalid, "a known kind does not come as unknown")
}

// RFC 8785, section 3.2.2 and appendix B, and what is refused.
func TestCanonical(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{`{"b":1,"a":2}`, `{"a":2,"b":1}`},
		{` { "a" : [ 1 , true , null ] } `, `{"a":[1,true,null]}`},
		{
			`{"\u20ac":"Euro","\r":"CR","\ufb33":"D","1":"One","\ud83d\ude00":"S","\u0080":"C","ö":"o"}`,
			"{\"\\r\":\"CR\",\"1\":\"One\",\"\u0080\":\"C\",\"ö\":\"o\",\"€\":\"Euro\"," +
				"\"😀\":\"S\",\"\ufb33\":\"D\"}",
		},
		{
			`{"n":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001,-0.0]}`,
			`{"n":[333333333.3333333,1e+30,4.5,0.002,1e-27,0]}`,
		},
		{`{"s":"\u0001\u000f\n\"\\\/\u20ac$"}`, "{\"s\":\"\\u0001\\u000f\\n\\\"\\\\/€$\"}"},
		{`{"n":9007199254740991}`, `{"n":9007199254740991}`},
	} {
		got, err := event.Canonical([]byte(tt.in))
		require.NoError(t, err, tt.in)
		require.Equal(t, tt.want, string(got))
	}
	for _, bad := range []string{
		``, `1`, `[]`, `{`, `{"a":1}{}`, `{"a":1} x`, `{"a":1,"a":2}`, `{"a":9007199254740992}`,
		`{"a":-99999999999999999999}`, `{"a":1e20}`, `{"a":9007199254740992.0}`,
		`{"a":-1e400}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":01}`, `{"a":NaN}`,
		strings.Repeat(`{"a":`, 17) + `1` + strings.Repeat(`}`, 17),
	} {
		_, err := event.Canonical([]byte(bad))
		require.ErrorIs(t, err, event.ErrCanonical, bad)
	}
	_, err := event.Canonical([]byte(strings.Repeat(`{"a":`, 16) + `1` + strings.Repeat(`}`, 16)))
	require.NoError(t, err)
}

func TestBounds(t *testing.T) {
	t.Parallel()
	at := func(n int) []byte {
		return []byte(`{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}`)
	}
	_, err := event.Canonical(at(event.BodyBytesMax))
	require.NoError(t, err)
	_, err = event.Canonical(at(event.BodyBytesMax + 1))
	require.ErrorIs(t, err, event.ErrTooLarge)

	good := event.Draft{Stream: "s", Actor: "a", Body: event.Crossed{Sensor: "x"}}
	for field, change := range map[string]func(*event.Draft){
		"stream":          func(d *event.Draft) { d.Stream = strings.Repeat("s", 129) },
		"actor":           func(d *event.Draft) { d.Actor = "" },
		"scope.tenant":    func(d *event.Draft) { d.Scope.Tenant = "a\nb" },
		"scope.workspace": func(d *event.Draft) { d.Scope.Workspace = strings.Repeat("w", 65) },
		"scope.session":   func(d *event.Draft) { d.Scope.Session = `"` },
		"body":            func(d *event.Draft) { d.Body = nil },
		"sensor":          func(d *event.Draft) { d.Body = event.Crossed{Sensor: "<b>"} },
		"value_milli": func(d *event.Draft) {
			d.Body = event.Crossed{Sensor: "x", ValueMilli: 1 << 53}
		},
	} {
		d := good
		change(&d)
		_, err := event.New(d)
		require.ErrorIs(t, err, event.ErrInvalid, field)
		require.Contains(t, err.Error(), field)
	}
	require.NoError(t, event.CheckKey(strings.Repeat("k", 128)))
	require.ErrorIs(t, event.CheckKey(strings.Repeat("k", 129)), event.ErrInvalid)
}

// Only one spelling of an event is one.
func TestParseIsStrict(t *testing.T) {
	t.Parallel()
	e := made(t, event.Crossed{Sensor: "rss"})
	good := string(e.AppendCanonical(nil))
	for _, bad := range []string{
		good + "\n", " " + good, strings.Replace(good, `"seq":42`, `"seq":42.0`, 1),
		strings.Replace(good, `"rss"`, `"\u0072ss"`, 1),
		strings.Replace(good, `"version":7`, `"version":7,"x":1`, 1),
		strings.Replace(good, digest.String(), strings.ToUpper(digest.String()), 1),
		strings.Replace(good, `"schema":1`, `"schema":0`, 1),
		strings.Replace(good, `"actor":"operator"`, `"actor":""`, 1),
	} {
		_, err := event.Parse([]byte(bad))
		require.Error(t, err, bad)
	}
}

// Canonicalization is idempotent and changes no value.
func TestCanonicalProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := map[string]any{}
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			v[rapid.String().Draw(t, "key")] = rapid.OneOf(
				rapid.Map(rapid.Float64(), func(f float64) any { return f }),
				rapid.Map(rapid.String(), func(s string) any { return s }),
				rapid.Map(rapid.Bool(), func(b bool) any { return b }),
			).Draw(t, "value")
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		once, err := event.Canonical(data)
		if err != nil {
			t.Skip(err)
		}
		twice, err := event.Canonical(once)
		require.NoError(t, err)
		require.Equal(t, string(once), string(twice))
		var back map[string]any
		require.NoError(t, json.Unmarshal(once, &back))
		again, err := json.Marshal(back)
		require.NoError(t, err)
		require.JSONEq(t, string(data), string(again))
	})
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(f, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add([]byte(strings.TrimSpace(string(data))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := event.Parse(data)
		if err != nil {
			return
		}
		require.Equal(t, string(data), string(e.AppendCanonical(nil)))
		if b, err := e.Decode(); err == nil {
			require.Equal(t, e.Kind, b.Kind())
		}
	})
}

func FuzzCanonical(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.50,"x"],"\u20ac":null}`))
	f.Add([]byte(`{"a":[1e20,1e21,-9007199254740991.0,1e300]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := event.Canonical(data)
		if err != nil {
			return
		}
		require.True(t, json.Valid(once))
		twice, err := event.Canonical(once)
		require.NoError(t, err)
		require.Equal(t, string(once), string(twice))
	})
}

func TestChanges(t *testing.T) {
	t.Parallel()
	var changes []event.Kind
	for _, k := range event.Kinds() {
		if k.Change() {
			changes = append(changes, k)
		}
	}
	require.Equal(t, []event.Kind{
		event.LedgerMigrated, event.PayloadForgotten, event.ChangeApplied, event.ChangeUndone,
		event.PolicySet, event.OperatorEnrolled,
	}, changes)
	require.False(t, event.Kind("newer").Change())
}
