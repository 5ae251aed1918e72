package httpapi

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/http"

	"github.com/norion/norion/runtime/infer"
)

// embeddingRequest is the body of /v1/embeddings.
type embeddingRequest struct {
	Model      string `json:"model"`
	Input      texts  `json:"input"`
	Format     string `json:"encoding_format"`
	Dimensions *int   `json:"dimensions"`
	User       string `json:"user"`
	Others     others `json:",embed"`
}

type embeddingAnswer struct {
	Object string          `json:"object"`
	Data   []embeddingItem `json:"data"`
	Model  string          `json:"model"`
	Usage  embeddingUsage  `json:"usage"`
}

type embeddingItem struct {
	Object string `json:"object"`
	Index  int    `json:"index"`
	Vector any    `json:"embedding"` // []float32, or base64 of them in little-endian order
}

type embeddingUsage struct {
	Prompt int `json:"prompt_tokens"`
	Total  int `json:"total_tokens"`
}

func (c *embeddingRequest) check(info infer.Info) error {
	if err := c.Others.check(nil); err != nil {
		return err
	}
	switch {
	case len(c.Input) == 0:
		return missing("input")
	case len(c.Input) > TextsMax:
		return refuse(codeInvalidValue, "input", "%d texts, at most %d", len(c.Input), TextsMax)
	case c.Format != "" && c.Format != "float" && c.Format != "base64":
		return refuse(codeInvalidValue, "encoding_format", "'%s' is neither float nor base64",
			clip(c.Format))
	case c.Dimensions != nil && *c.Dimensions != info.EmbeddingSize:
		return refuse(codeUnsupported, "dimensions", "vectors of this model have %d dimensions",
			info.EmbeddingSize)
	}
	return nil
}

// embeddings answers POST /v1/embeddings.
func (x *exchange) embeddings() error {
	var c embeddingRequest
	if err := x.readJSON(&c); err != nil {
		return err
	}
	b, err := x.open(x.only(c.Model))
	if err != nil {
		return err
	}
	x.endUser(c.User)
	if err := c.check(b.Info()); err != nil {
		return err
	}
	ctx := x.r.Context()
	for _, text := range c.Input {
		tokens, err := b.Tokenize(ctx, text, infer.TokenizeOptions{AddSpecial: true})
		if err != nil {
			return renamed(err, embeddingNames)
		}
		x.usage.PromptTokens += len(tokens)
	}
	vectors, err := b.Embed(ctx, c.Input)
	if err != nil {
		return renamed(err, embeddingNames)
	}
	out := embeddingAnswer{Object: "list", Model: x.model, Usage: embeddingUsage{
		Prompt: x.usage.PromptTokens, Total: x.usage.PromptTokens,
	}}
	for i, v := range vectors {
		item := embeddingItem{Object: "embedding", Index: i, Vector: v}
		if c.Format == "base64" {
			item.Vector = base64Vector(v)
		}
		out.Data = append(out.Data, item)
	}
	x.writeJSON(http.StatusOK, out)
	return nil
}

var embeddingNames = map[string]string{"text": "input", "texts": "input", "prompt": "input"}

func base64Vector(v []float32) string {
	data := make([]byte, 0, 4*len(v))
	for _, f := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(f))
	}
	return base64.StdEncoding.EncodeToString(data)
}
