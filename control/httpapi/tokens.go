package httpapi

import (
	"net/http"
	"unicode/utf8"

	"github.com/norion/norion/runtime/infer"
)

// tokenizeRequest is the body of /tokenize, as llama-server has it.
type tokenizeRequest struct {
	Model        string `json:"model"` // may be left out where there is one
	Content      string `json:"content"`
	AddSpecial   bool   `json:"add_special"`
	ParseSpecial *bool  `json:"parse_special"` // true unless it says false
	WithPieces   bool   `json:"with_pieces"`
}

type tokenPiece struct {
	ID    infer.TokenID `json:"id"`
	Piece any           `json:"piece"` // text, or a list of bytes that are none
}

// tokenize answers POST /tokenize.
func (x *exchange) tokenize() error {
	var c tokenizeRequest
	if err := x.readJSON(&c); err != nil {
		return err
	}
	b, err := x.open(x.only(c.Model))
	if err != nil {
		return err
	}
	o := infer.TokenizeOptions{AddSpecial: c.AddSpecial, ParseSpecial: true}
	put(&o.ParseSpecial, c.ParseSpecial)
	tokens, err := b.Tokenize(x.r.Context(), c.Content, o)
	if err != nil {
		return renamed(err, map[string]string{"text": "content"})
	}
	ids, pieces := make([]infer.TokenID, len(tokens)), make([]tokenPiece, len(tokens))
	for i, t := range tokens {
		ids[i], pieces[i] = t.ID, tokenPiece{ID: t.ID, Piece: string(t.Text)}
		if !utf8.Valid(t.Text) {
			list := make([]int, len(t.Text))
			for k, c := range t.Text {
				list[k] = int(c)
			}
			pieces[i].Piece = list
		}
	}
	if c.WithPieces {
		x.writeJSON(http.StatusOK, map[string][]tokenPiece{"tokens": pieces})
	} else {
		x.writeJSON(http.StatusOK, map[string][]infer.TokenID{"tokens": ids})
	}
	return nil
}

// detokenizeRequest is the body of /detokenize, as llama-server has it.
type detokenizeRequest struct {
	Model  string          `json:"model"` // may be left out where there is one
	Tokens []infer.TokenID `json:"tokens"`
}

// detokenize answers POST /detokenize.
func (x *exchange) detokenize() error {
	var c detokenizeRequest
	if err := x.readJSON(&c); err != nil {
		return err
	}
	b, err := x.open(x.only(c.Model))
	if err != nil {
		return err
	}
	d, ok := b.(infer.Detokenizer)
	if !ok {
		return unsupported("model", "its backend cannot spell tokens")
	}
	text, err := d.Detokenize(x.r.Context(), c.Tokens)
	if err != nil {
		return err
	}
	x.writeJSON(http.StatusOK, map[string]string{"content": validText(text)})
	return nil
}
