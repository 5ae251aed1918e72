package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/norion/norion/runtime/infer"
)

// servedModel gives to Prometheus what is known of a server's model. It is safe for concurrent use.
type servedModel struct {
	models *models
	name   string
}

// statsMax is how long a scrape waits for a model.
const statsMax = 2 * time.Second

// Describe implements prometheus.Collector: nothing is promised beforehand.
func (servedModel) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. The figures of a model that is unloaded, or that does
// not answer, are left out.
func (c servedModel) Collect(to chan<- prometheus.Metric) {
	b := c.models.pool.Peek(c.name)
	c.models.mu.Lock()
	n := c.models.restarts[c.name]
	c.models.mu.Unlock()
	up := 0.0
	if b != nil {
		n, up = n+restarts(b), 1
	}
	to <- prometheus.MustNewConstMetric(prometheus.NewDesc("norion_model_loaded",
		"Whether the model is loaded.", nil, nil), prometheus.GaugeValue, up)
	to <- prometheus.MustNewConstMetric(prometheus.NewDesc("norion_worker_restarts_total",
		"Times that the model's process was started again.", nil, nil), prometheus.CounterValue,
		float64(n))
	if o, ok := b.(infer.Observer); ok {
		ctx, cancel := context.WithTimeout(context.Background(), statsMax)
		defer cancel()
		if s, err := o.Stats(ctx); err == nil {
			collect(s, to)
		}
	}
}

// collector gives what a backend observes of itself to Prometheus. It is safe for concurrent use.
type collector struct{ infer.Observer }

// Describe implements prometheus.Collector: nothing is promised beforehand.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. One call asks the backend once.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s, err := c.Stats(context.Background())
	if err != nil {
		to <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		return
	}
	collect(s, to)
}

// collect gives figures to Prometheus.
func collect(s infer.Stats, to chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help, label, of string, value float64) {
		var labels, values []string
		if label != "" {
			labels, values = []string{label}, []string{of}
		}
		desc := prometheus.NewDesc("norion_"+name, help, labels, nil)
		to <- prometheus.MustNewConstMetric(desc, kind, value, values...)
	}
	count := func(name, help, label, of string, value int64) {
		send(prometheus.CounterValue, name, help, label, of, float64(value))
	}
	gauge := func(name, help, label, of string, value int64) {
		send(prometheus.GaugeValue, name, help, label, of, float64(value))
	}
	t, now := s.Totals, s.Now
	for _, how := range slices.Sorted(maps.Keys(t.Requests)) {
		count("requests_total", "Requests that ended, by how.", "end", how, t.Requests[how])
	}
	const prompt = "Prompt tokens, by where their keys and values came from."
	count("prompt_tokens_total", prompt, "source", "computed", t.Computed)
	count("prompt_tokens_total", prompt, "source", "live", int64(t.Cached.Live))
	count("prompt_tokens_total", prompt, "source", "ram", int64(t.Cached.RAM))
	count("prompt_tokens_total", prompt, "source", "disk", int64(t.Cached.Disk))
	count("moved_tokens_total", "Reused prompt tokens that were moved.", "", "",
		int64(t.Cached.Moved))
	count("answer_tokens_total", "Tokens of answers.", "", "", t.Answered)
	count("embedded_tokens_total", "Tokens of texts that were embedded.", "", "", t.Embedded)
	count("evicted_tokens_total", "Tokens that policies gave up.", "", "", t.Evicted)
	count("parked_total", "Times that a request made room for others.", "", "", t.Parked)
	count("resumed_total", "Times that a parked request went on.", "", "", t.Resumed)
	count("drafted_tokens_total", "Tokens guessed ahead.", "", "", t.Drafted)
	count("accepted_tokens_total", "Guessed tokens that were right.", "", "", t.Accepted)
	count("steps_total", "Computations of one batch.", "", "", t.Steps)
	count("adapter_switches_total", "Times that other adapters came to apply.", "", "", t.Switched)
	const requests = "Requests at this moment, by state."
	gauge("requests", requests, "state", "running", int64(now.Running))
	gauge("requests", requests, "state", "waiting", int64(now.Waiting))
	gauge("requests", requests, "state", "parked", int64(now.Parked))
	gauge("idle_sequences", "Sequences that hold a prefix for later.", "", "", int64(now.Idle))
	gauge("kv_cells", "Cells of the KV cache in use.", "", "", int64(now.Cells))
	gauge("kv_cells_limit", "Cells of the KV cache.", "", "", int64(now.CellsTotal))
	for place, b := range map[string]infer.Bytes{"ram": now.RAM, "disk": now.Disk} {
		gauge("saved_bytes", "Bytes of saved state, by place.", "place", place, b.Used)
		gauge("saved_bytes_limit", "Most bytes of saved state, by place.", "place", place, b.Budget)
	}
}

// writeMetrics writes what a backend did into a file, in Prometheus' text format.
func writeMetrics(path string, b infer.Backend) error {
	o, ok := b.(infer.Observer)
	if !ok {
		return flagError("metrics", "leave it out", "this backend does not observe itself")
	}
	all := prometheus.NewRegistry()
	model := prometheus.Labels{"model": b.Info().Model}
	err := prometheus.WrapRegistererWith(model, all).Register(collector{o})
	if err == nil {
		err = prometheus.WriteToTextfile(path, all)
	}
	if err != nil {
		return flagError("metrics", "name a file in a directory that can be written to", "%w", err)
	}
	return nil
}

// endMetrics writes the metrics of a command that ends, where --metrics asks for them.
func (f *requestFlags) endMetrics(b *loaded) error {
	if f.metrics == "" {
		return nil
	}
	return writeMetrics(f.metrics, b.Backend)
}
