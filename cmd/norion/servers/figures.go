package servers

import (
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Figures are what a model of a server does, and what it did since the server began.
type Figures struct {
	Loaded     bool    `json:"loaded"`
	Running    int     `json:"running"` // requests
	Waiting    int     `json:"waiting"` // requests in the queue
	Parked     int     `json:"parked"`  // requests that made room for others
	Cells      int     `json:"cells"`   // of the KV cache, in use
	CellsTotal int     `json:"cells_total"`
	Prompt     int64   `json:"prompt_tokens"` // all that prompts had
	Reused     int64   `json:"reused_tokens"` // of them, those that were not computed
	Answered   int64   `json:"answer_tokens"`
	Restarts   int64   `json:"restarts"`     // of the model's process
	Rate       float64 `json:"tokens_per_s"` // of answers, between the last two looks
	TTFT50     float64 `json:"ttft_p50_s"`   // estimated quantiles of all answers, in seconds;
	TTFT95     float64 `json:"ttft_p95_s"`   // 0: none yet
}

// Read takes the requests in flight and the figures of models, by name and without rates, from what
// a server shows to Prometheus.
func Read(families []*dto.MetricFamily) (inFlight int, models map[string]Figures) {
	models = map[string]Figures{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			label := map[string]string{}
			for _, l := range m.GetLabel() {
				label[l.GetName()] = l.GetValue()
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue() // it has one of them
			if family.GetName() == "llamacpp:requests_processing" {
				inFlight = int(value)
			}
			if name, ok := label["model"]; ok {
				f := models[name]
				f.take(family.GetName(), label, value)
				if h := m.GetHistogram(); family.GetName() == "norion_time_to_first_token_seconds" {
					f.TTFT50, f.TTFT95 = quantile(h, 0.5), quantile(h, 0.95)
				}
				models[name] = f
			}
		}
	}
	return inFlight, models
}

// take adds one metric.
func (f *Figures) take(metric string, label map[string]string, value float64) {
	switch metric {
	case "norion_model_loaded":
		f.Loaded = value > 0
	case "norion_worker_restarts_total":
		f.Restarts = int64(value)
	case "norion_requests":
		switch label["state"] {
		case "running":
			f.Running = int(value)
		case "waiting":
			f.Waiting = int(value)
		case "parked":
			f.Parked = int(value)
		}
	case "norion_kv_cells":
		f.Cells = int(value)
	case "norion_kv_cells_limit":
		f.CellsTotal = int(value)
	case "norion_prompt_tokens_total":
		f.Prompt += int64(value)
		if label["source"] != "computed" {
			f.Reused += int64(value)
		}
	case "norion_answer_tokens_total":
		f.Answered = int64(value)
	}
}

// quantile estimates a quantile as Prometheus' histogram_quantile does: linearly within a bucket,
// and by the last bound beyond it. 0 means that nothing was observed.
func quantile(h *dto.Histogram, q float64) float64 {
	rank := q * float64(h.GetSampleCount())
	below, from := 0.0, 0.0
	for _, b := range h.GetBucket() {
		count, to := float64(b.GetCumulativeCount()), b.GetUpperBound()
		if math.IsInf(to, 1) {
			break
		}
		if count > below && count >= rank {
			return from + (to-from)*(rank-below)/(count-below)
		}
		below, from = count, to
	}
	if rank == 0 {
		return 0
	}
	return from
}

// Meter derives rates from one look at a server to the next. One goroutine uses it.
type Meter struct {
	at       time.Time
	answered map[string]int64
}

// Rate sets the rates of models. The first look has none, nor has a model that was loaded anew.
func (m *Meter) Rate(now time.Time, models map[string]Figures) {
	took := now.Sub(m.at).Seconds()
	answered := map[string]int64{}
	for name, f := range models {
		before, ok := m.answered[name]
		if ok && took > 0 && f.Answered >= before {
			f.Rate = float64(f.Answered-before) / took
			models[name] = f
		}
		answered[name] = f.Answered
	}
	m.at, m.answered = now, answered
}
