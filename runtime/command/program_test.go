package command_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/norion/norion/runtime/conform/conformtest"
	"github.com/norion/norion/runtime/infer"
)

// TestMain is also the program of the tests: as such it runs where its environment names a fault.
func TestMain(m *testing.M) {
	if fault := os.Getenv("FAULT"); fault != "" {
		(&program{model: conformtest.New(), fault: fault, running: map[uint64]func(){}}).main()
		return
	}
	os.Exit(m.Run())
}

// program is a program that speaks the protocol, over the made-up model of the suite.
type program struct {
	model *conformtest.Model
	fault string // what it does wrong, or "none"

	mu      sync.Mutex // of what follows, and of standard output
	running map[uint64]func()
}

type question struct {
	ID        uint64    `json:"id"`
	Op        string    `json:"op"`
	Arguments arguments `json:"arguments"`
}

type arguments struct {
	Version     int             `json:"version"`
	Prompt      string          `json:"prompt"`
	Messages    []infer.Message `json:"messages"`
	MaxTokens   int             `json:"max_tokens"`
	Temperature float32         `json:"temperature"`
	Seed        uint32          `json:"seed"`
	Stop        []string        `json:"stop"`
	Logprobs    *int            `json:"logprobs"`
	Tools       []infer.Tool    `json:"tools"`
	Parallel    bool            `json:"parallel_tools"`
	Choice      string          `json:"tool_choice"`
	Schema      json.RawMessage `json:"schema"`
	NoReuse     bool            `json:"kv.no_reuse"`
	Same        bool            `json:"kv.deterministic"`
	Context     string          `json:"context"`
	Text        string          `json:"text"`
	Texts       []string        `json:"texts"`
	Top         int             `json:"top_logprobs"`
	AddSpecial  bool            `json:"add_special"`
	Parse       bool            `json:"parse_special"`
}

func (a *arguments) request() infer.Request {
	r := infer.Request{
		Prompt: a.Prompt, Messages: a.Messages, MaxTokens: a.MaxTokens, Stop: a.Stop, Tools: a.Tools,
		ToolChoice: infer.ToolChoice(a.Choice), ParallelTools: a.Parallel,
	}
	r.Sampling.Temperature, r.Sampling.Seed = a.Temperature, a.Seed
	r.Constraint.Schema, r.KV.NoReuse, r.KV.Deterministic = a.Schema, a.NoReuse, a.Same
	if a.Logprobs != nil {
		r.Logprobs, r.TopLogprobs = true, *a.Logprobs
	}
	return r
}

func (p *program) main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var q question
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			panic(err)
		}
		p.take(&q)
	}
	if p.fault == "does not end" {
		select {}
	}
}

func (p *program) take(q *question) {
	if q.Op == "info" {
		p.hello(q.ID)
		return
	}
	if q.Op == "cancel" {
		p.mu.Lock()
		cancel := p.running[q.ID]
		p.mu.Unlock()
		if cancel != nil && p.fault != "ignores cancels" {
			cancel()
		}
		return
	}
	if wrong := faults[p.fault].line; wrong != nil {
		p.raw(wrong(q.ID))
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.mu.Lock()
	p.running[q.ID] = cancel
	p.mu.Unlock()
	go func() {
		p.run(ctx, q)
		p.mu.Lock()
		delete(p.running, q.ID)
		p.mu.Unlock()
	}()
}

func (p *program) hello(id uint64) {
	version, info := 1, p.model.Info()
	switch p.fault {
	case "another version":
		version = 2
	case "no name":
		info.Model = ""
	case "says nothing":
		return
	case "changes":
		info.Description = fmt.Sprint(os.Getpid())
	}
	p.say(id, "info", map[string]any{
		"version": version, "model": info,
		"fields": []string{
			"stop", "seed", "logprobs", "kv.no_reuse", "kv.deterministic", "tokenize",
		},
	})
}

func (p *program) run(ctx context.Context, q *question) {
	a := &q.Arguments
	var what string
	var value any
	var err error
	switch q.Op {
	case "generate":
		p.generate(ctx, q.ID, a.request())
		return
	case "score":
		what = "scores"
		value, err = p.model.Score(ctx, infer.ScoreRequest{
			Context: a.Context, Text: a.Text, TopLogprobs: a.Top,
		})
	case "embed":
		what = "vectors"
		value, err = p.model.Embed(ctx, a.Texts)
	case "tokenize":
		what = "tokens"
		value, err = p.model.Tokenize(ctx, a.Text, infer.TokenizeOptions{
			AddSpecial: a.AddSpecial, ParseSpecial: a.Parse,
		})
	default:
		panic(q.Op)
	}
	if err != nil {
		p.fail(q.ID, err)
		return
	}
	p.say(q.ID, what, value)
}

func (p *program) generate(ctx context.Context, id uint64, r infer.Request) {
	for c, err := range p.model.Generate(ctx, r) {
		if err != nil {
			p.fail(id, err)
			return
		}
		out := map[string]any{"text": c.Text, "tokens": c.Tokens}
		if c.ToolCalls != nil {
			out["tool_calls"] = c.ToolCalls
		}
		if c.Logprobs != nil {
			out["logprobs"] = c.Logprobs
		}
		if c.Final != nil {
			out["final"] = c.Final
		}
		p.say(id, "chunk", out)
	}
}

func (p *program) fail(id uint64, err error) {
	e, _ := errors.AsType[*infer.Error](err)
	p.say(id, "error", map[string]any{"kind": e.Kind, "field": e.Field, "message": e.Error()})
}

func (p *program) say(id uint64, what string, value any) {
	data, err := json.Marshal(map[string]any{"id": id, what: value})
	if err != nil {
		panic(err)
	}
	p.raw(string(data) + "\n")
}

func (p *program) raw(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := os.Stdout.WriteString(line); err != nil {
		os.Exit(1)
	}
}

// ended is a last chunk that tells of n tokens.
func ended(id uint64, reason string, n int) string {
	return fmt.Sprintf(`{"id":%d,"chunk":{"final":{"finish_reason":%q,`+
		`"usage":{"completion_tokens":%d}}}}`+"\n", id, reason, n)
}

// faults are what programs do wrong, in place of an answer.
var faults = map[string]struct {
	line func(id uint64) string
	kind infer.Kind
}{
	"exits":          {func(uint64) string { os.Exit(3); return "" }, infer.KindLost},
	"no JSON":        {func(uint64) string { return "hello\n" }, infer.KindInternal},
	"closes halfway": {func(uint64) string { os.Stdout.Close(); select {} }, infer.KindLost},
	"a long line": {
		func(uint64) string { return strings.Repeat("x", 5<<20) + "\n" }, infer.KindLost,
	},
	"another request": {
		func(id uint64) string { return ended(id+7, "stop", 0) }, infer.KindLost,
	},
	"twice": {
		func(id uint64) string { return ended(id-1, "stop", 0) }, infer.KindLost,
	},
	"an unknown name": {
		func(id uint64) string { return fmt.Sprintf(`{"id":%d,"chunk":{},"x":1}`+"\n", id) },
		infer.KindInternal,
	},
	"two answers": {
		func(id uint64) string { return fmt.Sprintf(`{"id":%d,"chunk":{},"tokens":[]}`+"\n", id) },
		infer.KindInternal,
	},
	"another answer": {
		func(id uint64) string { return fmt.Sprintf(`{"id":%d,"tokens":[]}`+"\n", id) },
		infer.KindInternal,
	},
	"ends for nothing": {
		func(id uint64) string { return ended(id, "tired", 0) }, infer.KindInternal,
	},
	"counts wrongly": {
		func(id uint64) string { return ended(id, "stop", 2) }, infer.KindInternal,
	},
	"negative": {
		func(id uint64) string { return fmt.Sprintf(`{"id":%d,"chunk":{"tokens":-1}}`+"\n", id) },
		infer.KindInternal,
	},
	"a refusal": {
		func(id uint64) string {
			return fmt.Sprintf(`{"id":%d,"error":{"kind":"too long","field":"prompt"}}`+"\n", id)
		}, infer.KindTooLong,
	},
	"an unknown kind": {
		func(id uint64) string { return fmt.Sprintf(`{"id":%d,"error":{"kind":"closed"}}`+"\n", id) },
		infer.KindInternal,
	},
	"floods": {
		func(id uint64) string {
			line := fmt.Sprintf(`{"id":%d,"chunk":{"text":%q}}`+"\n", id, strings.Repeat("x", 1<<20))
			return strings.Repeat(line, 80) // more than waits for a caller who takes none
		}, infer.KindLost,
	},
}
