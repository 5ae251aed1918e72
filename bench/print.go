package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Format is one of llama-bench's output formats.
type Format string

const (
	FormatMarkdown Format = "md"
	FormatJSON     Format = "json"
	FormatJSONL    Format = "jsonl"
	FormatCSV      Format = "csv"
)

// ParseFormat reads the value of -o. Errors: ErrFlag.
func ParseFormat(s string) (Format, error) {
	for _, f := range []Format{FormatMarkdown, FormatJSON, FormatJSONL, FormatCSV} {
		if s == string(f) {
			return f, nil
		}
	}
	return "", badFlag("output", "use json, jsonl, csv or md", "unknown %q", clip(s))
}

// Printer writes records as they come, in llama-bench's form. The first failed write is kept and
// returned by Close.
type Printer struct {
	w       io.Writer
	format  Format
	grid    Grid
	columns []string // of markdown
	records int
	build   string
	err     error
}

// NewPrinter writes the head. The grid decides which columns a markdown table has: those that
// differ from the defaults.
func NewPrinter(w io.Writer, format Format, g Grid) *Printer {
	p := &Printer{w: w, format: format, grid: g}
	switch format {
	case FormatJSON:
		p.printf("[\n")
	case FormatCSV:
		var names []string
		for _, f := range (&Record{}).fields() {
			names = append(names, f.name)
		}
		p.printf("%s\n", strings.Join(names, ","))
	}
	return p
}

func (p *Printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// Print writes one record.
func (p *Printer) Print(r Record) error {
	switch p.format {
	case FormatJSON:
		if p.records > 0 {
			p.printf(",\n")
		}
		p.printf("  {\n")
		for _, f := range r.fields() {
			p.printf("    %q: %s,\n", f.name, f.json())
		}
		ns, rates := r.samples()
		p.printf("    \"samples_ns\": [ %s ],\n    \"samples_ts\": [ %s ]\n  }", ns, rates)
	case FormatJSONL:
		p.printf("{")
		for _, f := range r.fields() {
			p.printf("%q: %s, ", f.name, f.json())
		}
		ns, rates := r.samples()
		p.printf("\"samples_ns\": [ %s ],\"samples_ts\": [ %s ]}\n", ns, rates)
	case FormatCSV:
		var cells []string
		for _, f := range r.fields() {
			cells = append(cells, `"`+strings.ReplaceAll(f.text, `"`, `""`)+`"`)
		}
		p.printf("%s\n", strings.Join(cells, ","))
	case FormatMarkdown:
		p.row(&r)
	}
	p.build = fmt.Sprintf("%s (%d)", r.BuildCommit, r.BuildNumber)
	p.records++
	return p.err
}

// Close writes the foot.
func (p *Printer) Close() error {
	switch {
	case p.format == FormatJSON:
		p.printf("\n]\n")
	case p.format == FormatMarkdown && p.records > 0:
		p.printf("\nbuild: %s\n", p.build)
	}
	return p.err
}

func (f field) json() string {
	switch f.kind {
	case fieldText:
		quoted, err := json.Marshal(f.text)
		if err != nil {
			return `""`
		}
		return string(quoted)
	case fieldBool:
		return strconv.FormatBool(f.text != "0")
	}
	return f.text
}

// columns lists the columns of the markdown table, given the back ends that compute.
func columns(g Grid, backends string) []string {
	def := Grid{}.fill()
	g = g.fill()
	cpu := strings.Contains(backends, "CPU") || strings.Contains(backends, "BLAS")
	out := []string{"model", "size", "params", "backend"}
	for _, c := range []struct {
		name string
		same bool
	}{
		{"n_gpu_layers", cpu},
		{"n_threads", !cpu && slices.Equal(g.Threads, def.Threads)},
		{"poll", slices.Equal(g.Poll, def.Poll)},
		{"n_batch", slices.Equal(g.Batch, def.Batch)},
		{"n_ubatch", slices.Equal(g.MicroBatch, def.MicroBatch)},
		{"type_k", slices.Equal(g.TypeK, def.TypeK)},
		{"type_v", slices.Equal(g.TypeV, def.TypeV)},
		{"no_kv_offload", slices.Equal(g.NoKVOffload, def.NoKVOffload)},
		{"flash_attn", slices.Equal(g.Flash, def.Flash)},
		{"load_mode", slices.Equal(g.Load, def.Load)},
	} {
		if !c.same {
			out = append(out, c.name)
		}
	}
	return append(out, "test", "t/s")
}

// layout of markdown columns that are not named and sized by default: a negative width aligns
// left, as in printf.
var layout = map[string]struct {
	width int
	title string
}{
	"model": {-30, "model"}, "size": {10, "size"}, "params": {10, "params"},
	"backend": {-10, "backend"}, "n_threads": {7, "threads"}, "n_gpu_layers": {3, "ngl"},
	"n_batch": {7, "n_batch"}, "n_ubatch": {8, "n_ubatch"}, "type_k": {6, "type_k"},
	"type_v": {6, "type_v"}, "no_kv_offload": {13, "nkvo"}, "flash_attn": {3, "fa"},
	"poll": {10, "poll"}, "load_mode": {10, "lm"}, "test": {15, "test"}, "t/s": {20, "t/s"},
}

// row writes one line of the table, after the head when it is the first.
func (p *Printer) row(r *Record) {
	if p.records == 0 {
		p.columns = columns(p.grid, r.Backends)
		var head, rule []string
		for _, c := range p.columns {
			l := layout[c]
			head = append(head, pad(l.title, l.width))
			dashes := strings.Repeat("-", max(l.width, -l.width)-1)
			rule = append(rule, map[bool]string{true: dashes + ":", false: "-" + dashes}[l.width > 0])
		}
		p.printf("| %s |\n| %s |\n", strings.Join(head, " | "), strings.Join(rule, " | "))
	}
	var cells []string
	for _, c := range p.columns {
		cells = append(cells, pad(r.cell(c), layout[c].width))
	}
	p.printf("| %s |\n", strings.Join(cells, " | "))
}

// pad fills s with blanks to |width| characters; a negative width aligns left.
func pad(s string, width int) string {
	blanks := strings.Repeat(" ", max(0, max(width, -width)-utf8.RuneCountInString(s)))
	if width < 0 {
		return s + blanks
	}
	return blanks + s
}

// cell is the text of one column of the table.
func (r *Record) cell(column string) string {
	const mib, gib = 1 << 20, 1 << 30
	switch column {
	case "model":
		return r.ModelType
	case "size":
		if r.ModelSize < gib {
			return fmt.Sprintf("%.2f MiB", float64(r.ModelSize)/mib)
		}
		return fmt.Sprintf("%.2f GiB", float64(r.ModelSize)/gib)
	case "params":
		if r.ModelParams < 1e9 {
			return fmt.Sprintf("%.2f M", float64(r.ModelParams)/1e6)
		}
		return fmt.Sprintf("%.2f B", float64(r.ModelParams)/1e9)
	case "backend":
		return r.Backends
	case "test":
		return Test{Prompt: r.Prompt, Gen: r.Gen, Depth: r.Depth}.String()
	case "t/s":
		return fmt.Sprintf("%.2f ± %.2f", r.Rate(), deviation(r.Rates()))
	}
	for _, f := range r.fields() {
		if f.name == column {
			return f.text
		}
	}
	return ""
}

// outputBytesMax bounds what is read from a measured process.
const outputBytesMax = 16 << 20

// ParseRecords reads the JSON that llama-bench and `norion bench -o json` write. Fields that it
// does not know are passed over; a record without samples is refused. Errors: ErrOutput.
func ParseRecords(data []byte) ([]Record, error) {
	var out []Record
	fail := func(err error) ([]Record, error) {
		return nil, &Error{Op: "measure", Kind: ErrOutput, Err: err}
	}
	if len(data) > outputBytesMax {
		return fail(fmt.Errorf("more than %d bytes", outputBytesMax))
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&out); err != nil {
		return fail(err)
	}
	if d.More() {
		return fail(errors.New("text after the list"))
	}
	for i := range out {
		if len(out[i].SamplesNs) == 0 || slices.Min(out[i].SamplesNs) <= 0 {
			return fail(fmt.Errorf("record %d has no times", i))
		}
	}
	return out, nil
}
