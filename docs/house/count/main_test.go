package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func events(t *testing.T, list ...event) string {
	t.Helper()
	var b strings.Builder
	for _, e := range list {
		line, err := json.Marshal(e)
		require.NoError(t, err)
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func TestCount(t *testing.T) {
	t.Parallel()
	for _, tt := range countCases() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			c := newCounter(&out)
			require.NoError(t, c.read(strings.NewReader(events(t, tt.events...))))
			err := c.finish()
			require.Equal(t, tt.fails, err != nil, "%v", err)
			lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
			require.Equal(t, tt.want, lines[len(lines)-1])
			require.Contains(t, out.String(), tt.shows)
		})
	}
}

type countCase struct {
	name   string
	events []event
	want   string // last line
	shows  string
	fails  bool
}

func countCases() []countCase {
	result := func(action, test string) event {
		return event{Action: action, Package: "p", Test: test}
	}
	return []countCase{
		{
			name:   "pass and skip",
			events: []event{result("pass", "TestA"), result("skip", "TestB"), result("pass", "")},
			want:   "1 passed, 0 failed, 1 skipped",
		},
		{
			name: "parents do not count",
			events: []event{
				result("pass", "TestA/x"), result("fail", "TestA/y"), result("fail", "TestA"),
				result("fail", ""),
			},
			want: "1 passed, 1 failed, 0 skipped", fails: true,
		},
		{
			name: "a parent that fails by itself counts",
			events: []event{
				result("pass", "TestA/x"), result("fail", "TestA"), result("fail", ""),
			},
			want: "1 passed, 1 failed, 0 skipped", fails: true,
		},
		{
			name: "output of a failure is shown in full",
			events: []event{
				{Action: "output", Package: "p", Test: "TestA", Output: "the reason\n"},
				result("fail", "TestA"), result("fail", ""),
			},
			want: "0 passed, 1 failed, 0 skipped", shows: "the reason", fails: true,
		},
		{
			name: "a package that does not build",
			events: []event{
				{Action: "build-output", Output: "syntax error\n"}, result("fail", ""),
			},
			want: "0 passed, 1 failed, 0 skipped", shows: "syntax error", fails: true,
		},
		{
			name: "a process that dies shows what was running",
			events: []event{
				result("pass", "TestA"),
				{Action: "output", Package: "p", Test: "TestB", Output: "half\n"},
				{Action: "output", Package: "p", Output: "signal: killed\n"},
				result("fail", ""),
			},
			want: "1 passed, 1 failed, 0 skipped", shows: "half\nsignal: killed", fails: true,
		},
		{name: "nothing ran", want: "0 passed, 0 failed, 0 skipped", fails: true},
		{
			name:   "only skipped",
			events: []event{result("skip", "TestA"), result("pass", "")},
			want:   "0 passed, 0 failed, 1 skipped", fails: true,
		},
	}
}

func TestRunCountsACommandThatFails(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := newCounter(&out)
	_ = c.run(t.Context(), "go test -nosuchflag .") // told by an event or by the exit code
	require.Error(t, c.finish())
	require.Contains(t, out.String(), "0 passed, 1 failed, 0 skipped")
	require.Error(t, c.run(t.Context(), "rm x"))
}

func TestClip(t *testing.T) {
	t.Parallel()
	require.Len(t, clip(strings.Repeat("x", outputBytesMax)), outputBytesMax)
	long := clip(strings.Repeat("x", outputBytesMax) + "end")
	require.LessOrEqual(t, len(long), outputBytesMax)
	require.True(t, strings.HasSuffix(long, "end"))
}
