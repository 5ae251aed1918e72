package httpapi

import "github.com/norion/norion/runtime/infer"

// chatStream writes an answer as chat.completion.chunk events.
type chatStream struct {
	x        *exchange
	head     chatHead
	usage    bool // asked for
	logprobs bool
	said     []bool // by choice: it has told its role
}

// chatPiece is one event.
type chatPiece struct {
	chatHead
	Choices []chatDelta `json:"choices"`
	Usage   **usage     `json:"usage,omitzero"` // nil where not asked for; else null or the figures
	Timings *timings    `json:"timings,omitzero"`
	Notes   []string    `json:"notes,omitempty"`
}

type chatDelta struct {
	Index    int           `json:"index"`
	Delta    delta         `json:"delta"`
	Logprobs *chatLogprobs `json:"logprobs"`
	Finish   *infer.Finish `json:"finish_reason"`
}

type delta struct {
	Role      infer.Role  `json:"role,omitempty"`
	Content   *string     `json:"content,omitzero"`
	Reasoning string      `json:"reasoning_content,omitempty"`
	ToolCalls []callDelta `json:"tool_calls,omitempty"`
}

type callDelta struct {
	Index    int    `json:"index"`
	ID       string `json:"id,omitempty"`
	Type     string `json:"type,omitempty"`
	Function struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

func (s *chatStream) begin(*sse) error { return nil }

func (s *chatStream) event(w *sse, d chatDelta, more func(*chatPiece)) error {
	p := chatPiece{chatHead: s.head, Choices: []chatDelta{d}}
	if s.usage {
		p.Usage = new(*usage)
	}
	if more != nil {
		more(&p)
	}
	return w.event("", &p)
}

func (s *chatStream) piece(w *sse, e *event) error {
	if !s.said[e.choice] {
		s.said[e.choice] = true
		empty := ""
		d := chatDelta{Index: e.choice, Delta: delta{Role: infer.RoleAssistant, Content: &empty}}
		if err := s.event(w, d, nil); err != nil {
			return err
		}
	}
	c := &e.chunk
	d := chatDelta{Index: e.choice, Delta: delta{Reasoning: c.Reasoning}}
	if c.Text != "" {
		d.Delta.Content = &c.Text
	}
	for _, t := range c.ToolCalls {
		call := callDelta{Index: t.Index, ID: t.ID}
		if t.ID != "" || t.Name != "" {
			call.Type = "function"
		}
		call.Function.Name, call.Function.Arguments = t.Name, t.Arguments
		d.Delta.ToolCalls = append(d.Delta.ToolCalls, call)
	}
	if s.logprobs && len(c.Logprobs) > 0 {
		d.Logprobs = &chatLogprobs{Content: logprobsOf(c.Logprobs)}
	}
	if c.Text != "" || c.Reasoning != "" || len(c.ToolCalls) > 0 || d.Logprobs != nil {
		if err := s.event(w, d, nil); err != nil {
			return err
		}
	}
	if c.Final == nil {
		return nil
	}
	return s.event(w, chatDelta{Index: e.choice, Finish: &c.Final.Reason}, func(p *chatPiece) {
		t := timingsOf(&c.Final.Usage)
		p.Timings, p.Notes = &t, c.Final.Notes
	})
}

func (s *chatStream) finish(w *sse) error {
	if s.usage {
		u := usageOf(&s.x.usage)
		p := chatPiece{chatHead: s.head, Choices: []chatDelta{}, Usage: &u}
		if err := w.event("", &p); err != nil {
			return err
		}
	}
	w.done()
	return nil
}

// broken tells of an error as OpenAI's clients read it. Without [DONE], so that none takes the
// answer for whole.
func (s *chatStream) broken(w *sse, f *fault) error { return w.event("", errorBody(f)) }
