package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/norion/norion/runtime/infer"
)

// modelList is the answer of /v1/models, with what llama-server, vLLM and norion say besides.
type modelList struct {
	Data []model `json:"data"`
}

type model struct {
	ID      string   `json:"id"`
	Aliases []string `json:"aliases"`
	Owner   string   `json:"owned_by"`
	Context int      `json:"max_model_len"` // vLLM
	Meta    struct {
		Architecture string   `json:"architecture"`
		Description  string   `json:"description"`
		Digest       string   `json:"digest"`
		Vocabulary   int      `json:"n_vocab"`
		Context      int      `json:"n_ctx"`
		Trained      int      `json:"n_ctx_train"`
		Embedding    int      `json:"n_embd"`
		Parameters   int64    `json:"n_params"`
		Bytes        int64    `json:"size"`
		Reasoning    bool     `json:"reasoning"`
		Adapters     []string `json:"adapters"`
		Notes        []string `json:"notes"`
	} `json:"meta"`
}

// properties are what llama-server says at /props.
type properties struct {
	Build    string `json:"build_info"`
	Slots    int    `json:"total_slots"`
	Settings struct {
		Context int `json:"n_ctx"` // of one slot
	} `json:"default_generation_settings"`
}

// probe learns what the endpoint is, and then what it can do, by asking it to.
func (b *Backend) probe(ctx context.Context) error {
	var list modelList
	if err := b.get(ctx, "probe", "GET", "/v1/models", nil, &list); err != nil {
		return err
	}
	m, err := pick(list.Data, b.o.Model)
	if err != nil {
		return err
	}
	b.info = infer.Info{
		Model: m.ID, Digest: m.Meta.Digest, Architecture: m.Meta.Architecture,
		Description: m.Meta.Description, Engine: m.Owner, Parameters: m.Meta.Parameters,
		Bytes: m.Meta.Bytes, Vocabulary: m.Meta.Vocabulary, ContextTokens: m.Meta.Context,
		TrainedTokens: m.Meta.Trained, Adapters: m.Meta.Adapters, Notes: m.Meta.Notes,
	}
	b.info.Abilities.Reasoning = m.Meta.Reasoning
	switch m.Owner {
	case "norion":
		b.dialect = norion
	case "llamacpp":
		b.dialect = llama
		var p properties
		if err := b.get(ctx, "probe", "GET", "/props", nil, &p); err != nil {
			return err
		}
		b.info.Engine = "llama.cpp " + p.Build
		b.info.ContextTokens, b.info.Sequences = p.Settings.Context, p.Slots
		b.note("it reads the spelling of a control token in a message as that token")
	default:
		b.dialect, b.info.ContextTokens = openAI, m.Context
		if b.info.Engine == "" {
			b.info.Engine = "unknown"
		}
		b.note("it may read the spelling of a control token in a text as that token")
	}
	if len(m.Meta.Adapters) > 0 && b.dialect != norion {
		b.info.Adapters = nil
	}
	return b.probeAbilities(ctx)
}

func (b *Backend) note(text string) { b.info.Notes = append(b.info.Notes, "remote: "+text) }

// pick finds the model.
func pick(all []model, name string) (*model, error) {
	var names []string
	for i := range all {
		names = append(names, all[i].ID)
		if all[i].ID == name && name != "" || name == "" && len(all) == 1 && all[i].ID != "" {
			return &all[i], nil
		}
	}
	err := &infer.Error{
		Op: "probe", Kind: infer.KindModel, Field: "model",
		Hint: "name one of: " + strings.Join(names, ", "),
		Err:  fmt.Errorf("the endpoint has %d models, and none is called %.80q", len(all), name),
	}
	if len(err.Hint) > messageMax {
		err.Hint = strings.ToValidUTF8(err.Hint[:messageMax], "") + "..."
	}
	return nil, err
}

// The answers that probes want. A model would not give them by chance.
const (
	probeWord   = "zq7"
	probeSchema = `{"type":"object","properties":{"code":{"enum":["` + probeWord + `"]}},` +
		`"required":["code"],"additionalProperties":false}`
	probeTokens = 64
)

// probeAbilities asks for each ability once. What is refused, or ignored, is not there; a note says
// why.
func (b *Backend) probeAbilities(ctx context.Context) error {
	can := &b.info.Abilities
	*can = infer.Abilities{ // so that no request is refused here
		Generate: true, Chat: true, Tools: true, Grammar: true, Reasoning: can.Reasoning,
	}
	turn := []infer.Message{{Role: infer.RoleUser, Content: "Give the code."}}
	constrained := infer.Request{Messages: turn, MaxTokens: probeTokens}
	constrained.Constraint.Schema = json.RawMessage(probeSchema)
	for _, p := range []struct {
		what string
		can  *bool
		ask  infer.Request
		want func(*infer.Message) bool
	}{
		{"completions", &can.Generate, infer.Request{Prompt: "Once", MaxTokens: 1}, nil},
		{"chat", &can.Chat, infer.Request{Messages: turn, MaxTokens: 1}, nil},
		{"tools", &can.Tools, infer.Request{
			Messages: turn, MaxTokens: probeTokens, ToolChoice: infer.ToolRequired,
			Tools: []infer.Tool{{Name: "give", Parameters: json.RawMessage(probeSchema)}},
		}, calls},
		{"schemas", &can.Grammar, constrained, obeys},
	} {
		if len(p.ask.Messages) > 0 && !can.Chat {
			if *p.can = false; p.can != &can.Grammar || !can.Generate {
				continue
			}
			*p.can, p.ask.Messages, p.ask.Prompt = true, nil, "Code:"
		}
		m, err := b.whole(ctx, p.ask)
		if err == nil && p.want != nil && !p.want(m) {
			err = errIgnored
		}
		if err = b.without(p.what, p.can, err); err != nil {
			return err
		}
	}
	can.Embed = true
	vectors, err := b.vectors(ctx, []string{"a"})
	if err == nil {
		b.info.EmbeddingSize = len(vectors[0])
	}
	return b.without("embeddings", &can.Embed, err)
}

var errIgnored = &infer.Error{
	Op: "probe", Kind: infer.KindUnsupported, Err: errors.New("the answer is not as was asked"),
}

// whole gives the whole answer to a request.
func (b *Backend) whole(ctx context.Context, r infer.Request) (m *infer.Message, err error) {
	for c, err := range b.Generate(ctx, r) {
		if err != nil {
			return nil, err
		}
		if c.Final != nil {
			m = &c.Final.Answer
		}
	}
	return m, nil
}

// calls says whether an answer calls the tool of the probe.
func calls(m *infer.Message) bool {
	return len(m.ToolCalls) > 0 && m.ToolCalls[0].Name == "give"
}

// obeys says whether an answer is the only one that the schema of the probe allows.
func obeys(m *infer.Message) bool {
	var got map[string]string
	return json.Unmarshal([]byte(m.Content), &got) == nil && len(got) == 1 && got["code"] == probeWord
}

// without takes away an ability for an error which says that the endpoint does not have it. Other
// errors end the probe.
func (b *Backend) without(what string, can *bool, err error) error {
	if err == nil {
		return nil
	}
	e, _ := errors.AsType[*infer.Error](err)
	switch infer.KindOf(err) {
	case infer.KindInvalid, infer.KindUnsupported, infer.KindNoTemplate, infer.KindInternal:
	default:
		return err
	}
	if e != nil && e.Field == "key" {
		return err
	}
	*can = false
	b.note(fmt.Sprintf("no %s: %v", what, err))
	return nil
}
