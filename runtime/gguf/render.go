package gguf

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

func isUnreadable(err error) bool { return errors.Is(err, ErrIO) || errors.Is(err, ErrChanged) }

// WriteTo writes the summary as aligned lines of plain text, for people. Control characters from
// the file are replaced, so that a file cannot speak to the terminal.
func (s Summary) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			fmt.Fprintf(&b, "%-14s %s\n", label, printable(text))
		}
	}
	line("name", "%s", s.Name)
	line("file", "%s", s.Path)
	line("size", "%s%s, GGUF %d", size(s.SizeBytes), s.inShards(), s.GGUFVersion)
	line("digest", "%s", s.Digest)
	line("kind", "%s", s.Kind)
	line("problem", "%s", s.Problem)
	line("hint", "%s", s.Hint)
	line("architecture", "%s", s.Architecture)
	line("parameters", "%s in %s, %.2f bits each", millions(s.Parameters), count(s.Tensors, "tensor"),
		s.BitsPerValue)
	line("file type", "%s", s.FileType)
	for i, m := range s.Mix {
		label := ""
		if i == 0 {
			label = "quantisation"
		}
		line(label, "%-8s %10s  %5.1f %%  %s", m.Type, size(m.Bytes),
			100*float64(m.Bytes)/float64(max(s.TensorBytes, 1)), count(m.Tensors, "tensor"))
	}
	s.writeShape(line)
	s.writeText(line)
	line("licence", "%s", strings.TrimSpace(s.Licence+" "+s.LicenceLink))
	for _, n := range s.Notes {
		line("note", "%s", n)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func (s Summary) inShards() string {
	if s.Shards < 2 {
		return ""
	}
	return fmt.Sprintf(" in %d shards", s.Shards)
}

func (s Summary) writeShape(line func(label, format string, args ...any)) {
	if s.Layers == 0 {
		return
	}
	line("context", "%d tokens trained", s.ContextLength)
	draft := ""
	if s.DraftLayers > 0 {
		draft = fmt.Sprintf(", the last %d for drafts", s.DraftLayers)
	}
	line("layers", "%d%s", s.Layers, draft)
	line("embedding", "%d, feed-forward %s", s.EmbeddingLength, s.FeedForward)
	line("attention", "%s heads, %s KV heads, key %s, value %s", s.Heads, s.KVHeads, s.KeyLength,
		s.ValueLength)
	if s.Experts > 0 {
		line("experts", "%d, %d used for each token", s.Experts, s.ExpertsUsed)
	}
	if s.RopeScaling != "" {
		line("rope", "%s scaling, base %g", s.RopeScaling, s.RopeFreqBase)
	}
	line("pooling", "%s", s.Pooling)
	label := "KV cache"
	for _, c := range s.Cache {
		line(label, "%-5s %s", c.Type, c)
		label = ""
	}
	if s.CacheKind == CacheNone {
		line(label, "none")
	}
}

// String gives the cost per token, full and windowed layers apart.
func (c CacheRow) String() string {
	var parts []string
	if c.FullLayers > 0 {
		parts = append(parts, fmt.Sprintf("%s per token in %s", size(c.FullTokenBytes),
			count(c.FullLayers, "full layer")))
	}
	if c.WindowLayers > 0 {
		parts = append(parts, fmt.Sprintf("%s per token of the last %d in %s",
			size(c.WindowTokenBytes), c.Window, count(c.WindowLayers, "windowed layer")))
	}
	if c.StateLayers > 0 {
		parts = append(parts, count(c.StateLayers, "recurrent layer")+" of constant size")
	}
	if c.SharedLayers > 0 {
		parts = append(parts, count(c.SharedLayers, "layer")+" without a cache of their own")
	}
	if c.IndexNotCounted {
		parts = append(parts, "an index cache not counted")
	}
	return strings.Join(parts, "; ") + "; " + size(c.ContextBytes) + " at full context"
}

func (s Summary) writeText(line func(label, format string, args ...any)) {
	if s.Tokens > 0 {
		line("vocabulary", "%d tokens, %s %s", s.Tokens, s.Tokenizer, s.PreTokenizer)
	}
	var special []string
	for _, t := range s.Special {
		special = append(special, fmt.Sprintf("%s %d %s", t.Role, t.ID, clip(t.Text)))
	}
	line("special", "%s", strings.Join(special, ", "))
	if s.Layers > 0 && s.CacheKind != CacheNone && len(s.Templates) == 0 {
		line("chat template", "none: chat needs --template")
	}
	for _, t := range s.Templates {
		name, mentions := t.Name, ""
		if name == "" {
			name = "default"
		}
		if len(t.Mentions) > 0 {
			mentions = ", mentions " + strings.Join(t.Mentions, ", ")
		}
		line("chat template", "%s, %d bytes%s", name, t.Bytes, mentions)
	}
}

// String gives one number where all layers agree.
func (r Range) String() string {
	if r.Min == r.Max {
		return strconv.Itoa(r.Min)
	}
	return strconv.Itoa(r.Min) + " to " + strconv.Itoa(r.Max)
}

// printable replaces what is no printable character.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// size gives bytes in binary units, as llama.cpp does.
func size(n int64) string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.2f %s", v, units[i])
}

// millions gives a parameter count as llama.cpp does.
func millions(n int64) string {
	switch v := float64(n); {
	case v >= 1e12:
		return fmt.Sprintf("%.2f T", v/1e12)
	case v >= 1e9:
		return fmt.Sprintf("%.2f B", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	}
	return strconv.FormatInt(n, 10)
}
