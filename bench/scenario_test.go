package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store/storetest"
)

var smallSizes = bench.Sizes{System: 20, Turn: 5, Answer: 3, Turns: 4, Users: []int{16}}

// TestReuseAlone: a runtime that remembers everything computes exactly the ideal, in every pattern
// and in every order of requests that run at once.
func TestReuseAlone(t *testing.T) {
	t.Parallel()
	s := bench.Scenario{Model: modelFile(t), Threads: 1, Open: openFake}
	report, pairs, err := s.Reuse(t.Context(), smallSizes, nil)
	require.NoError(t, err)
	require.Empty(t, pairs)
	require.Equal(t, "reuse", report.Name)
	require.Len(t, report.Runs, len(smallSizes.Patterns()))
	counts := map[string][2]int{} // prompt tokens, and those computed
	for _, run := range report.Runs {
		prompt, computed := 0, 0
		for _, q := range run.Samples {
			require.Equal(t, 3, q.Answer)
			require.Len(t, q.GapsNs, 2)
			require.Equal(t, q.Prompt, q.Computed+q.Cached.Live)
			prompt, computed = prompt+q.Prompt, computed+q.Computed
		}
		require.Equal(t, run.Ideal, computed, run.Subject)
		counts[strings.Fields(run.Subject)[0]] = [2]int{prompt, computed}
	}
	// By hand: turns of 25 tokens, then 25+8k; each new turn is the last answer token and 5 others.
	require.Equal(t, [2]int{25 + 33 + 41 + 49, 25 + 3*6}, counts["chat"])
	require.Equal(t, 16*25, counts["fan-out-16"][0])
	require.LessOrEqual(t, counts["fan-out-16"][1], 20+16*5)
	require.Equal(t, [2]int{25 + 33 + 41, 25 + 2*6}, counts["restart"], "the restart loses nothing")
	require.Equal(t, [2]int{25 + 33 + 25 + 41, 25 + 6 + 25 + 6}, counts["parked"])
	excess := 0
	for _, c := range report.Claims {
		if strings.Contains(c.Name, "beyond the ideal") {
			excess++
			require.True(t, *c.Holds)
			require.Zero(t, c.Value)
		}
	}
	require.Equal(t, 7, excess, "every pattern but the approximate ones")
	var out bytes.Buffer
	require.NoError(t, report.WriteText(&out, pairs))
	require.Contains(t, out.String(), "live + RAM + disk")
	require.NotContains(t, out.String(), "peer/peer", "nobody was compared")
}

// TestReusePeers: three sides, each in processes of its own, and claims about counts.
func TestReusePeers(t *testing.T) {
	c, log := comparer(t, "norion", "llama-server", "")
	s := bench.Scenario{Model: modelFile(t), Threads: 1, Norion: c.Norion, Server: c.Bench}
	report, pairs, err := s.Reuse(t.Context(), smallSizes, []string{"restart", "fan-out-16"})
	require.NoError(t, err)
	require.Len(t, report.Runs, 2*5*3)
	require.Len(t, pairs, 2*2*5)
	computed := map[bench.Side]int{}
	for _, run := range report.Runs {
		require.Positive(t, run.PeakRSSBytes)
		require.Equal(t, report.Runs[0].Ideal, 37)
		if strings.HasPrefix(run.Subject, "restart") && run.Round == 0 {
			for _, q := range run.Samples {
				computed[run.Side] += q.Computed
			}
		}
	}
	require.Equal(t, map[bench.Side]int{
		bench.SideNorion: 37, bench.SidePeer: 37, bench.SidePeerDefault: 25 + 33 + 41,
	}, computed, "the peer's best flags save its slots, its defaults know nothing")
	for _, line := range log() {
		if strings.Contains(line, "--port") && strings.Contains(line, "-np") {
			require.Contains(t, line, "-kvu")
		}
		require.Contains(t, line, "-t 1")
	}
	var fan []string
	for _, c := range report.Claims {
		if strings.HasPrefix(c.Name, "fan-out") && c.Bar != "" {
			fan = append(fan, c.Bar)
		}
	}
	require.Equal(t, []string{"<= 1.00", "<= 0.33", "<= 0.50", "<= 1.00"}, fan)
}

// TestReuseFails: what is not the work that was asked for is no measurement.
func TestReuseFails(t *testing.T) {
	broken := errors.New("it broke")
	for name, open := range map[string]func(context.Context, bench.EngineWish) (infer.Backend, error){
		"3 answer tokens": func(ctx context.Context, w bench.EngineWish) (infer.Backend, error) {
			b, err := openFake(ctx, w)
			b.(*fakeBackend).short = true
			return b, err
		},
		"it broke": func(ctx context.Context, w bench.EngineWish) (infer.Backend, error) {
			b, err := openFake(ctx, w)
			b.(*fakeBackend).broken = broken
			return b, err
		},
		"no engine": func(context.Context, bench.EngineWish) (infer.Backend, error) {
			return nil, errors.New("no engine")
		},
	} {
		s := bench.Scenario{Model: modelFile(t), Threads: 1, Open: open}
		_, _, err := s.Reuse(t.Context(), smallSizes, []string{"fan-out-16"})
		require.ErrorContains(t, err, name)
	}
	c, _ := comparer(t, "norion", "llama-server-fails", "")
	s := bench.Scenario{Model: modelFile(t), Threads: 1, Norion: c.Norion, Server: c.Bench}
	_, _, err := s.Reuse(t.Context(), smallSizes, []string{"chat"})
	require.ErrorIs(t, err, bench.ErrProcess)
	require.ErrorContains(t, err, "it broke", "the server's last words")

	c, _ = comparer(t, "norion", "llama-server-foreign", "")
	s.Norion, s.Server = c.Norion, c.Bench
	_, _, err = s.Reuse(t.Context(), smallSizes, []string{"chat"})
	require.ErrorIs(t, err, bench.ErrPeerBuild)

	c, _ = comparer(t, "norion-silent", "llama-server", "")
	s.Norion, s.Server = c.Norion, c.Bench
	_, _, err = s.Reuse(t.Context(), smallSizes, []string{"chat"})
	require.ErrorIs(t, err, bench.ErrOutput)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Norion, s.Server, s.Open = bench.Program{}, bench.Program{}, openFake
	_, _, err = s.Reuse(ctx, smallSizes, []string{"chat"})
	require.ErrorIs(t, err, context.Canceled)
}

func TestScenarioValidate(t *testing.T) {
	t.Parallel()
	flag := func(err error, field string) {
		t.Helper()
		var e *bench.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, bench.ErrFlag, e.Kind)
		require.Equal(t, field, e.Field)
	}
	s := bench.Scenario{Model: "m", Method: bench.Method{Rounds: 1}}
	require.NoError(t, s.Validate(), "alone")
	s.Server.Path = "x"
	flag(s.Validate(), "rounds")
	s = bench.Scenario{}
	flag(s.Validate(), "model")
	s = bench.Scenario{Model: "m", Threads: 512}
	require.NoError(t, s.Validate())
	s.Threads = 513
	flag(s.Validate(), "threads")

	ok := bench.Sizes{}.Fill(false)
	require.Equal(t, bench.DefaultSizes, ok)
	require.Equal(t, bench.QuickSizes, bench.Sizes{}.Fill(true))
	ok.Turns, ok.Users = bench.TurnsMax, []int{bench.UsersMax}
	require.NoError(t, ok.Validate())
	for field, change := range map[string]func(*bench.Sizes){
		"turns":  func(s *bench.Sizes) { s.Turns++ },
		"users":  func(s *bench.Sizes) { s.Users = []int{bench.UsersMax + 1} },
		"system": func(s *bench.Sizes) { s.System = -1 },
		"answer": func(s *bench.Sizes) { s.Answer = bench.SizeTokensMax + 1 },
	} {
		bad := ok
		change(&bad)
		flag(bad.Validate(), field)
	}
	l := bench.Load{}.Fill(false)
	require.Equal(t, bench.DefaultLoad, l)
	require.NoError(t, l.Validate())
	l.Streams = []int{bench.UsersMax + 1}
	flag(l.Validate(), "streams")
	l = bench.Load{Streams: []int{1}, Gen: 1, Prompt: 1, Admit: 1}
	flag(l.Validate(), "gen")
	_, err := bench.PickPatterns(ok.Patterns(), []string{"chats"})
	flag(err, "pattern")
}

// TestPatterns: every prompt refers to answers that are there, and contexts hold every request.
func TestPatterns(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sizes := bench.Sizes{
			System: rapid.IntRange(1, 50).Draw(t, "system"),
			Turn:   rapid.IntRange(1, 9).Draw(t, "turn"),
			Answer: rapid.IntRange(1, 9).Draw(t, "answer"),
			Turns:  rapid.IntRange(1, 9).Draw(t, "turns"),
			Users:  []int{rapid.IntRange(1, 20).Draw(t, "users")},
		}
		require.NoError(t, sizes.Validate())
		for _, p := range sizes.Patterns() {
			answered := map[string]int{}
			for _, stage := range p.Stages {
				done := map[string]int{}
				for _, a := range stage.Asks {
					n := a.Answer
					for _, s := range a.Prompt {
						if s.Answer != "" {
							require.Contains(t, answered, s.Answer, p.Name)
						}
						n += s.Tokens + answered[s.Answer]
					}
					require.LessOrEqual(t, n, p.Longest())
					require.NotContains(t, answered, a.Name, p.Name)
					done[a.Name] = a.Answer
				}
				for name, n := range done {
					answered[name] = n
				}
			}
		}
	})
}

// TestServerReplies: counts come from the final event; what is no answer is refused.
func TestServerReplies(t *testing.T) {
	t.Parallel()
	for twist, want := range map[string]string{
		"": "", "refuses": "busy", "error": "no room", "cut": "unexpected EOF", "holds back": "",
	} {
		fake := &fakeServer{twist: twist}
		server := httptest.NewServer(fake)
		ask := bench.AskServer(server.URL, map[string]any{"top_k": 1})
		came := 0
		var computed int
		var err error
		for _, prompt := range [][]infer.TokenID{{1, 2, 3, 4}, {1, 2, 3, 9, 9}} {
			computed, err = ask(t.Context(), prompt, 6, func(n int) { came += n })
		}
		server.Close()
		if want != "" {
			require.ErrorIs(t, err, bench.ErrOutput, twist)
			require.ErrorContains(t, err, want, twist)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, 2, computed)
		require.Equal(t, 12, came, "tokens that were held back count, too")
		require.Equal(t, map[string]any{
			"prompt": []any{1., 2., 3., 9., 9.}, "n_predict": 6., "ignore_eos": true, "stream": true,
			"temperature": 0., "return_tokens": true, "cache_prompt": true, "top_k": 1.,
		}, fake.bodies[1])
	}
}

func FuzzServerEvents(f *testing.F) {
	f.Add([]byte("data: {\"tokens\":[1],\"stop\":false}\n\ndata: {\"stop\":true}\n"))
	f.Add([]byte("data: {\"error\":{}}\n"))
	f.Add([]byte("error: {}\n"))
	f.Add([]byte("data: {\"tokens\":[-1,99999999999]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		stops := 0
		err := bench.ReadEvents(bytes.NewReader(data), func(stop bool) {
			if stop {
				stops++
			}
		})
		require.Equal(t, err == nil, stops == 1, "it ends with the final event or an error")
	})
}

// TestConcurrency: all streams are there, and a run's rate counts their tokens.
func TestConcurrency(t *testing.T) {
	c, _ := comparer(t, "norion", "llama-server", "")
	l := bench.Load{Streams: []int{3}, Prompt: 5, Gen: 4, Admit: 50}
	s := bench.Scenario{
		Model: modelFile(t), Threads: 1, Norion: c.Norion, Server: c.Bench,
		Method: bench.Method{Quick: true},
	}
	report, pairs, err := s.Concurrency(t.Context(), l, nil)
	require.NoError(t, err)
	require.Len(t, pairs, 2*6+2*3)
	for _, run := range report.Runs {
		if !strings.HasPrefix(run.Subject, "streams-3") {
			continue
		}
		require.Len(t, run.Samples, 3)
		require.InDelta(t, 12/(float64(run.PlayNs)/1e9), run.Rate, 1e-6*run.Rate)
	}
	data, err := json.Marshal(report)
	require.NoError(t, err)
	require.Contains(t, string(data), `"itl_ns"`)
}

// TestAdmissionWindow: gaps before, across, within and after the long prompt's wait.
func TestAdmissionWindow(t *testing.T) {
	t.Parallel()
	run := bench.Run{Samples: []bench.Sample{
		{Name: "stream 1", FirstNs: 10e6, Answer: 6, GapsNs: []int64{10e6, 10e6, 25e6, 30e6, 40e6, 7e6}},
		{Name: "admission", StartNs: 35e6, FirstNs: 60e6, Answer: 1},
	}}
	// Tokens at 10, 20, 30, 55, 85, 125 and 132 ms; the wait is from 35 to 95 ms.
	require.InDelta(t, 10, bench.MeasureBefore.Of(run), 1e-9)
	require.InDelta(t, 40, bench.MeasureDuring.Of(run), 1e-9)
	require.InDelta(t, 4, bench.MeasureAdmission.Of(run), 1e-9)
	require.InDelta(t, 60, bench.MeasureAdmitted.Of(run), 1e-9)
	require.Zero(t, bench.MeasureAdmission.Of(bench.Run{}))
}

// TestRequestMeasures: nearest-rank quantiles of what requests saw.
func TestRequestMeasures(t *testing.T) {
	t.Parallel()
	var run bench.Run
	for i := range 20 {
		run.Samples = append(run.Samples, bench.Sample{
			Answer: 1, FirstNs: int64(20-i) * 1e6, Prompt: 10, Computed: 4, GapsNs: []int64{int64(i) * 1e6},
		})
	}
	run.Ideal = 60
	require.InDelta(t, 10, bench.MeasureFirst50.Of(run), 1e-9)
	require.InDelta(t, 19, bench.MeasureFirst95.Of(run), 1e-9)
	require.InDelta(t, 9, bench.MeasureGap50.Of(run), 1e-9)
	require.InDelta(t, 19, bench.MeasureGap99.Of(run), 1e-9)
	require.InDelta(t, 80, bench.MeasureComputed.Of(run), 1e-9)
	require.InDelta(t, 1, bench.MeasureExcess.Of(run), 1e-9)
	require.Zero(t, bench.MeasureFirst50.Of(bench.Run{}))
	run = bench.Run{Samples: []bench.Sample{
		{Name: "cold", FirstNs: 1000}, {Name: "live", FirstNs: 100}, {Name: "restored", FirstNs: 130},
	}}
	require.InDelta(t, 3, bench.MeasureRestored.Of(run), 1e-9)
}

// TestReuseReal counts on a real model. What lies where is the engine's business; the counts are
// not.
func TestReuseReal(t *testing.T) {
	require.NoError(t, llama.Start(nil))
	s := bench.Scenario{Model: storetest.Model(t, "smollm2:135m"), Threads: 1}
	sizes := bench.Sizes{System: 40, Turn: 4, Answer: 2, Turns: 3, Users: []int{4}}
	report, _, err := s.Reuse(t.Context(), sizes,
		[]string{"chat", "fan-out-4", "agent-edited-history"})
	require.NoError(t, err)
	for _, run := range report.Runs {
		computed := 0
		for _, q := range run.Samples {
			require.Equal(t, 2, q.Answer)
			require.Equal(t, q.Prompt-q.Computed, q.Cached.Live+q.Cached.RAM+q.Cached.Disk)
			computed += q.Computed
		}
		require.GreaterOrEqual(t, computed, run.Ideal, "nothing comes from nowhere: %s", run.Subject)
		require.LessOrEqual(t, computed, run.Ideal+len(run.Samples), run.Subject)
	}
}
