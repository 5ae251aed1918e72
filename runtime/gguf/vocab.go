package gguf

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	keyTokens = "tokenizer.ggml.tokens"
	keyScores = "tokenizer.ggml.scores"
	keyTypes  = "tokenizer.ggml.token_type"
	keyMerges = "tokenizer.ggml.merges"
	keyModel  = "tokenizer.ggml.model"
	keyPre    = "tokenizer.ggml.pre"
)

// Vocabulary holds the facts of the tokenizer.
type Vocabulary struct {
	Model       string         // "llama" (SPM), "gpt2" (BPE), "bert" (WPM), "t5" (UGM), ...
	Pre         string         // pre-tokenizer of a BPE model
	Tokens      int            // 0 where the model has none
	Merges      int            // of a BPE model
	Special     []SpecialToken // those that the file names, in a fixed order
	Empty       int            // tokens without text
	InvalidUTF8 int            // tokens that are no UTF-8; text with them needs replacement
	Longest     int            // bytes of the longest token, as the file spells it
	ByteTokens  int            // tokens of type byte
	Control     int            // tokens of type control
	Notes       []string       // oddities that llama.cpp tolerates
}

// SpecialToken is a role that the file gives to a token.
type SpecialToken struct {
	Role string `json:"role"` // "bos", "eos", ...
	ID   int    `json:"id"`
	Text string `json:"text"`
}

// specialRoles are the keys tokenizer.ggml.<key>, in the order of Vocabulary.Special.
var specialRoles = [...]struct{ role, key string }{
	{"bos", "bos_token_id"},
	{"eos", "eos_token_id"},
	{"eot", "eot_token_id"},
	{"eom", "eom_token_id"},
	{"unk", "unknown_token_id"},
	{"sep", "seperator_token_id"},
	{"pad", "padding_token_id"},
	{"cls", "cls_token_id"},
	{"mask", "mask_token_id"},
	{"fim_pre", "fim_pre_token_id"},
	{"fim_suf", "fim_suf_token_id"},
	{"fim_mid", "fim_mid_token_id"},
	{"fim_pad", "fim_pad_token_id"},
	{"fim_rep", "fim_rep_token_id"},
	{"fim_sep", "fim_sep_token_id"},
}

// Vocabulary reads and checks the tokenizer. It refuses (ErrCorrupt, ErrKeyType, ErrNoKey,
// ErrLimit) what llama.cpp refuses or aborts on, and a bos or eos id out of range; other
// oddities are counted or noted. It reads all tokens once, holding 8 bytes for each.
func (f *File) Vocabulary() (Vocabulary, error) {
	f.vocabulary.once.Do(func() {
		f.vocabulary.value, f.vocabulary.err = f.readVocabulary()
	})
	v := f.vocabulary.value
	v.Special, v.Notes = slices.Clone(v.Special), slices.Clone(v.Notes)
	return v, f.vocabulary.err
}

// readVocabulary reads every token once: some 50 ms for a vocabulary of 262,144.
func (f *File) readVocabulary() (Vocabulary, error) {
	var v Vocabulary
	var err error
	if v.Model, err = f.short(keyModel); err != nil {
		return v, err
	}
	if v.Pre, err = f.optional(keyPre); err != nil {
		return v, err
	}
	bpe := false
	switch v.Model {
	case "no_vocab", "none":
		return v, nil
	case "gpt2", "hybriddna", "whitespace", "gemma4":
		bpe = true
	case "llama", "bert", "t5", "rwkv", "test", "plamo2":
	default:
		return v, f.vocabFault(ErrCorrupt, keyModel, "tokenizer %s does not exist", clip(v.Model))
	}
	if v.Tokens, err = f.arrayOf(keyTokens, VocabularyMax, TypeString); err != nil {
		return v, err
	}
	if v.Tokens == 0 {
		return v, f.vocabFault(ErrCorrupt, keyTokens, "there are no tokens")
	}
	v.Merges, err = f.arrayOf(keyMerges, ArrayElementsMax, TypeString)
	if err != nil && (!isAbsent(err) || bpe && v.Pre != "kimi-k2") {
		return v, err
	}
	if err = f.scanTypes(&v); err != nil {
		return v, err
	}
	if err = f.scanTokens(&v); err != nil {
		return v, err
	}
	err = f.scanSpecial(&v)
	return v, err
}

func (f *File) vocabFault(kind error, key, format string, args ...any) error {
	e := fault(kind, "key "+clip(key), -1, hintRegenerate, format, args...)
	if i, ok := f.index[key]; ok {
		e.Offset = f.entries[i].off
	}
	e.Op = "check"
	return f.stamp(e)
}

// arrayOf returns the length of an array whose elements have one of the types.
func (f *File) arrayOf(key string, limit int64, types ...ValueType) (int, error) {
	e, err := f.lookup(key)
	if err != nil {
		return 0, err
	}
	if e.typ != TypeArray || !slices.Contains(types, e.elem) {
		return 0, f.wrongType(e, fmt.Sprintf("an array of %v", types))
	}
	if e.n > limit {
		return 0, f.vocabFault(ErrLimit, key, "%d elements are above %d", e.n, limit)
	}
	return int(e.n), nil
}

// scanTypes checks scores and token types: llama.cpp indexes both by token without a check.
func (f *File) scanTypes(v *Vocabulary) error {
	for _, a := range []struct {
		key   string
		types []ValueType
	}{{keyScores, []ValueType{TypeFloat32, TypeInt32}}, {keyTypes, []ValueType{TypeInt32}}} {
		n, err := f.arrayOf(a.key, ArrayElementsMax, a.types...)
		switch {
		case isAbsent(err):
		case err != nil:
			return err
		case n < v.Tokens:
			return f.vocabFault(ErrCorrupt, a.key, "%d elements for %d tokens", n, v.Tokens)
		case n > v.Tokens:
			v.note("%s has %d elements for %d tokens", a.key, n, v.Tokens)
		}
	}
	if !f.Has(keyTypes) {
		return nil
	}
	const control, byteToken = 3, 6
	e, err := f.lookup(keyTypes)
	if err != nil {
		return err
	}
	c := &cursor{r: f.shards[0].r, size: f.shards[0].size, pos: e.off}
	c.at = place{section: "key", name: keyTypes, part: "elements"}
	for range v.Tokens {
		switch c.u32() {
		case control:
			v.Control++
		case byteToken:
			v.ByteTokens++
		}
	}
	if c.err != nil {
		return f.stamp(c.err)
	}
	return nil
}

func (v *Vocabulary) note(format string, args ...any) {
	v.Notes = append(v.Notes, fmt.Sprintf(format, args...))
}

// scanTokens counts odd tokens and finds duplicates, on which llama.cpp aborts.
func (f *File) scanTokens(v *Vocabulary) error {
	seed := maphash.MakeSeed()
	sums := make([]uint64, 0, v.Tokens)
	err := f.eachToken(func(_ int, s []byte, empty bool) {
		if empty {
			v.Empty++
		} else if !utf8.Valid(s) {
			v.InvalidUTF8++
		}
		v.Longest = max(v.Longest, len(s))
		sums = append(sums, maphash.Bytes(seed, s))
	})
	if err != nil {
		return err
	}
	slices.Sort(sums)
	suspects := map[uint64][]string{} // equal sums: nearly always equal tokens
	for i := 1; i < len(sums); i++ {
		if sums[i] == sums[i-1] {
			suspects[sums[i]] = nil
		}
	}
	if len(suspects) == 0 {
		return nil
	}
	twice, where := "", -1
	err = f.eachToken(func(i int, s []byte, _ bool) {
		sum := maphash.Bytes(seed, s)
		seen, suspect := suspects[sum]
		if !suspect || where >= 0 {
			return
		}
		if slices.Contains(seen, string(s)) {
			twice, where = string(s), i
		}
		suspects[sum] = append(seen, string(s))
	})
	if err == nil && where >= 0 {
		err = f.vocabFault(ErrCorrupt, keyTokens, "token %d, %s, occurs before", where, clip(twice))
	}
	return err
}

// eachToken is eachString over the tokens, with llama.cpp's name for an empty one.
func (f *File) eachToken(yield func(i int, s []byte, empty bool)) error {
	return f.eachString(keyTokens, func(i int, s []byte) {
		if len(s) == 0 {
			yield(i, []byte("[EMPTY_"+strconv.Itoa(i)+"]"), true)
			return
		}
		yield(i, s, false)
	})
}

// scanSpecial reads the special ids and the texts of their tokens.
func (f *File) scanSpecial(v *Vocabulary) error {
	for _, s := range specialRoles {
		key := "tokenizer.ggml." + s.key
		if !f.Has(key) {
			continue
		}
		id, err := f.Uint(key)
		switch {
		case err == nil && id < uint64(v.Tokens):
			v.Special = append(v.Special, SpecialToken{Role: s.role, ID: int(id)})
		case s.role == "bos" || s.role == "eos":
			if err != nil {
				return err
			}
			return f.vocabFault(ErrCorrupt, key, "token %d does not exist, there are %d", id, v.Tokens)
		default:
			v.note("%s names a token that does not exist: llama.cpp ignores it", key)
		}
	}
	if !slices.ContainsFunc(v.Special, func(s SpecialToken) bool { return s.Role == "eos" }) {
		v.note("no end-of-sequence token is named: text may end only at the token limit")
	}
	if len(v.Special) == 0 {
		return nil
	}
	return f.eachString(keyTokens, func(i int, s []byte) {
		for j := range v.Special {
			if v.Special[j].ID == i {
				v.Special[j].Text = string(s[:min(len(s), shortBytesMax)])
			}
		}
	})
}
