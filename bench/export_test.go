package bench

import (
	"context"
	"io"

	"github.com/norion/norion/runtime/infer"
)

// AskServer gives a way to ask a server at a URL and to learn how many prompt tokens it computed.
func AskServer(url string, extra map[string]any) func(
	ctx context.Context, prompt []infer.TokenID, answer int, came func(int)) (int, error) {
	c := newServerClient(url, extra)
	return func(ctx context.Context, prompt []infer.TokenID, answer int, came func(int)) (int, error) {
		defer c.http.CloseIdleConnections()
		r, err := c.Ask(ctx, question{Tokens: prompt, Answer: answer}, came)
		return r.Computed, err
	}
}

// ReadEvents reads a stream of server-sent events.
func ReadEvents(r io.Reader, each func(stop bool)) error {
	return readEvents(r, func(e serverEvent) error {
		each(e.Stop)
		return nil
	})
}
