package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/norion/norion/runtime/infer"
)

// Bounds of what is read from a server.
const (
	serverLineMax  = 4 << 20
	serverReplyMax = 16 << 20
)

// serverClient speaks llama-server's own API.
type serverClient struct {
	base string // "http://127.0.0.1:port"
	http *http.Client
	// extra goes into every completion, such as samplers.
	extra map[string]any

	mu    sync.Mutex
	slots map[int]bool // that answered
}

func newServerClient(base string, extra map[string]any) *serverClient {
	return &serverClient{
		base: base, extra: extra, slots: map[int]bool{},
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: UsersMax}}, // no proxy
	}
}

// post sends JSON and returns the open answer, whose status is 200.
func (c *serverClient) post(ctx context.Context, path string, body any) (*http.Response, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, serverError(ctx, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		words, err := io.ReadAll(io.LimitReader(resp.Body, errorTailBytes))
		return nil, serverError(ctx, path, errors.Join(
			fmt.Errorf("%s: %s", resp.Status, strings.ToValidUTF8(string(words), "?")), err,
			resp.Body.Close()))
	}
	return resp, nil
}

func serverError(ctx context.Context, path string, err error) error {
	if ctx.Err() != nil {
		return &infer.Error{Op: "measure", Kind: infer.KindCanceled, Err: context.Cause(ctx)}
	}
	return &Error{Op: "measure", Kind: ErrOutput, Field: "llama-server " + path, Err: err}
}

// call sends JSON and reads JSON.
func (c *serverClient) call(ctx context.Context, path string, body, into any) error {
	resp, err := c.post(ctx, path, body)
	if err != nil {
		return err
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, serverReplyMax)).Decode(into)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return serverError(ctx, path, err)
	}
	return nil
}

func (c *serverClient) Tokenize(ctx context.Context, text string) ([]infer.TokenID, error) {
	var out struct {
		Tokens []infer.TokenID `json:"tokens"`
	}
	err := c.call(ctx, "/tokenize", map[string]any{"content": text, "parse_special": false}, &out)
	return out.Tokens, err
}

// sameBuild refuses a server of another commit. Errors: ErrPeerBuild, ErrOutput.
func (c *serverClient) sameBuild(ctx context.Context, commit string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/props", nil)
	if err != nil {
		return err
	}
	var props struct {
		Build string `json:"build_info"`
	}
	resp, err := c.http.Do(req)
	if err == nil {
		err = errors.Join(
			json.NewDecoder(io.LimitReader(resp.Body, serverReplyMax)).Decode(&props),
			resp.Body.Close())
	}
	if err != nil {
		return serverError(ctx, "/props", err)
	}
	if !strings.Contains(props.Build, commit) {
		return &Error{
			Op: "peer", Kind: ErrPeerBuild, Field: "llama-server", Hint: "run `make peers`",
			Err: fmt.Errorf("build %s, norion has %s", clip(props.Build), commit),
		}
	}
	return nil
}

// serverEvent is one event of a streamed completion, as far as it is used.
type serverEvent struct {
	Tokens  []infer.TokenID `json:"tokens"`
	Stop    bool            `json:"stop"`
	Slot    int             `json:"id_slot"`
	Prompt  int             `json:"tokens_evaluated"`
	Timings *struct {
		Cached   int `json:"cache_n"`
		Computed int `json:"prompt_n"`
		Answer   int `json:"predicted_n"`
		Drafted  int `json:"draft_n"`
		Accepted int `json:"draft_n_accepted"`
	} `json:"timings"`
	Error json.RawMessage `json:"error"`
}

// readEvents reads a stream of server-sent events up to the final one. Errors: ErrOutput kinds are
// the caller's to make.
func readEvents(r io.Reader, each func(serverEvent) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), serverLineMax)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			if data, ok = bytes.CutPrefix(lines.Bytes(), []byte("error: ")); ok {
				return fmt.Errorf("it says %s", clip(string(data)))
			}
			continue
		}
		var e serverEvent
		if err := json.Unmarshal(data, &e); err != nil {
			return err
		}
		if e.Error != nil {
			return fmt.Errorf("it says %s", e.Error)
		}
		if err := each(e); err != nil || e.Stop {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

func (c *serverClient) Ask(ctx context.Context, q question, came func(int)) (r reply, err error) {
	const path = "/completion"
	body := map[string]any{
		"prompt": q.Tokens, "n_predict": q.Answer, "ignore_eos": true, "stream": true,
		"temperature": 0, "return_tokens": true, "cache_prompt": true,
	}
	if q.Endless != nil {
		body["n_keep"] = q.Endless.Sinks
	}
	for k, v := range c.extra {
		body[k] = v
	}
	if q.Temperature > 0 {
		body["temperature"], body["seed"] = q.Temperature, q.Seed
		body["samplers"] = []string{"temperature"}
	}
	resp, err := c.post(ctx, path, body)
	if err != nil {
		return r, err
	}
	answered := 0
	err = readEvents(resp.Body, func(e serverEvent) error {
		if !e.Stop {
			came(len(e.Tokens))
			answered += len(e.Tokens)
			if q.Keep {
				r.Answer = append(r.Answer, e.Tokens...)
			}
			return nil
		}
		c.mu.Lock()
		c.slots[e.Slot] = true
		c.mu.Unlock()
		if e.Timings == nil || e.Prompt != len(q.Tokens) ||
			e.Timings.Computed+e.Timings.Cached != len(q.Tokens) {
			return fmt.Errorf("%d prompt tokens, not %d, or no timings: %+v", e.Prompt, len(q.Tokens),
				e.Timings)
		}
		r.Computed = e.Timings.Computed
		r.Drafted, r.Accepted = e.Timings.Drafted, e.Timings.Accepted
		// Tokens whose text is not whole characters yet are not streamed.
		if missing := e.Timings.Answer - answered; missing > 0 && !q.Keep {
			came(missing)
		}
		return nil
	})
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		err = serverError(ctx, path, err)
	}
	return r, err
}

// keepSlots saves or restores the state of every slot that answered, in the directory that the
// server was started with.
func (c *serverClient) keepSlots(ctx context.Context, action string) error {
	c.mu.Lock()
	slots := make([]int, 0, len(c.slots))
	for s := range c.slots {
		slots = append(slots, s)
	}
	c.mu.Unlock()
	slices.Sort(slots)
	for _, s := range slots {
		var ignored json.RawMessage
		err := c.call(ctx, fmt.Sprintf("/slots/%d?action=%s", s, action),
			map[string]any{"filename": fmt.Sprintf("slot-%d.bin", s)}, &ignored)
		if err != nil {
			return err
		}
	}
	return nil
}
