package httpapi

import "net/http"

// modelObject is a model as OpenAI lists it, with llama-server's meta once it is loaded.
type modelObject struct {
	ID      string     `json:"id"`
	Object  string     `json:"object"`
	Created int64      `json:"created"`
	OwnedBy string     `json:"owned_by"`
	Loaded  bool       `json:"loaded"`
	Meta    *modelMeta `json:"meta,omitzero"`
}

type modelMeta struct {
	Architecture  string `json:"architecture"`
	Description   string `json:"description"`
	Digest        string `json:"digest,omitempty"`
	Vocabulary    int    `json:"n_vocab"`
	ContextTokens int    `json:"n_ctx"`
	TrainedTokens int    `json:"n_ctx_train"`
	EmbeddingSize int    `json:"n_embd"`
	Parameters    int64  `json:"n_params"`
	Bytes         int64  `json:"size"`

	Chat      bool     `json:"chat"`
	Tools     bool     `json:"tools"`
	Reasoning bool     `json:"reasoning"`
	Embed     bool     `json:"embeddings"`
	Adapters  []string `json:"adapters,omitempty"`
	Notes     []string `json:"notes,omitempty"`
}

func objectOf(m *Model) modelObject {
	out := modelObject{
		ID: m.Name, Object: "model", Created: m.Created.Unix(), OwnedBy: "norion",
		Loaded: m.Info != nil,
	}
	if i := m.Info; i != nil {
		out.Meta = &modelMeta{
			Architecture: i.Architecture, Description: i.Description, Digest: i.Digest,
			Vocabulary: i.Vocabulary, ContextTokens: i.ContextTokens, TrainedTokens: i.TrainedTokens,
			EmbeddingSize: i.EmbeddingSize, Parameters: i.Parameters, Bytes: i.Bytes,
			Chat: i.Abilities.Chat, Tools: i.Abilities.Tools, Reasoning: i.Abilities.Reasoning,
			Embed: i.Abilities.Embed, Adapters: i.Adapters, Notes: i.Notes,
		}
	}
	return out
}

// listModels answers GET /v1/models.
func (x *exchange) listModels() error {
	type list struct {
		Object string        `json:"object"`
		Data   []modelObject `json:"data"`
	}
	out := list{Object: "list"}
	all := x.s.o.Models.List()
	for i := range all {
		out.Data = append(out.Data, objectOf(&all[i]))
	}
	x.writeJSON(http.StatusOK, out)
	return nil
}

// oneModel answers GET /v1/models/NAME.
func (x *exchange) oneModel() error {
	name := x.r.PathValue("model")
	if err := checkName(name); err != nil {
		return err
	}
	all := x.s.o.Models.List()
	for i := range all {
		if all[i].Name == name {
			x.writeJSON(http.StatusOK, objectOf(&all[i]))
			return nil
		}
	}
	return ErrNoModel
}
