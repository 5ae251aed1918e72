package remote

import (
	"context"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/norion/norion/runtime/infer"
)

// piece is one token of /tokenize: its text, or the bytes that are none.
type piece struct {
	ID    infer.TokenID  `json:"id"`
	Piece jsontext.Value `json:"piece"`
}

// Tokenize implements infer.Backend, for llama-server and norion.
func (b *Backend) Tokenize(ctx context.Context, text string, o infer.TokenizeOptions) (
	[]infer.Token, error,
) {
	switch {
	case b.dialect == openAI:
		return nil, unsupported("tokenize", "text")
	case !utf8.ValidString(text):
		return nil, &infer.Error{
			Op: "tokenize", Kind: infer.KindInvalid, Field: "text", Err: errors.New("not valid UTF-8"),
		}
	}
	var answer struct {
		Tokens []piece `json:"tokens"`
	}
	err := b.get(ctx, "tokenize", "POST", "/tokenize", object{
		"model": b.info.Model, "content": text, "with_pieces": true,
		"add_special": o.AddSpecial, "parse_special": o.ParseSpecial,
	}, &answer)
	if err != nil {
		return nil, err
	}
	out := make([]infer.Token, len(answer.Tokens))
	for i, p := range answer.Tokens {
		out[i].ID = p.ID
		var text string
		if json.Unmarshal(p.Piece, &text) == nil {
			out[i].Text = []byte(text)
			continue
		}
		var list []uint8Number
		if err := json.Unmarshal(p.Piece, &list); err != nil {
			return nil, garbage("tokenize", err)
		}
		for _, x := range list {
			out[i].Text = append(out[i].Text, byte(x))
		}
	}
	return out, nil
}

// uint8Number is a byte that JSON writes as a number: lists of bytes would be base64.
type uint8Number uint8

// textsMax bounds one request for vectors; more texts are sent as several.
const textsMax = 64

// Embed implements infer.Backend. The vectors are normalised here, whatever the endpoint does.
func (b *Backend) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	if !b.info.Abilities.Embed {
		return nil, unsupported("embed", "")
	}
	out := make([][]float32, 0, len(texts))
	for len(texts) > 0 {
		n := min(textsMax, len(texts))
		vectors, err := b.vectors(ctx, texts[:n])
		if err != nil {
			return nil, err
		}
		for _, v := range vectors {
			if len(v) != b.info.EmbeddingSize {
				return nil, garbage("embed", fmt.Errorf("a vector of %d values", len(v)))
			}
		}
		out, texts = append(out, vectors...), texts[n:]
	}
	return out, nil
}

func (b *Backend) vectors(ctx context.Context, texts []string) ([][]float32, error) {
	for _, t := range texts {
		if t == "" || !utf8.ValidString(t) {
			return nil, &infer.Error{
				Op: "embed", Kind: infer.KindInvalid, Field: "texts",
				Err: errors.New("a text is empty, or not valid UTF-8"),
			}
		}
	}
	var answer struct {
		Data []struct {
			Index  int       `json:"index"`
			Vector []float32 `json:"embedding"`
		} `json:"data"`
	}
	err := b.get(ctx, "embed", "POST", "/v1/embeddings", object{
		"model": b.info.Model, "input": texts, "encoding_format": "float",
	}, &answer)
	if err != nil {
		return nil, err
	}
	out := make([][]float32, len(texts))
	for _, d := range answer.Data {
		if d.Index < 0 || d.Index >= len(out) || out[d.Index] != nil {
			return nil, garbage("embed", fmt.Errorf("vector %d of %d", d.Index, len(out)))
		}
		if err := normalise(d.Vector); err != nil {
			return nil, err
		}
		out[d.Index] = d.Vector
	}
	if len(answer.Data) != len(texts) {
		return nil, garbage("embed", fmt.Errorf("%d vectors for %d texts", len(answer.Data), len(texts)))
	}
	return out, nil
}

// normalise gives a vector the length 1.
func normalise(v []float32) error {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	length := math.Sqrt(sum)
	if !(length > 0) || math.IsInf(length, 0) { // NaN fails
		return garbage("embed", fmt.Errorf("a vector of length %v", length))
	}
	for i, x := range v {
		v[i] = float32(float64(x) / length)
	}
	return nil
}
