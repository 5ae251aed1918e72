package httpapi

import (
	"fmt"

	"github.com/norion/norion/runtime/infer"
)

// messages turns a conversation into that of package infer.
func messages(in []chatMessage) ([]infer.Message, error) {
	if len(in) == 0 {
		return nil, missing("messages")
	}
	called := map[string]string{} // names of tools, by the id of a call
	out := make([]infer.Message, 0, len(in))
	for i := range in {
		m, err := in[i].message(called)
		if err != nil {
			err.param = joinParams(fmt.Sprintf("messages[%d]", i), err.param)
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// message turns one turn, and remembers the calls that later turns answer.
func (m *chatMessage) message(called map[string]string) (infer.Message, *fault) {
	out := infer.Message{Content: m.Content.text}
	if err := m.Others.check(messageSettings); err != nil {
		return out, faultOf(err)
	}
	allowed := m.Role == "assistant"
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"tool_calls", len(m.ToolCalls) > 0 && !allowed},
		{"refusal", m.Refusal != "" && !allowed},
		{"reasoning_content", m.Reasoning != "" && !allowed},
		{"tool_call_id", m.ToolCallID != "" && m.Role != "tool"},
		{"name", m.Name != "" && m.Role != "tool"},
	} {
		if f.set {
			return out, unsupported(f.name, "a message of this role cannot have it")
		}
	}
	switch m.Role {
	case "system", "developer":
		out.Role = infer.RoleSystem
	case "user":
		out.Role = infer.RoleUser
	case "assistant":
		out.Role, out.Reasoning = infer.RoleAssistant, m.Reasoning
		if m.Refusal != "" && out.Content == "" {
			out.Content = m.Refusal
		}
		err := addCalls(&out, m.ToolCalls, called)
		if err == nil && !m.Content.set && m.Refusal == "" && len(m.ToolCalls) == 0 {
			err = missing("content")
		}
		return out, err
	case "tool":
		name, ok := called[m.ToolCallID]
		switch {
		case m.ToolCallID == "":
			return out, missing("tool_call_id")
		case !ok:
			return out, refuse(codeInvalidValue, "tool_call_id",
				"no call before this message has the id '%s'", clip(m.ToolCallID))
		case m.Name != "" && m.Name != name:
			return out, refuse(codeInvalidValue, "name", "the call was of '%s'", clip(name))
		}
		out.Role, out.Name, out.ToolCallID = infer.RoleTool, name, m.ToolCallID
	case "":
		return out, missing("role")
	default:
		return out, refuse(codeInvalidValue, "role",
			"'%s' is none of system, developer, user, assistant and tool", clip(m.Role))
	}
	if !m.Content.set {
		return out, missing("content")
	}
	return out, nil
}

func addCalls(out *infer.Message, calls []toolCall, called map[string]string) *fault {
	for i, c := range calls {
		at := fmt.Sprintf("tool_calls[%d]", i)
		switch {
		case c.Type != "function" && c.Type != "":
			return refuse(codeUnsupported, at+".type", "'%s' is not supported: only functions are",
				clip(c.Type))
		case c.ID == "":
			return missing(at + ".id")
		case c.Function.Name == "":
			return missing(at + ".function.name")
		}
		called[c.ID] = c.Function.Name
		out.ToolCalls = append(out.ToolCalls, infer.ToolCall{
			ID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments,
		})
	}
	return nil
}
