package httpapi

import "github.com/norion/norion/runtime/infer"

// anthropicStream writes an answer as Anthropic's events. A block opens when its first piece
// comes, and closes when another one opens or the answer ends.
type anthropicStream struct {
	head  anthropicAnswer
	index int    // of the block that is open, or of the next one
	open  string // type of the block that is open, or ""
	call  int    // index of the call that is open
	final *infer.Final
}

type blockStart struct {
	Type  string `json:"type"`
	Index int    `json:"index"`
	Block any    `json:"content_block"`
}

type blockDelta struct {
	Type  string `json:"type"`
	Index int    `json:"index"`
	Delta any    `json:"delta"`
}

type textDelta struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type thinkingDelta struct {
	Type     string `json:"type"`
	Thinking string `json:"thinking"`
}

type inputDelta struct {
	Type string `json:"type"`
	JSON string `json:"partial_json"`
}

func (s *anthropicStream) begin(w *sse) error {
	return w.event("message_start", map[string]any{"type": "message_start", "message": s.head})
}

func (s *anthropicStream) piece(w *sse, e *event) error {
	c := &e.chunk
	if c.Reasoning != "" {
		err := s.delta(w, "thinking", thinkingBlock{Type: "thinking"},
			thinkingDelta{"thinking_delta", c.Reasoning})
		if err != nil {
			return err
		}
	}
	if c.Text != "" {
		err := s.delta(w, "text", textBlock{Type: "text"}, textDelta{"text_delta", c.Text})
		if err != nil {
			return err
		}
	}
	for _, t := range c.ToolCalls {
		if s.open == "tool_use" && s.call != t.Index {
			if err := s.close(w); err != nil {
				return err
			}
		}
		s.call = t.Index
		block := toolBlock{"tool_use", t.ID, t.Name, map[string]any{}}
		err := s.delta(w, "tool_use", block, inputDelta{"input_json_delta", t.Arguments})
		if err != nil {
			return err
		}
	}
	if c.Final != nil {
		s.final = c.Final
	}
	return nil
}

// delta tells more of a block of a type, and opens it first where need be.
func (s *anthropicStream) delta(w *sse, kind string, block, delta any) error {
	if s.open != kind {
		if err := s.close(w); err != nil {
			return err
		}
		s.open = kind
		start := blockStart{"content_block_start", s.index, block}
		if err := w.event("content_block_start", start); err != nil {
			return err
		}
	}
	return w.event("content_block_delta", blockDelta{"content_block_delta", s.index, delta})
}

func (s *anthropicStream) close(w *sse) error {
	if s.open == "" {
		return nil
	}
	stop := map[string]any{"type": "content_block_stop", "index": s.index}
	s.open = ""
	s.index++
	return w.event("content_block_stop", stop)
}

func (s *anthropicStream) finish(w *sse) error {
	if err := s.close(w); err != nil {
		return err
	}
	reason, text := stopReason(s.final)
	err := w.event("message_delta", map[string]any{
		"type":  "message_delta",
		"delta": map[string]any{"stop_reason": reason, "stop_sequence": text},
		"usage": anthropicUsageOf(&s.final.Usage),
	})
	if err != nil {
		return err
	}
	return w.event("message_stop", map[string]string{"type": "message_stop"})
}

func (s *anthropicStream) broken(w *sse, f *fault) error {
	_, body := anthropicError(f, w.x.id)
	return w.event("error", body)
}
