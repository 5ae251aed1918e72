package conform

import (
	"context"
	"fmt"

	"github.com/norion/norion/runtime/infer"
)

// checkCloseRunning closes the backend within the loop of a request: Close must not wait for the
// loop to go on, and the request must end soon and say why.
func checkCloseRunning(ctx context.Context, s *subject) error {
	if !s.info.Abilities.Generate {
		return s.Close()
	}
	tokens, closed := 0, false
	for c, err := range s.Generate(ctx, s.long()) {
		switch {
		case err != nil && !closed:
			return err
		case err != nil:
			return fails(err, infer.KindClosed)
		case closed:
			tokens += c.Tokens
		default:
			if err := s.Close(); err != nil {
				return err
			}
			closed = true
		}
	}
	return fmt.Errorf("it went on for %d tokens once closed, and ended without an error", tokens)
}

// checkClosed uses a closed backend.
func checkClosed(ctx context.Context, s *subject) error {
	for range 2 {
		if err := s.Close(); err != nil {
			return fmt.Errorf("closed again: %w", err)
		}
	}
	if s.info.Abilities.Generate {
		if err := fails(s.lastError(ctx, s.plain()), infer.KindClosed); err != nil {
			return fmt.Errorf("generate: %w", err)
		}
	}
	if s.info.Abilities.Embed {
		_, err := s.Embed(ctx, []string{"a"})
		if err := fails(err, infer.KindClosed); err != nil {
			return fmt.Errorf("embed: %w", err)
		}
	}
	if s.info.Abilities.Score {
		_, err := s.Score(ctx, infer.ScoreRequest{Text: s.o.Prompt})
		if err := fails(err, infer.KindClosed); err != nil {
			return fmt.Errorf("score: %w", err)
		}
	}
	_, err := s.Tokenize(ctx, s.o.Prompt, infer.TokenizeOptions{})
	if err != nil && infer.KindOf(err) == infer.KindUnsupported {
		return nil
	}
	if err := fails(err, infer.KindClosed); err != nil {
		return fmt.Errorf("tokenize: %w", err)
	}
	s.Info() // must still answer
	return nil
}
