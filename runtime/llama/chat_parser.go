package llama

import (
	"crypto/rand"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// ChatDelta is what one piece of an answer added. Fields that did not grow are empty.
type ChatDelta struct {
	Content   string
	Reasoning string
	ToolCalls []ToolCallDelta
}

// ToolCallDelta extends the tool call at Index. ID and Name come once, Arguments grow.
type ToolCallDelta struct {
	Index     int
	ID        string
	Name      string
	Arguments string
}

// Empty says that nothing was added.
func (d *ChatDelta) Empty() bool {
	return d.Content == "" && d.Reasoning == "" && len(d.ToolCalls) == 0
}

// ChatParser reads one answer as it is generated. Its cost grows with the answer: each piece
// parses the whole text so far, as upstream does. One goroutine at a time.
type ChatParser struct {
	life
	h    parserHandle
	text strings.Builder // the answer so far, complete characters only
	rest string          // bytes of a character that is not complete
	// Brackets that are open now, and that were at most, wherever they stand.
	depth, deepest int
	msg            ChatMessage // as parsed last
	sent           ChatMessage // what the deltas add up to
	ids            func() string
}

// NewParser makes a parser for the answer to the prompt. newID names the calls to which the model
// gave no id in time; nil means nine random letters and digits, which every known template takes.
// Where the prompt continues a message, the answer is that message with what is added, and the
// deltas tell only what is added. Errors: Invalid, Missing.
func (p *ChatPrompt) NewParser(newID func() string) (*ChatParser, error) {
	if newID == nil {
		newID = randomID
	}
	h, err := newParser(p.spec)
	if err != nil {
		return nil, err
	}
	c := &ChatParser{h: h, ids: newID}
	c.msg.Role = "assistant"
	if p.continues && c.parse(true) == nil {
		c.advance(true)
	}
	return c, nil
}

func randomID() string { return rand.Text()[:9] }

// Parse reads a whole answer, or the beginning of one. Where a whole answer does not have the
// shape that the template's model gives it, the error is Parse and Content is the text as it is.
func (p *ChatPrompt) Parse(text string, partial bool) (ChatMessage, error) {
	c, err := p.NewParser(nil)
	if err != nil {
		return ChatMessage{}, err
	}
	defer func() { _ = c.Close() }() // nobody else has it
	if _, err := c.Add(text); err != nil || partial {
		return c.Message(), err
	}
	msg, _, err := c.Finish()
	return msg, err
}

// Add takes the next piece of the answer and returns what it added. Text that does not parse yet
// adds nothing. Errors: Parse beyond AnswerBytesMax, Closed.
func (c *ChatParser) Add(text string) (ChatDelta, error) {
	if err := c.enter("parse"); err != nil {
		return ChatDelta{}, err
	}
	defer c.leave()
	if c.text.Len()+len(c.rest)+len(text) > AnswerBytesMax {
		return ChatDelta{}, fail("parse", Parse, "", "an answer of more than %d bytes", AnswerBytesMax)
	}
	text = c.rest + text
	cut := completeUTF8(text)
	c.rest = text[cut:]
	if cut == 0 {
		return ChatDelta{}, nil
	}
	c.write(text[:cut])
	if err := c.parse(true); err != nil {
		return ChatDelta{}, nil // more text may mend it; Finish reports
	}
	return c.advance(false), nil
}

// write appends to the answer and follows its nesting.
func (c *ChatParser) write(text string) {
	c.text.WriteString(strings.ToValidUTF8(text, "\uFFFD"))
	for i := range len(text) {
		switch text[i] {
		case '[', '{':
			c.deepest = max(c.deepest, c.depth+1)
			c.depth++
		case ']', '}':
			c.depth = max(0, c.depth-1)
		}
	}
}

// Finish says that the answer is complete, and returns it and what had not been told yet. Where it
// does not parse, the error is Parse and the Content of the message is the text as it is.
func (c *ChatParser) Finish() (ChatMessage, ChatDelta, error) {
	if err := c.enter("parse"); err != nil {
		return ChatMessage{}, ChatDelta{}, err
	}
	defer c.leave()
	if c.rest != "" {
		c.text.WriteString("\uFFFD")
		c.rest = ""
	}
	if err := c.parse(false); err != nil {
		return ChatMessage{Role: "assistant", Content: c.text.String()}, ChatDelta{}, err
	}
	return c.msg, c.advance(true), nil
}

// Message is the answer so far.
func (c *ChatParser) Message() ChatMessage { return c.msg }

// Close frees the parser.
func (c *ChatParser) Close() error {
	return c.close("close parser", func() { freeParser(c.h) })
}

func (c *ChatParser) parse(partial bool) error {
	if c.deepest > answerDepthMax { // the parser behind recurses, and takes no memory for it
		return fail("parse", Parse, "", "brackets nest more than %d levels", answerDepthMax)
	}
	data, err := parseAnswer(c.h, c.text.String(), partial)
	if err != nil {
		return err
	}
	msg := ChatMessage{Role: "assistant"}
	if err := json.Unmarshal(data, &msg); err != nil {
		return fail("parse", Internal, "", "%w", err)
	}
	if len(msg.ToolCalls) == 0 {
		msg.ToolCalls = nil
	}
	for i := range msg.ToolCalls {
		id := &msg.ToolCalls[i].ID
		switch {
		case i < len(c.msg.ToolCalls) && c.msg.ToolCalls[i].ID != "":
			*id = c.msg.ToolCalls[i].ID // an id that was told once stays
		case *id == "" && msg.ToolCalls[i].Name != "":
			*id = c.ids()
		}
	}
	c.msg = msg
	return nil
}

// advance tells what the message has beyond what was told. A name is told once it cannot grow any
// more: when its arguments, another call or the end has come.
func (c *ChatParser) advance(final bool) ChatDelta {
	d := ChatDelta{
		Content:   extend(&c.sent.Content, c.msg.Content),
		Reasoning: extend(&c.sent.Reasoning, c.msg.Reasoning),
	}
	for i, call := range c.msg.ToolCalls {
		if i == len(c.sent.ToolCalls) {
			sure := final || call.Arguments != "" || i+1 < len(c.msg.ToolCalls)
			if !sure || call.Name == "" {
				break
			}
			c.sent.ToolCalls = append(c.sent.ToolCalls, ToolCall{ID: call.ID, Name: call.Name})
			named := ToolCallDelta{Index: i, ID: call.ID, Name: call.Name}
			d.ToolCalls = append(d.ToolCalls, named)
		}
		grown := extend(&c.sent.ToolCalls[i].Arguments, call.Arguments)
		if n := len(d.ToolCalls); n > 0 && d.ToolCalls[n-1].Index == i {
			d.ToolCalls[n-1].Arguments = grown
		} else if grown != "" {
			d.ToolCalls = append(d.ToolCalls, ToolCallDelta{Index: i, Arguments: grown})
		}
	}
	return d
}

// extend moves sent on to now and returns what was added. While now is not a continuation of sent,
// as when a parse takes something back, nothing is told.
func extend(sent *string, now string) string {
	grown, ok := strings.CutPrefix(now, *sent)
	if !ok {
		return ""
	}
	*sent = now
	return grown
}

// completeUTF8 is the length of text without a character that ends too early.
func completeUTF8(text string) int {
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		at := len(text) - back
		if !utf8.RuneStart(text[at]) {
			continue
		}
		if !utf8.FullRuneInString(text[at:]) {
			return at
		}
		break
	}
	return len(text)
}
