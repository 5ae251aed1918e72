package conform_test

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// broken are backends that break one promise each, and the checks that must find it.
var broken = map[string]struct {
	breaks func(*fake)
	want   []string
}{
	"no model":  {func(f *fake) { f.info.Model = "" }, []string{"info"}},
	"no engine": {func(f *fake) { f.info.Engine = "" }, []string{"info"}},
	"tools without chat": {
		func(f *fake) {
			f.info.Abilities.Chat = false
			f.before = func(r *infer.Request) { r.Tools = nil }
		},
		[]string{"info", "tools"},
	},
	"negative": {func(f *fake) { f.info.Parameters = -1 }, []string{"info"}},
	"usage of one more": {
		func(f *fake) { f.end = func(x *infer.Final) { x.Usage.CompletionTokens++ } },
		[]string{"usage adds up"},
	},
	"more cached than there is": {
		func(f *fake) { f.end = func(x *infer.Final) { x.Usage.Cached.RAM = 1 << 20 } },
		[]string{"usage adds up"},
	},
	"a lost piece": {
		func(f *fake) {
			n := 0
			f.change = func(c *infer.Chunk) {
				if n++; n%7 == 3 && c.Final == nil && len(c.Logprobs) == 0 {
					c.Text = ""
				}
			}
		},
		[]string{
			"streamed text is the whole text", "stop texts", "greedy is deterministic",
			"a seed repeats an answer", "chat", "schema", "requests at once",
		},
	},
	"another whole": {
		func(f *fake) { f.end = func(x *infer.Final) { x.Answer.Content += "!" } },
		[]string{"streamed text is the whole text", "chat"},
	},
	"another role": {
		func(f *fake) { f.end = func(x *infer.Final) { x.Answer.Role = infer.RoleUser } },
		[]string{"streamed text is the whole text"},
	},
	"max_tokens ignored": {
		func(f *fake) { f.before = func(r *infer.Request) { r.MaxTokens += 3 } },
		[]string{"max_tokens"},
	},
	"another reason": {
		func(f *fake) { f.end = endsWith("eos") },
		[]string{"max_tokens"},
	},
	"stop texts ignored": {
		func(f *fake) { f.before = func(r *infer.Request) { r.Stop = nil } },
		[]string{"stop texts"},
	},
	"stops and says length": {
		func(f *fake) {
			f.end = func(x *infer.Final) {
				if x.Stop != "" {
					x.Reason = infer.FinishLength
				}
			}
		},
		[]string{"stop texts"},
	},
	"greedy is not": {
		func(f *fake) {
			f.before = func(r *infer.Request) {
				n := uint32(f.runs.Add(1))
				if r.Sampling.Temperature == 0 && r.MaxTokens == 16 && !r.Logprobs &&
					len(r.Stop) == 0 && !r.KV.Deterministic {
					r.Sampling.Temperature, r.Sampling.Seed = 1, n
				}
			}
		},
		[]string{"stop texts", "greedy is deterministic"},
	},
	"seeds ignored": {
		func(f *fake) {
			f.before = func(r *infer.Request) {
				if r.Sampling.Temperature > 0 {
					r.Sampling.Seed = uint32(f.runs.Add(1))
				}
			}
		},
		[]string{"a seed repeats an answer"},
	},
	"temperature ignored": {
		func(f *fake) { f.before = func(r *infer.Request) { r.Sampling.Temperature = 0 } },
		[]string{"a seed repeats an answer"},
	},
	"cancel ignored": {
		func(f *fake) { f.deaf = true },
		[]string{"cancel", "close while running"},
	},
	"cancel of another kind": {
		func(f *fake) { f.err = kindFor(infer.KindCanceled, infer.KindInternal) },
		[]string{"cancel"},
	},
	"deadline ignored": {
		func(f *fake) { f.before = func(r *infer.Request) { r.Deadline = time.Time{} } },
		[]string{"deadline"},
	},
	"too long is internal": {
		func(f *fake) { f.err = kindFor(infer.KindTooLong, infer.KindInternal) },
		[]string{"too long"},
	},
	"errors without a field": {
		func(f *fake) {
			f.err = func(err error) error {
				if e, ok := errors.AsType[*infer.Error](err); ok && e.Kind == infer.KindInvalid {
					return &infer.Error{Kind: e.Kind}
				}
				return err
			}
		},
		[]string{"bad fields"},
	},
	"errors without a type": {
		func(f *fake) { f.err = func(error) error { return errors.New("no") } },
		[]string{
			"cancel", "deadline", "too long", "bad fields", "close while running", "closed",
		},
	},
	"positive log-probabilities": {
		func(f *fake) { f.change = eachLogprob(func(l *infer.Logprob) { l.Logprob *= -1 }) },
		[]string{"logprobs", "score"},
	},
	"log-probabilities of nothing": {
		func(f *fake) {
			f.change = eachLogprob(func(l *infer.Logprob) { l.Logprob = float32(math.NaN()) })
		},
		[]string{"logprobs", "score"},
	},
	"alternatives out of order": {
		func(f *fake) { f.change = eachLogprob(func(l *infer.Logprob) { slices.Reverse(l.Top) }) },
		[]string{"logprobs"},
	},
	"logits for log-probabilities": {
		func(f *fake) {
			f.change = eachLogprob(func(l *infer.Logprob) {
				for i := range l.Top {
					l.Top[i].Logprob = 0
				}
			})
		},
		[]string{"logprobs"},
	},
	"log-probabilities left out": {
		func(f *fake) { f.change = func(c *infer.Chunk) { c.Logprobs = nil } },
		[]string{"logprobs", "score"},
	},
	"scores of another model": {
		func(f *fake) {
			f.score = func(s *infer.Scores) {
				for i := range s.Tokens {
					s.Tokens[i].Logprob--
					s.Sum--
				}
			}
		},
		[]string{"score"},
	},
	"a sum of something else": {
		func(f *fake) { f.score = func(s *infer.Scores) { s.Sum-- } }, []string{"score"},
	},
	"tokens that do not spell": {
		func(f *fake) { f.tokens = func(t []infer.Token) []infer.Token { return t[1:] } },
		[]string{"tokenize"},
	},
	"tokens outside the vocabulary": {
		func(f *fake) { f.info.Vocabulary = 64 }, []string{"tokenize"},
	},
	"miscounted": {func(f *fake) { f.count = 1 }, []string{"count tokens"}},
	"vectors without an end": {
		func(f *fake) { f.embed = eachValue(func(float32) float32 { return float32(math.NaN()) }) },
		[]string{"embeddings"},
	},
	"long vectors": {
		func(f *fake) { f.embed = eachValue(func(x float32) float32 { return 2 * x }) },
		[]string{"embeddings"},
	},
	"one vector for all": {
		func(f *fake) { f.embed = func(all [][]float32) { all[1] = all[0]; all[2] = all[0] } },
		[]string{"embeddings"},
	},
	"short vectors": {
		func(f *fake) { f.info.EmbeddingSize = 5 }, []string{"embeddings"},
	},
	"chat refused though declared": {
		func(f *fake) {
			f.before = func(r *infer.Request) {
				if len(r.Messages) > 0 && len(r.Tools) == 0 && len(r.Constraint.Schema) == 0 {
					r.Messages, r.Prompt = nil, string(make([]byte, 2000))
				}
			}
		},
		[]string{"chat"},
	},
	"schema ignored": {
		func(f *fake) { f.before = func(r *infer.Request) { r.Constraint.Schema = nil } },
		[]string{"schema"},
	},
	"tools ignored": {
		func(f *fake) { f.before = func(r *infer.Request) { r.Tools = nil } },
		[]string{"tools"},
	},
	"tools not declared and taken": {
		func(f *fake) {
			f.info.Abilities.Tools = false
			f.before = func(r *infer.Request) { r.Tools = nil }
		},
		[]string{"tools"},
	},
	"others change an answer": {
		func(f *fake) {
			f.before = func(r *infer.Request) {
				if r.KV.Deterministic {
					r.Sampling.Temperature, r.Sampling.Seed = 2, uint32(f.runs.Add(1))
				}
			}
		},
		[]string{"requests at once"},
	},
	"close fails": {
		func(f *fake) {
			f.closed = func(f *fake) error {
				if f.open() != nil {
					return f.open()
				}
				close(f.gone())
				return nil
			}
		},
		[]string{"closed"},
	},
	"close does nothing": {
		func(f *fake) { f.closed = func(*fake) error { return nil } },
		[]string{"close while running", "closed"},
	},
	"loops keep their sequence": {
		func(f *fake) { f.keeps = true },
		[]string{
			"leaving the loop", "cancel", "deadline", "too long", "logprobs", "score",
			"count tokens", "chat", "schema", "tools", "requests at once", "close while running",
		},
	},
	"panics": {
		func(f *fake) { f.embed = func([][]float32) { panic("out of vectors") } },
		[]string{"embeddings"},
	},
}

func endsWith(reason infer.Finish) func(*infer.Final) {
	return func(f *infer.Final) {
		if f.Reason == infer.FinishLength {
			f.Reason = reason
		}
	}
}

// kindFor replaces a kind of error.
func kindFor(from, to infer.Kind) func(error) error {
	return func(err error) error {
		if infer.KindOf(err) == from {
			return &infer.Error{Kind: to}
		}
		return err
	}
}

func eachLogprob(change func(*infer.Logprob)) func(*infer.Chunk) {
	return func(c *infer.Chunk) {
		for i := range c.Logprobs {
			change(&c.Logprobs[i])
		}
	}
}

func eachValue(change func(float32) float32) func([][]float32) {
	return func(all [][]float32) {
		for _, v := range all {
			for i := range v {
				v[i] = change(v[i])
			}
		}
	}
}
