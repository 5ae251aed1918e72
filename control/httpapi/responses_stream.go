package httpapi

import "github.com/norion/norion/runtime/infer"

// responseStream writes an answer as the events of the Responses interface. Items open when their
// first piece comes, and close when another one opens or the answer ends.
type responseStream struct {
	x        *exchange
	head     responseObject
	logprobs bool

	sequence int
	output   []any       // items that are closed
	open     *streamItem // nil between items
	final    *infer.Final
}

// streamItem is the item that is being told.
type streamItem struct {
	kind     itemKind
	id       string
	text     string // or arguments
	call     infer.ToolCallDelta
	logprobs []tokenLogprob
}

type itemKind int

const (
	reasoningKind itemKind = iota
	textKind
	callKind
)

// responseEvent is any event; which fields there are depends on its type.
type responseEvent struct {
	Type         string          `json:"type"`
	Sequence     int             `json:"sequence_number"`
	Response     *responseObject `json:"response,omitzero"`
	OutputIndex  *int            `json:"output_index,omitzero"`
	ItemID       string          `json:"item_id,omitempty"`
	ContentIndex *int            `json:"content_index,omitzero"`
	Item         any             `json:"item,omitzero"`
	Part         any             `json:"part,omitzero"`
	Delta        *string         `json:"delta,omitzero"`
	Text         *string         `json:"text,omitzero"`
	Name         string          `json:"name,omitempty"`
	Arguments    *string         `json:"arguments,omitzero"`
	Logprobs     *[]tokenLogprob `json:"logprobs,omitzero"`
	Code         string          `json:"code,omitempty"`
	Message      string          `json:"message,omitempty"`
	Param        *string         `json:"param,omitzero"`
}

func (s *responseStream) send(w *sse, e responseEvent) error {
	e.Sequence = s.sequence
	s.sequence++
	return w.event(e.Type, &e)
}

// state sends the whole response in its present state.
func (s *responseStream) state(w *sse, kind string, o responseObject) error {
	return s.send(w, responseEvent{Type: kind, Response: &o})
}

func (s *responseStream) begin(w *sse) error {
	if err := s.state(w, "response.created", s.head); err != nil {
		return err
	}
	return s.state(w, "response.in_progress", s.head)
}

func (s *responseStream) piece(w *sse, e *event) error {
	c := &e.chunk
	if c.Reasoning != "" {
		if err := s.add(w, reasoningKind, c.Reasoning, nil); err != nil {
			return err
		}
	}
	if c.Text != "" || s.logprobs && len(c.Logprobs) > 0 {
		var l []tokenLogprob
		if s.logprobs {
			l = logprobsOf(c.Logprobs)
		}
		if err := s.add(w, textKind, c.Text, l); err != nil {
			return err
		}
	}
	for _, t := range c.ToolCalls {
		if err := s.addCall(w, t); err != nil {
			return err
		}
	}
	if c.Final != nil {
		s.final = c.Final
	}
	return nil
}

// add tells more text of a kind.
func (s *responseStream) add(w *sse, kind itemKind, text string, l []tokenLogprob) error {
	if s.open == nil || s.open.kind != kind {
		if err := s.close(w, "completed"); err != nil {
			return err
		}
		if err := s.begun(w, &streamItem{kind: kind, id: newID(prefixes[kind])}); err != nil {
			return err
		}
	}
	s.open.text += text
	s.open.logprobs = append(s.open.logprobs, l...)
	out := responseEvent{Type: "response.reasoning_text.delta", Delta: &text}
	if kind == textKind {
		out.Type, out.Logprobs = "response.output_text.delta", &l
	}
	return s.at(w, out)
}

var prefixes = [...]string{reasoningKind: "rs_", textKind: "msg_", callKind: "fc_"}

// addCall tells more of a call.
func (s *responseStream) addCall(w *sse, t infer.ToolCallDelta) error {
	if s.open == nil || s.open.kind != callKind || s.open.call.Index != t.Index {
		if err := s.close(w, "completed"); err != nil {
			return err
		}
		if err := s.begun(w, &streamItem{kind: callKind, id: newID("fc_"), call: t}); err != nil {
			return err
		}
	}
	if t.Arguments == "" {
		return nil
	}
	s.open.text += t.Arguments
	return s.at(w, responseEvent{Type: "response.function_call_arguments.delta", Delta: &t.Arguments})
}

// at sends an event about the item that is open.
func (s *responseStream) at(w *sse, e responseEvent) error {
	index, part := len(s.output), 0
	e.OutputIndex, e.ItemID = &index, s.open.id
	if s.open.kind != callKind {
		e.ContentIndex = &part
	}
	return s.send(w, e)
}

// begun opens an item.
func (s *responseStream) begun(w *sse, it *streamItem) error {
	s.open = it
	index := len(s.output)
	empty := *it
	added := responseEvent{Type: "response.output_item.added", OutputIndex: &index}
	added.Item = empty.item("in_progress", false)
	if err := s.send(w, added); err != nil || it.kind == callKind {
		return err
	}
	return s.at(w, responseEvent{Type: "response.content_part.added", Part: empty.part()})
}

// part is the item's content.
func (it *streamItem) part() any {
	if it.kind == reasoningKind {
		return reasoningPart{Type: "reasoning_text", Text: it.text}
	}
	return newTextPart(it.text, it.logprobs)
}

// item is the item as a whole, with its content or without.
func (it *streamItem) item(status string, filled bool) any {
	switch it.kind {
	case callKind:
		return callItem{
			ID: it.id, Type: "function_call", Status: status, CallID: it.call.ID, Name: it.call.Name,
			Arguments: it.text,
		}
	case reasoningKind:
		out := reasoningItem{ID: it.id, Type: "reasoning", Status: status}
		if filled {
			out.Content = []reasoningPart{it.part().(reasoningPart)}
		}
		return out
	}
	out := newMessageItem(status)
	out.ID = it.id
	if filled {
		out.Content = []textPart{it.part().(textPart)}
	}
	return out
}

// close tells that the item which is open has come to its end.
func (s *responseStream) close(w *sse, status string) error {
	it := s.open
	if it == nil {
		return nil
	}
	done := responseEvent{Type: "response.reasoning_text.done", Text: &it.text}
	switch it.kind {
	case textKind:
		done.Type, done.Logprobs = "response.output_text.done", &it.logprobs
	case callKind:
		done = responseEvent{
			Type: "response.function_call_arguments.done", Arguments: &it.text, Name: it.call.Name,
		}
	}
	if err := s.at(w, done); err != nil {
		return err
	}
	if it.kind != callKind {
		part := responseEvent{Type: "response.content_part.done", Part: it.part()}
		if err := s.at(w, part); err != nil {
			return err
		}
	}
	whole, index := it.item(status, true), len(s.output)
	s.output, s.open = append(s.output, whole), nil
	return s.send(w, responseEvent{
		Type: "response.output_item.done", OutputIndex: &index, Item: whole,
	})
}

func (s *responseStream) finish(w *sse) error {
	status, kind := "completed", "response.completed"
	if s.final.Reason == infer.FinishLength {
		status, kind = "incomplete", "response.incomplete"
	}
	if s.open == nil && len(s.output) == 0 { // an answer without a word
		it := &streamItem{kind: textKind, id: newID("msg_")}
		if err := s.begun(w, it); err != nil {
			return err
		}
	}
	if err := s.close(w, status); err != nil {
		return err
	}
	return s.state(w, kind, s.head.whole(s.final, s.output))
}

func (s *responseStream) broken(w *sse, f *fault) error {
	o := s.head
	o.Status, o.Output = "failed", s.output
	o.Error = &responseError{Code: f.code, Message: f.message}
	return s.state(w, "response.failed", o)
}
