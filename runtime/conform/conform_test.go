package conform_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/conform"
	"github.com/norion/norion/runtime/conform/conformtest"
	"github.com/norion/norion/runtime/infer"
)

// named are the checks of a report that ended in one way.
func named(r conform.Report, o conform.Outcome) (out []string) {
	for _, x := range r.Results {
		if x.Outcome == o {
			out = append(out, x.Check)
		}
	}
	return out
}

func TestConforms(t *testing.T) {
	t.Parallel()
	r := conform.Test(t, conformtest.New(), conform.Options{})
	require.True(t, r.Passed())
	require.Empty(t, named(r, conform.Skipped))
}

// TestBroken breaks one promise at a time. The suite must name the check, and no other; and there
// must be no check that nothing breaks.
func TestBroken(t *testing.T) {
	t.Parallel()
	all, err := conform.Run(t.Context(), conformtest.New(), conform.Options{})
	require.NoError(t, err)
	untried := map[string]bool{}
	for _, x := range all.Results {
		untried[x.Check] = true
	}
	for name, c := range broken {
		for _, w := range c.want {
			delete(untried, w)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := conformtest.New()
			c.breaks(f)
			r, err := conform.Run(t.Context(), f, conform.Options{})
			require.NoError(t, err)
			require.Equal(t, c.want, named(r, conform.Failed), "%v", r.Failures())
			require.False(t, r.Passed())
		})
	}
	require.Empty(t, untried)
}

// TestSkipped takes abilities away. What is declared is skipped, not failed.
func TestSkipped(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		takes func(*infer.Info)
		want  []string
	}{
		"tools": {func(i *infer.Info) { i.Abilities.Tools = false }, []string{"tools"}},
		"chat": {
			func(i *infer.Info) { i.Abilities.Chat, i.Abilities.Tools = false, false },
			[]string{"chat", "tools"},
		},
		"grammar": {func(i *infer.Info) { i.Abilities.Grammar = false }, []string{"schema"}},
		"score":   {func(i *infer.Info) { i.Abilities.Score = false }, []string{"score"}},
		"embed":   {func(i *infer.Info) { i.Abilities.Embed = false }, []string{"embeddings"}},
		"context": {func(i *infer.Info) { i.ContextTokens = 0 }, []string{"too long"}},
		"logprobs": {
			func(i *infer.Info) { i.Architecture = "no logprobs" }, []string{"logprobs", "score"},
		},
		"no reuse": {func(i *infer.Info) { i.Architecture = "reuses" }, nil},
		"deterministic": {
			func(i *infer.Info) { i.Architecture = "no determinism" }, nil,
		},
		"all but embeddings": {
			func(i *infer.Info) { i.Abilities = infer.Abilities{Embed: true} },
			[]string{
				"usage adds up", "streamed text is the whole text", "max_tokens", "stop texts",
				"greedy is deterministic", "a seed repeats an answer", "leaving the loop", "cancel",
				"deadline", "too long", "logprobs", "score", "count tokens", "chat", "schema", "tools",
				"requests at once",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := conformtest.New()
			c.takes(&f.About)
			r, err := conform.Run(t.Context(), f, conform.Options{})
			require.NoError(t, err)
			require.Empty(t, r.Failures())
			require.True(t, r.Passed())
			require.Equal(t, c.want, named(r, conform.Skipped))
		})
	}
}

// TestHangs gives up a backend that does not answer and does not run the checks behind.
func TestHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		f := conformtest.New()
		f.Embedded = func([][]float32) { <-forever }
		r, err := conform.Run(t.Context(), f, conform.Options{CheckTime: time.Minute})
		require.NoError(t, err)
		failed := r.Failures()
		require.Equal(t, "embeddings", failed[0].Check)
		require.Contains(t, failed[0].Why, "did not end")
		require.Contains(t, failed[1].Why, `not run: "embeddings"`)
		require.Len(t, failed, 7)
		close(forever)
	})
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := conformtest.New()
	f.Tokenized = func(all []infer.Token) []infer.Token { cancel(); return all }
	r, err := conform.Run(ctx, f, conform.Options{})
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, r.Passed(), "a part is no pass")
}

func ExampleRun() {
	report, err := conform.Run(context.Background(), conformtest.New(), conform.Options{})
	fmt.Println(report.Passed(), err)
	// Output: true <nil>
}
