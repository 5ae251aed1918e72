package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// parseShare bounds what parsing an answer costs. The parser reads the whole answer each time, so
// it is called when the answer has grown by one part in so many: then a token costs no more in a
// long answer than in one of parseShare bytes, and a chunk of 16 KiB of answer holds 64 bytes.
const parseShare = 256

// spell is the text of a token: control tokens that the answer's format is made of are shown to
// its parser.
func (g *generation) spell(p *llama.Pick) []byte {
	if len(p.Piece) > 0 || !g.shown[p.Token] {
		return p.Piece
	}
	g.special, _ = g.e.model.AppendPiece(g.special[:0], p.Token, true)
	return g.special
}

// show puts text into a chunk: as it is, or as its parser reads it.
func (g *generation) show(chunk *infer.Chunk, text string) error {
	if text == "" {
		return nil
	}
	if g.parser == nil {
		chunk.Text = text
		g.answer.WriteString(text)
		return nil
	}
	if g.unread += text; len(g.unread) < g.read/parseShare {
		return nil
	}
	return g.parse(chunk)
}

// parse gives the parser what it has not read.
func (g *generation) parse(chunk *infer.Chunk) error {
	d, err := g.parser.Add(g.unread)
	if err != nil {
		return err
	}
	g.read, g.unread = g.read+len(g.unread), ""
	g.tell(chunk, &d)
	return nil
}

// tell puts a delta into a chunk, and remembers it.
func (g *generation) tell(chunk *infer.Chunk, d *llama.ChatDelta) {
	chunk.Text, chunk.Reasoning = d.Content, d.Reasoning
	g.told.Content += d.Content
	g.told.Reasoning += d.Reasoning
	for _, c := range d.ToolCalls {
		chunk.ToolCalls = append(chunk.ToolCalls, infer.ToolCallDelta(c))
		if c.Index == len(g.told.ToolCalls) {
			g.told.ToolCalls = append(g.told.ToolCalls, infer.ToolCall{ID: c.ID, Name: c.Name})
		}
		g.told.ToolCalls[c.Index].Arguments += c.Arguments
	}
}

// addTo joins the text of a later chunk to a chunk.
func addTo(chunk, later *infer.Chunk) {
	chunk.Text += later.Text
	chunk.Reasoning += later.Reasoning
	chunk.ToolCalls = append(chunk.ToolCalls, later.ToolCalls...)
}

// conclude shows what was held back and closes the answer.
func (g *generation) conclude(reason infer.Finish) (*infer.Final, error) {
	final := &infer.Final{
		Reason: reason, Stop: g.text.met, Seed: g.r.Sampling.Seed,
		Answer: infer.Message{Role: infer.RoleAssistant}, Notes: g.notes,
	}
	chunk := infer.Chunk{}
	if g.text.met == "" {
		if err := g.show(&chunk, g.text.flush()); err != nil {
			return nil, err
		}
	}
	if g.parser == nil {
		final.Answer.Content = g.answer.String()
	} else if err := g.concludeParser(final, &chunk); err != nil {
		return nil, err
	}
	if chunk.Text != "" || chunk.Reasoning != "" || len(chunk.ToolCalls) > 0 {
		chunk.Tokens, g.unsent = g.unsent, 0
		if !g.send(chunk) {
			return nil, context.Cause(g.ctx)
		}
	}
	return final, nil
}

// concludeParser reads the whole answer. Of one that does not parse, what was told stays; text that
// was not told follows as content, unless the answer was cut.
func (g *generation) concludeParser(final *infer.Final, chunk *infer.Chunk) error {
	if g.unread != "" {
		before := infer.Chunk{}
		if err := g.parse(&before); err != nil {
			return err
		}
		addTo(chunk, &before)
	}
	msg, d, err := g.parser.Finish()
	if err != nil {
		if !errors.Is(err, llama.Parse) {
			return err
		}
		d = llama.ChatDelta{}
		if rest, ok := strings.CutPrefix(msg.Content, g.told.Content); ok &&
			final.Reason != infer.FinishLength && final.Stop == "" {
			d.Content = rest
		}
	}
	rest := infer.Chunk{}
	g.tell(&rest, &d)
	addTo(chunk, &rest)
	if final.Answer = g.told; err == nil {
		final.Answer.Content, final.Answer.Reasoning = msg.Content, msg.Reasoning
		final.Answer.ToolCalls = nil
		for _, c := range msg.ToolCalls {
			final.Answer.ToolCalls = append(final.Answer.ToolCalls, infer.ToolCall(c))
		}
	}
	n := len(final.Answer.ToolCalls)
	if n > 0 && final.Reason == infer.FinishStop &&
		(final.Stop == "" || json.Valid([]byte(final.Answer.ToolCalls[n-1].Arguments))) {
		final.Reason = infer.FinishTools // a stop text within a call leaves it unfinished
	}
	return nil
}
