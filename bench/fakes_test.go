package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/infer"
)

// fakeTokens makes one token of each word.
func fakeTokens(text string) []infer.TokenID {
	var out []infer.TokenID
	for _, w := range strings.Fields(text) {
		h := fnv.New32a()
		_, _ = io.WriteString(h, w) // never fails
		out = append(out, infer.TokenID(h.Sum32()%50000))
	}
	return out
}

// fakeCache knows every prompt and answer it has seen: the best that a runtime can do. The last
// token of an answer was chosen, not computed.
type fakeCache struct {
	mu    sync.Mutex
	known [][]infer.TokenID
}

// ask returns how many tokens of the prompt are known, and the answer.
func (c *fakeCache) ask(prompt []infer.TokenID, n int) (cached int, answer []infer.TokenID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.known {
		i := 0
		for i < min(len(k), len(prompt)-1) && k[i] == prompt[i] {
			i++
		}
		cached = max(cached, i)
	}
	for i := range n {
		answer = append(answer, infer.TokenID(60000+len(prompt)+i))
	}
	c.known = append(c.known, append(slices.Clone(prompt), answer[:n-1]...))
	return cached, answer
}

// fakeBackend is an infer.Backend over a fakeCache. What wish.Dir holds outlives it.
type fakeBackend struct {
	cache  *fakeCache
	path   string
	short  bool // answers lack a token
	parts  int  // with speculation the token of this index is another; 0 for none
	broken error
	ended  func() // called by Close
}

// openFake opens a backend whose cache is kept in wish.Dir.
func openFake(_ context.Context, wish bench.EngineWish) (infer.Backend, error) {
	b := &fakeBackend{cache: &fakeCache{}, path: filepath.Join(wish.Dir, "cache")}
	if wish.Dir == "" {
		b.path = ""
	} else if err := os.MkdirAll(wish.Dir, 0o700); err != nil {
		return nil, err
	}
	if data, err := os.ReadFile(b.path); err == nil {
		return b, json.Unmarshal(data, &b.cache.known)
	}
	return b, nil
}

func (b *fakeBackend) Info() infer.Info { return infer.Info{} }

func (b *fakeBackend) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		if b.broken != nil {
			yield(infer.Chunk{}, b.broken)
			return
		}
		cached, answer := b.cache.ask(r.Tokens, r.MaxTokens)
		if b.short {
			answer = answer[1:]
		}
		drafted, accepted := 0, 0
		if r.Speculate == infer.SpeculateAdaptive || r.Speculate == infer.SpeculateOn {
			drafted, accepted = len(answer)-1, len(answer)-2
		}
		for i, id := range answer {
			chunk := infer.Chunk{Text: "x", Tokens: 1}
			if drafted > 0 && b.parts > 0 && i == b.parts {
				chunk.Text = "y"
			}
			if r.Logprobs {
				chunk.Logprobs = []infer.Logprob{{Token: infer.Token{ID: id}}}
			}
			if ctx.Err() != nil {
				yield(infer.Chunk{}, &infer.Error{Kind: infer.KindCanceled})
				return
			}
			if !yield(chunk, nil) {
				return
			}
		}
		yield(infer.Chunk{Final: &infer.Final{Usage: infer.Usage{
			PromptTokens: len(r.Tokens), CompletionTokens: len(answer),
			Computed: len(r.Tokens) - cached,
			Cached:   infer.Cached{Live: cached},
			Drafted:  drafted, Accepted: accepted,
		}}}, nil)
	}
}

func (b *fakeBackend) Tokenize(_ context.Context, text string, _ infer.TokenizeOptions) (
	[]infer.Token, error,
) {
	var out []infer.Token
	for _, id := range fakeTokens(text) {
		out = append(out, infer.Token{ID: id})
	}
	return out, nil
}

func (b *fakeBackend) Score(context.Context, infer.ScoreRequest) (infer.Scores, error) {
	return infer.Scores{}, infer.KindUnsupported
}

func (b *fakeBackend) Embed(context.Context, []string) ([][]float32, error) {
	return nil, infer.KindUnsupported
}

func (b *fakeBackend) Close() error {
	if b.ended != nil {
		b.ended()
	}
	data, err := json.Marshal(b.cache.known)
	if err != nil || b.path == "" {
		return err
	}
	return os.WriteFile(b.path, data, 0o600)
}

// fakeServer acts as llama-server does, as far as it is asked.
type fakeServer struct {
	cache  fakeCache
	dir    string // of slots, or ""
	commit string
	twist  string // what is wrong with it
	drafts bool   // it speculates
	bodies []map[string]any
}

func (s *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := map[string]any{}
	data, _ := io.ReadAll(r.Body)
	if r.Method == http.MethodPost && json.Unmarshal(data, &body) != nil {
		http.Error(w, "no JSON", http.StatusBadRequest)
		return
	}
	switch {
	case r.URL.Path == "/health":
	case r.URL.Path == "/props":
		fmt.Fprintf(w, `{"build_info": "b0-%s"}`, s.commit)
	case s.twist == "refuses":
		http.Error(w, "busy", http.StatusServiceUnavailable)
	case r.URL.Path == "/tokenize":
		reply, _ := json.Marshal(map[string]any{"tokens": fakeTokens(body["content"].(string))})
		_, _ = w.Write(reply) // the client sees what is missing
	case strings.HasPrefix(r.URL.Path, "/slots/"):
		s.slots(w, r, filepath.Join(s.dir, body["filename"].(string)))
	case r.URL.Path == "/completion":
		s.bodies = append(s.bodies, body)
		s.complete(w, body)
	default:
		http.NotFound(w, r)
	}
}

func (s *fakeServer) slots(w http.ResponseWriter, r *http.Request, file string) {
	var err error
	switch r.URL.Query().Get("action") {
	case "save":
		var data []byte
		if data, err = json.Marshal(s.cache.known); err == nil {
			err = os.WriteFile(file, data, 0o600)
		}
	case "restore":
		var data []byte
		if data, err = os.ReadFile(file); err == nil {
			err = json.Unmarshal(data, &s.cache.known)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprint(w, "{}")
}

// complete streams as llama-server streams: a final event with counts and no tokens.
func (s *fakeServer) complete(w http.ResponseWriter, body map[string]any) {
	var prompt []infer.TokenID
	for _, t := range body["prompt"].([]any) {
		prompt = append(prompt, infer.TokenID(t.(float64)))
	}
	cached, answer := s.cache.ask(prompt, int(body["n_predict"].(float64)))
	if s.twist == "forgets" {
		cached = 0
	}
	if s.twist == "error" {
		fmt.Fprint(w, "data: {\"error\":{\"code\":500,\"message\":\"no room\"}}\n\n")
		return
	}
	for i, id := range answer {
		if s.twist == "holds back" && i == 1 { // half a character: the next event has its text
			continue
		}
		fmt.Fprintf(w, "data: {\"content\":\"x\",\"tokens\":[%d],\"stop\":false}\n\n", id)
		if s.twist == "cut" {
			return
		}
	}
	drafts := ""
	if s.drafts {
		drafts = `,"draft_n":9,"draft_n_accepted":4`
	}
	fmt.Fprintf(w, "data: {\"content\":\"\",\"tokens\":[],\"stop\":true,\"id_slot\":0,"+
		"\"tokens_evaluated\":%d,\"timings\":{\"cache_n\":%d,\"prompt_n\":%d,\"predicted_n\":%d%s}}\n\n",
		len(prompt), cached, len(prompt)-cached, len(answer), drafts)
}

// serve is the program llama-server: it serves until it is interrupted.
func serve(args []string, commit string) int {
	value := func(flag string) string {
		i := slices.Index(args, flag)
		if i < 0 {
			return ""
		}
		return args[i+1]
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp",
		value("--host")+":"+value("--port"))
	if err != nil {
		return 1
	}
	s := &fakeServer{
		dir: value("--slot-save-path"), commit: commit, drafts: value("--spec-type") != "",
	}
	if value("-c") == "" { // as it comes
		s.twist = "forgets"
	}
	_ = http.Serve(l, s) //nolint:gosec // on the loopback, for a test
	return 1
}

// scenarioAlone is the program `norion bench NAME` without a peer.
func scenarioAlone(args []string) int {
	number := func(flag string) int {
		n, err := strconv.Atoi(args[slices.Index(args, flag)+1])
		if err != nil {
			panic(err)
		}
		return n
	}
	text := func(flag string) string { return args[slices.Index(args, flag)+1] }
	s := bench.Scenario{
		Model: text("-m"), Threads: number("-t"), Open: openFake,
		Method: bench.Method{Rounds: number("--rounds")},
	}
	names := []string{text("--pattern")}
	var r bench.Report
	var err error
	if slices.Contains(args, "reuse") {
		r, _, err = s.Reuse(context.Background(), bench.Sizes{
			System: number("--system"), Turn: number("--turn"), Answer: number("--answer"),
			Turns: number("--turns"), Users: []int{number("--users")},
		}, names)
	} else {
		r, _, err = s.Concurrency(context.Background(), bench.Load{
			Streams: []int{number("--streams")}, Prompt: number("--prompt"), Gen: number("--gen"),
			Admit: number("--admit"),
		}, names)
	}
	if err == nil {
		err = r.WriteJSON(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
