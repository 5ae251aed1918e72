package servers

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/cmd/norion/presence"
	"github.com/norion/norion/hw/disk"
)

// TestPublish: a server is listed while it runs, with what it shows at each moment, and hears when
// it is asked to end.
func TestPublish(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "servers")
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Bool
		var inFlight atomic.Int64
		s := Server{PID: 7, URL: "http://x", Started: time.Now().UTC(), Models: []Model{{Name: "m"}}}
		name := presence.NewName()
		p, err := Publish(dir, name, func(context.Context) (Server, error) {
			now := s
			now.InFlight = int(inFlight.Load())
			return now, nil
		}, func() { asked.Store(true) })
		require.NoError(t, err)
		early := s
		early.Started = early.Started.Add(-time.Hour)
		p2, err := Publish(dir, presence.NewName(),
			func(context.Context) (Server, error) { return early, nil }, nil)
		require.NoError(t, err)
		inFlight.Store(3)
		time.Sleep(2 * presence.Interval)
		synctest.Wait()
		all, bad, err := List(dir)
		require.NoError(t, err)
		require.Zero(t, bad)
		require.Len(t, all, 2)
		require.True(t, all[0].Started.Before(all[1].Started))
		require.Equal(t, ID(name), all[1].ID)
		require.Equal(t, 3, all[1].InFlight)
		require.Equal(t, s.Models, all[1].Models)
		require.NoError(t, Stop(dir, all[1]))
		time.Sleep(2 * presence.Interval)
		synctest.Wait()
		require.True(t, asked.Load())
		require.NoError(t, p.Close())
		require.NoError(t, p2.Close())
		all, _, err = List(dir)
		require.NoError(t, err)
		require.Empty(t, all)
	})
}

// TestHostileFiles: what lies in the directory besides is counted, and commands no terminal.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	d, err := disk.OpenDir(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	for name, text := range map[string]string{
		"1-00000000": "", "1-00000001": `{"pid":1}`, "1-00000002": `{"pid":-1,"url":"x"}`,
		"1-00000003": `{"pid":1,"url":"x","models":[` + strings.Repeat("{},", modelsMax) + `{}]}`,
		"1-00000004": `{"pid":1,"url":"\u001b[2J","unix":"\u202e/s","version":"\n","models":[{"name":` +
			`"\u009b1m","loaded":true,"ttft_p50_s":-1,"tokens_per_s":1e300,"prompt_tokens":-9}]}`,
	} {
		unlock, ok, err := d.TryLock(name + ".lock")
		require.NoError(t, err)
		require.True(t, ok)
		t.Cleanup(func() { _ = unlock() })
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600))
	}
	all, bad, err := List(dir)
	require.NoError(t, err)
	require.Equal(t, 4, bad)
	require.Len(t, all, 1)
	for _, r := range Table(all, time.Now()) + Activity(all) {
		require.True(t, r == '\n' || r >= ' ' && r < 0x7f, "%q", r)
	}
}

// TestViews is what a user sees.
func TestViews(t *testing.T) {
	t.Parallel()
	now := time.Unix(10000, 0)
	all := []Server{
		{ID: "0a", PID: 7, URL: "http://127.0.0.1:8080", Started: now.Add(-time.Hour), InFlight: 2,
			Models: []Model{
				{Name: "m:1", Figures: Figures{Loaded: true, Running: 1, Waiting: 1, Cells: 10,
					CellsTotal: 128, Prompt: 100, Reused: 25, Rate: 31.25, TTFT50: 0.0312, TTFT95: 1.26}},
				{Name: "n", Figures: Figures{Restarts: 2}},
			}},
		{ID: "0b", PID: 8, URL: "http://localhost", Unix: "/run/s", Started: now},
	}
	require.Equal(t, strings.TrimPrefix(`
ID  PID  ADDRESS                UP  REQUESTS  MODELS
0a  7    http://127.0.0.1:8080  1h  2         m:1, n
0b  8    unix:/run/s            0s  0         
`, "\n"), Table(all, now))
	require.Equal(t, strings.TrimPrefix(`
ID  MODEL  RUN  WAIT  PARKED  TOKENS/S  TTFT P50  P95    CELLS   PROMPT  REUSED  RESTARTS
0a  m:1    1    1     0       31.2      31 ms     1.3 s  10/128  100     25 %    0
0a  n      -    not loaded
`, "\n"), Activity(all))
}

// TestRead: figures are those of a server's metrics.
func TestRead(t *testing.T) {
	t.Parallel()
	all := prometheus.NewRegistry()
	gauge := func(name string, value float64, labels prometheus.Labels) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, ConstLabels: labels})
		g.Set(value)
		require.NoError(t, all.Register(g))
	}
	gauge("llamacpp:requests_processing", 5, nil)
	for i, name := range []string{"a", "b"} {
		of := func(more ...string) prometheus.Labels {
			l := prometheus.Labels{"model": name}
			for i := 0; i < len(more); i += 2 {
				l[more[i]] = more[i+1]
			}
			return l
		}
		n := float64(i + 1)
		gauge("norion_model_loaded", float64(i), of())
		gauge("norion_worker_restarts_total", 2*n, of())
		gauge("norion_requests", 3*n, of("state", "running"))
		gauge("norion_requests", 4*n, of("state", "waiting"))
		gauge("norion_requests", 5*n, of("state", "parked"))
		gauge("norion_kv_cells", 6*n, of())
		gauge("norion_kv_cells_limit", 7*n, of())
		gauge("norion_answer_tokens_total", 8*n, of())
		for j, source := range []string{"computed", "live", "ram", "disk"} {
			gauge("norion_prompt_tokens_total", n*float64(int(10)<<j), of("source", source))
		}
		gauge("norion_other", 9, of())
	}
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "norion_time_to_first_token_seconds", Buckets: []float64{1, 2, 4},
	}, []string{"model"})
	require.NoError(t, all.Register(h))
	for range 10 {
		h.WithLabelValues("a").Observe(1.5)
	}
	families, err := all.Gather()
	require.NoError(t, err)
	inFlight, models := Read(families)
	require.Equal(t, 5, inFlight)
	require.Equal(t, map[string]Figures{
		"a": {Restarts: 2, Running: 3, Waiting: 4, Parked: 5, Cells: 6, CellsTotal: 7, Answered: 8,
			Prompt: 150, Reused: 140, TTFT50: 1.5, TTFT95: 1.95},
		"b": {Loaded: true, Restarts: 4, Running: 6, Waiting: 8, Parked: 10, Cells: 12, CellsTotal: 14,
			Answered: 16, Prompt: 300, Reused: 280},
	}, models)
}

// TestQuantile: an estimate lies in the bucket of the true quantile, or is the last bound.
func TestQuantile(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bounds := []float64{1, 2, 4, 8, 16}
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: bounds})
		values := rapid.SliceOfN(rapid.Float64Range(0.01, 30), 1, 40).Draw(t, "values")
		for _, v := range values {
			h.Observe(v)
		}
		var m dto.Metric
		require.NoError(t, h.Write(&m))
		q := rapid.Float64Range(0.01, 1).Draw(t, "q")
		got := quantile(m.GetHistogram(), q)
		from, to := 0.0, math.Inf(1)
		for _, b := range bounds {
			if b < got {
				from = b
			} else {
				to = min(to, b)
			}
		}
		atMost := func(bound float64) (n float64) {
			for _, v := range values {
				if v <= bound {
					n++
				}
			}
			return n
		}
		rank := q * float64(len(values))
		if got == bounds[len(bounds)-1] {
			require.True(t, atMost(got) <= rank || atMost(8) < rank)
			return
		}
		require.LessOrEqual(t, atMost(from), rank)
		require.GreaterOrEqual(t, atMost(to), rank)
	})
	require.Zero(t, quantile(nil, 0.5))
}

// TestMeter: rates are those of the time between two looks.
func TestMeter(t *testing.T) {
	t.Parallel()
	var m Meter
	at := time.Unix(1000, 0)
	look := func(after time.Duration, answered int64) float64 {
		at = at.Add(after)
		models := map[string]Figures{"m": {Answered: answered}}
		m.Rate(at, models)
		return models["m"].Rate
	}
	require.Zero(t, look(0, 100))
	require.InDelta(t, 25, look(2*time.Second, 150), 1e-9)
	require.Zero(t, look(time.Second, 150))
	require.Zero(t, look(time.Second, 10), "loaded anew")
	require.Zero(t, look(-time.Hour, 20), "C1: a clock that goes back")
	require.InDelta(t, 5, look(time.Second, 25), 1e-9)
}
