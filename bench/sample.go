package bench

import (
	"math"
	"slices"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Sample is one request, as its client saw it.
type Sample struct {
	Name     string `json:"name"`          // in its pattern
	Prompt   int    `json:"prompt_tokens"` // of which Computed were computed
	Computed int    `json:"computed_tokens"`
	Answer   int    `json:"answer_tokens"`
	Drafted  int    `json:"drafted_tokens,omitempty"`  // guessed ahead
	Accepted int    `json:"accepted_tokens,omitempty"` // of them, those that were right
	// Cached says where the others lay. A peer does not say: there it is nil.
	Cached  *infer.Cached `json:"cached,omitempty"`
	StartNs int64         `json:"start_ns"` // since the start of the run
	FirstNs int64         `json:"ttft_ns"`  // from the start to the first token
	TotalNs int64         `json:"total_ns"` // from the start to the end
	GapsNs  []int64       `json:"itl_ns"`   // between tokens, one fewer than there are
}

// watch times the tokens of one request. One goroutine uses it.
type watch struct {
	zero, start, last time.Time
	s                 Sample
}

// startWatch begins a request of the run that began at zero.
func startWatch(zero time.Time, name string) *watch {
	now := time.Now()
	return &watch{zero: zero, start: now, s: Sample{Name: name, StartNs: now.Sub(zero).Nanoseconds()}}
}

// tokens notes that n tokens came now. Those that come together have gaps of 0 between them.
func (w *watch) tokens(n int) {
	now := time.Now()
	for range n {
		if w.s.Answer == 0 {
			w.s.FirstNs = now.Sub(w.start).Nanoseconds()
		} else {
			w.s.GapsNs = append(w.s.GapsNs, now.Sub(w.last).Nanoseconds())
		}
		w.last = now
		w.s.Answer++
	}
}

// end closes the request.
func (w *watch) end() Sample {
	w.s.TotalNs = time.Since(w.start).Nanoseconds()
	return w.s
}

// quantile is the nearest-rank quantile of samples in any order, 0 of none.
func quantile(samples []int64, q float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(samples))
	return float64(s[max(0, int(math.Ceil(q*float64(len(s))))-1)])
}

// firsts gives the time to the first token of every request.
func (r Run) firsts() []int64 {
	var out []int64
	for _, s := range r.Samples {
		if s.Answer > 0 {
			out = append(out, s.FirstNs)
		}
	}
	return out
}

// gaps gives the time between tokens of all requests together.
func (r Run) gaps() []int64 {
	var out []int64
	for _, s := range r.Samples {
		out = append(out, s.GapsNs...)
	}
	return out
}

// gap is a quantile of the time between tokens in ms.
func (r Run) gap(q float64) float64 { return ms(quantile(r.gaps(), q)) }

// sum adds up one count of all requests.
func (r Run) sum(of func(Sample) int) (n int) {
	for _, s := range r.Samples {
		n += of(s)
	}
	return n
}

// computed is how many prompt tokens were computed.
func (r Run) computed() int { return r.sum(func(s Sample) int { return s.Computed }) }

func ms(ns float64) float64 { return ns / 1e6 }

// The measures of requests.
var (
	MeasureComputed = Measure{"prompt tokens computed", "tokens", func(r Run) float64 {
		return float64(r.computed())
	}}
	// MeasureExcess is what was computed beyond the ideal, for each request: a runtime may have to
	// compute the last token of a prompt again to choose the next one.
	MeasureExcess = Measure{"computed beyond the ideal", "tokens per request", func(r Run) float64 {
		return float64(r.computed()-r.Ideal) / float64(max(1, len(r.Samples)))
	}}
	MeasureFirst50 = Measure{"TTFT p50", "ms", func(r Run) float64 {
		return ms(quantile(r.firsts(), 0.5))
	}}
	MeasureFirst95 = Measure{"TTFT p95", "ms", func(r Run) float64 {
		return ms(quantile(r.firsts(), 0.95))
	}}
	MeasurePlay  = Measure{"total time", "ms", func(r Run) float64 { return ms(float64(r.PlayNs)) }}
	MeasureGap50 = Measure{"ITL p50", "ms", func(r Run) float64 { return r.gap(0.5) }}
	MeasureGap95 = Measure{"ITL p95", "ms", func(r Run) float64 { return r.gap(0.95) }}
	MeasureGap99 = Measure{"ITL p99", "ms", func(r Run) float64 { return r.gap(0.99) }}
	// MeasureRestored is the time to the first token after a restart beyond that of the live
	// continuation, as a part of the cold one's. Both have as many new tokens.
	MeasureRestored = Measure{"restored beyond live, of cold", "%", func(r Run) float64 {
		return r.beyondLive("restored")
	}}
	MeasureParked = Measure{"parked beyond live, of cold", "%", func(r Run) float64 {
		return r.beyondLive("parked")
	}}
)

func (r Run) beyondLive(name string) float64 {
	first := map[string]float64{}
	for _, s := range r.Samples {
		first[s.Name] = float64(s.FirstNs)
	}
	if first["cold"] == 0 {
		return 0
	}
	return 100 * (first[name] - first["live"]) / first["cold"]
}
