package conform_test

import (
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/norion/norion/runtime/conform/conformtest"
	"github.com/norion/norion/runtime/infer"
)

// broken are backends that break one promise each, and the checks that must find it.
var broken = map[string]struct {
	breaks func(*conformtest.Model)
	want   []string
}{
	"no model":  {func(f *conformtest.Model) { f.About.Model = "" }, []string{"info"}},
	"no engine": {func(f *conformtest.Model) { f.About.Engine = "" }, []string{"info"}},
	"tools without chat": {
		func(f *conformtest.Model) {
			f.About.Abilities.Chat = false
			f.Before = func(r *infer.Request) { r.Tools = nil }
		},
		[]string{"info", "tools"},
	},
	"negative": {func(f *conformtest.Model) { f.About.Parameters = -1 }, []string{"info"}},
	"usage of one more": {
		func(f *conformtest.Model) { f.End = func(x *infer.Final) { x.Usage.CompletionTokens++ } },
		[]string{"usage adds up"},
	},
	"more cached than there is": {
		func(f *conformtest.Model) { f.End = func(x *infer.Final) { x.Usage.Cached.RAM = 1 << 20 } },
		[]string{"usage adds up"},
	},
	"a lost piece": {
		func(f *conformtest.Model) {
			var n atomic.Int64 // requests run at once
			f.Change = func(c *infer.Chunk) {
				if n.Add(1)%7 == 3 && c.Final == nil && len(c.Logprobs) == 0 {
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
		func(f *conformtest.Model) { f.End = func(x *infer.Final) { x.Answer.Content += "!" } },
		[]string{"streamed text is the whole text", "chat"},
	},
	"another role": {
		func(f *conformtest.Model) { f.End = func(x *infer.Final) { x.Answer.Role = infer.RoleUser } },
		[]string{"streamed text is the whole text"},
	},
	"max_tokens ignored": {
		func(f *conformtest.Model) { f.Before = func(r *infer.Request) { r.MaxTokens += 3 } },
		[]string{"max_tokens"},
	},
	"another reason": {
		func(f *conformtest.Model) { f.End = endsWith("eos") },
		[]string{"max_tokens"},
	},
	"stop texts ignored": {
		func(f *conformtest.Model) { f.Before = func(r *infer.Request) { r.Stop = nil } },
		[]string{"stop texts"},
	},
	"stops and says length": {
		func(f *conformtest.Model) {
			f.End = func(x *infer.Final) {
				if x.Stop != "" {
					x.Reason = infer.FinishLength
				}
			}
		},
		[]string{"stop texts"},
	},
	"greedy is not": {
		func(f *conformtest.Model) {
			f.Before = func(r *infer.Request) {
				n := uint32(f.Runs.Add(1))
				if r.Sampling.Temperature == 0 && r.MaxTokens == 16 && !r.Logprobs &&
					len(r.Stop) == 0 && !r.KV.Deterministic {
					r.Sampling.Temperature, r.Sampling.Seed = 1, n
				}
			}
		},
		[]string{"stop texts", "greedy is deterministic"},
	},
	"seeds ignored": {
		func(f *conformtest.Model) {
			f.Before = func(r *infer.Request) {
				if r.Sampling.Temperature > 0 {
					r.Sampling.Seed = uint32(f.Runs.Add(1))
				}
			}
		},
		[]string{"a seed repeats an answer"},
	},
	"temperature ignored": {
		func(f *conformtest.Model) { f.Before = func(r *infer.Request) { r.Sampling.Temperature = 0 } },
		[]string{"a seed repeats an answer"},
	},
	"cancel ignored": {
		func(f *conformtest.Model) { f.Deaf = true },
		[]string{"cancel", "close while running"},
	},
	"cancel of another kind": {
		func(f *conformtest.Model) { f.Err = kindFor(infer.KindCanceled, infer.KindInternal) },
		[]string{"cancel"},
	},
	"deadline ignored": {
		func(f *conformtest.Model) { f.Before = func(r *infer.Request) { r.Deadline = time.Time{} } },
		[]string{"deadline"},
	},
	"too long is internal": {
		func(f *conformtest.Model) { f.Err = kindFor(infer.KindTooLong, infer.KindInternal) },
		[]string{"too long"},
	},
	"errors without a field": {
		func(f *conformtest.Model) {
			f.Err = func(err error) error {
				if e, ok := errors.AsType[*infer.Error](err); ok && e.Kind == infer.KindInvalid {
					return &infer.Error{Kind: e.Kind}
				}
				return err
			}
		},
		[]string{"bad fields"},
	},
	"errors without a type": {
		func(f *conformtest.Model) { f.Err = func(error) error { return errors.New("no") } },
		[]string{
			"cancel", "deadline", "too long", "bad fields", "close while running", "closed",
		},
	},
	"positive log-probabilities": {
		func(f *conformtest.Model) { f.Change = eachLogprob(func(l *infer.Logprob) { l.Logprob *= -1 }) },
		[]string{"logprobs", "score"},
	},
	"log-probabilities of nothing": {
		func(f *conformtest.Model) {
			f.Change = eachLogprob(func(l *infer.Logprob) { l.Logprob = float32(math.NaN()) })
		},
		[]string{"logprobs", "score"},
	},
	"alternatives out of order": {
		func(f *conformtest.Model) {
			f.Change = eachLogprob(func(l *infer.Logprob) { slices.Reverse(l.Top) })
		},
		[]string{"logprobs"},
	},
	"logits for log-probabilities": {
		func(f *conformtest.Model) {
			f.Change = eachLogprob(func(l *infer.Logprob) {
				for i := range l.Top {
					l.Top[i].Logprob = 0
				}
			})
		},
		[]string{"logprobs"},
	},
	"log-probabilities left out": {
		func(f *conformtest.Model) { f.Change = func(c *infer.Chunk) { c.Logprobs = nil } },
		[]string{"logprobs", "score"},
	},
	"scores of another model": {
		func(f *conformtest.Model) {
			f.Scored = func(s *infer.Scores) {
				for i := range s.Tokens {
					s.Tokens[i].Logprob--
					s.Sum--
				}
			}
		},
		[]string{"score"},
	},
	"a sum of something else": {
		func(f *conformtest.Model) { f.Scored = func(s *infer.Scores) { s.Sum-- } }, []string{"score"},
	},
	"tokens that do not spell": {
		func(f *conformtest.Model) { f.Tokenized = func(t []infer.Token) []infer.Token { return t[1:] } },
		[]string{"tokenize"},
	},
	"tokens outside the vocabulary": {
		func(f *conformtest.Model) { f.About.Vocabulary = 64 }, []string{"tokenize"},
	},
	"miscounted": {func(f *conformtest.Model) { f.Count = 1 }, []string{"count tokens"}},
	"vectors without an end": {
		func(f *conformtest.Model) {
			f.Embedded = eachValue(func(float32) float32 { return float32(math.NaN()) })
		},
		[]string{"embeddings"},
	},
	"long vectors": {
		func(f *conformtest.Model) { f.Embedded = eachValue(func(x float32) float32 { return 2 * x }) },
		[]string{"embeddings"},
	},
	"one vector for all": {
		func(f *conformtest.Model) {
			f.Embedded = func(all [][]float32) { all[1] = all[0]; all[2] = all[0] }
		},
		[]string{"embeddings"},
	},
	"short vectors": {
		func(f *conformtest.Model) { f.About.EmbeddingSize = 5 }, []string{"embeddings"},
	},
	"chat refused though declared": {
		func(f *conformtest.Model) {
			f.Before = func(r *infer.Request) {
				if len(r.Messages) > 0 && len(r.Tools) == 0 && len(r.Constraint.Schema) == 0 {
					r.Messages, r.Prompt = nil, string(make([]byte, 2000))
				}
			}
		},
		[]string{"chat"},
	},
	"schema ignored": {
		func(f *conformtest.Model) { f.Before = func(r *infer.Request) { r.Constraint.Schema = nil } },
		[]string{"schema"},
	},
	"tools ignored": {
		func(f *conformtest.Model) { f.Before = func(r *infer.Request) { r.Tools = nil } },
		[]string{"tools"},
	},
	"tools not declared and taken": {
		func(f *conformtest.Model) {
			f.About.Abilities.Tools = false
			f.Before = func(r *infer.Request) { r.Tools = nil }
		},
		[]string{"tools"},
	},
	"others change an answer": {
		func(f *conformtest.Model) {
			f.Before = func(r *infer.Request) {
				if r.KV.Deterministic {
					r.Sampling.Temperature, r.Sampling.Seed = 2, uint32(f.Runs.Add(1))
				}
			}
		},
		[]string{"requests at once"},
	},
	"close fails": {
		func(f *conformtest.Model) {
			f.Closing = func(f *conformtest.Model) error {
				select {
				case <-f.Gone():
					return &infer.Error{Op: "close", Kind: infer.KindClosed}
				default:
					close(f.Gone())
					return nil
				}
			}
		},
		[]string{"closed"},
	},
	"close does nothing": {
		func(f *conformtest.Model) { f.Closing = func(*conformtest.Model) error { return nil } },
		[]string{"close while running", "closed"},
	},
	"loops keep their sequence": {
		func(f *conformtest.Model) { f.Keeps = true },
		[]string{
			"leaving the loop", "cancel", "deadline", "too long", "logprobs", "score",
			"count tokens", "chat", "schema", "tools", "requests at once", "close while running",
		},
	},
	"panics": {
		func(f *conformtest.Model) { f.Embedded = func([][]float32) { panic("out of vectors") } },
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
