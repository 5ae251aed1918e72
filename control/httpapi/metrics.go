package httpapi

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/norion/norion/runtime/infer"
)

// metrics are what the server counts itself. Those that llama-server has keep its names; figures
// of engines are registered by whoever runs them.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	promptTokens, promptSeconds       *prometheus.CounterVec
	predictedTokens, predictedSeconds *prometheus.CounterVec
	cached                            *prometheus.CounterVec
	queue, ttft, itl, itlMax          *prometheus.HistogramVec
}

// newMetrics registers them. inFlight says how many requests there are at a moment.
func newMetrics(to prometheus.Registerer, inFlight func() float64) (*metrics, error) {
	model := []string{"model"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, first float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2, 16),
		}, labels)
	}
	m := &metrics{
		requests: counter("norion_http_requests_total", "Requests that ended, by route and status.",
			"route", "status"),
		seconds: histogram("norion_http_request_seconds", "Time of requests, from first to last byte.",
			0.001, "route"),
		promptTokens: counter("llamacpp:prompt_tokens_total", "Prompt tokens computed.", model...),
		promptSeconds: counter("llamacpp:prompt_seconds_total", "Time of computing prompts.",
			model...),
		predictedTokens: counter("llamacpp:tokens_predicted_total", "Tokens of answers.", model...),
		predictedSeconds: counter("llamacpp:tokens_predicted_seconds_total",
			"Time from the first token of answers to the last.", model...),
		cached: counter("norion_answers_cached_tokens_total",
			"Prompt tokens of answers that were not computed, by where they lay.", "model", "source"),
		queue: histogram("norion_queue_seconds", "Time that answers waited to begin.", 0.0005, model...),
		ttft: histogram("norion_time_to_first_token_seconds",
			"Time from submission to the first token.", 0.001, model...),
		itl: histogram("norion_inter_token_latency_seconds",
			"Mean time between two tokens of an answer.", 0.0005, model...),
		itlMax: histogram("norion_inter_token_latency_max_seconds",
			"Longest time between two tokens of an answer.", 0.0005, model...),
	}
	for _, c := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "llamacpp:requests_processing", Help: "Requests in flight, waiting ones included.",
		}, inFlight),
		m.requests, m.seconds, m.promptTokens, m.promptSeconds, m.predictedTokens,
		m.predictedSeconds, m.cached, m.queue, m.ttft, m.itl, m.itlMax,
	} {
		if err := to.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// request counts one that has ended.
func (m *metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

// answer counts one answer of a model.
func (m *metrics) answer(model string, f *infer.Final) {
	u, t := &f.Usage, &f.Usage.Timings
	m.promptTokens.WithLabelValues(model).Add(float64(max(u.PromptTokens-cachedTokens(u), 0)))
	m.promptSeconds.WithLabelValues(model).Add(max(t.Prefill.Seconds(), 0))
	m.predictedTokens.WithLabelValues(model).Add(float64(max(u.CompletionTokens, 0)))
	m.predictedSeconds.WithLabelValues(model).Add(max(t.Decode.Seconds(), 0))
	for source, n := range map[string]int{
		"live": u.Cached.Live, "ram": u.Cached.RAM, "disk": u.Cached.Disk,
	} {
		m.cached.WithLabelValues(model, source).Add(float64(max(n, 0)))
	}
	m.queue.WithLabelValues(model).Observe(t.Queue.Seconds())
	m.ttft.WithLabelValues(model).Observe(t.TTFT.Seconds())
	if u.CompletionTokens > 1 {
		m.itl.WithLabelValues(model).Observe(t.Decode.Seconds() / float64(u.CompletionTokens-1))
		m.itlMax.WithLabelValues(model).Observe(t.ITLMax.Seconds())
	}
}

// showMetrics answers GET /metrics.
func (x *exchange) showMetrics() error {
	promhttp.HandlerFor(x.s.o.Registry, promhttp.HandlerOpts{}).ServeHTTP(x.w, x.r)
	return nil
}
