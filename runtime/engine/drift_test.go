package engine_test

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store/storetest"
)

// Sizes of TestR7Drift, in tokens.
const (
	driftText   = 1024 / driftLess
	driftChunk  = 64 // of a prompt, as many as the tiled attention kernel takes at least
	driftOthers = 3  // answers that run beside
	driftDraft  = 8
	driftPart   = driftText / (driftOthers + 1)
)

// Bounds of what other conditions may do to the distributions of a cold run. The perplexity is an
// estimate: two of its standard errors are allowed for.
const (
	driftKL         = 0.02  // nats, mean
	driftPerplexity = 0.005 // of 1
)

// Sequences of TestR7Drift's contexts.
const (
	driftReader = llama.Seq(0)             // reads the text as a prompt
	driftOther  = llama.Seq(1)             // the first of the others
	driftAnswer = driftOther + driftOthers // the first of those that read it token by token
	driftSeqs   = driftAnswer + driftOthers + 1
)

// TestR7Drift compares the next-token distributions of a text, over the whole vocabulary, with
// those of a cold run: the text alone, as a prompt, in an empty context.
//
// Where they differ, rounding does it. The attention kernel of the processor takes cells in tiles
// by their index, so where a sequence's cells lie decides what is summed with what; with one token
// at a time it adds up the values in 16 bits, and from 512 cells on it divides them among the
// threads. Kernels of some quantised matrices differ by the number of rows. Activations are then
// rounded to 8 bits, which turns one flipped bit into a difference of the logits of 0.1 on average.
// An answer that is alone differs from the cold prompt by as much as one in company.
//
// A direction of the differences could not be told: in one run on a processor with AMX, over 2048
// positions of Gemma, the mean difference of the log-probabilities of the text was 0.0003 with a
// standard error of 0.0026 in a shared buffer and 0.0008 with 0.0024 in streams. The text is too
// short to tell a perplexity that is 0.5 % higher from one that is equal.
func TestR7Drift(t *testing.T) {
	for _, name := range []string{"smollm2:135m", "gemma3:270m"} {
		t.Run(name, func(t *testing.T) {
			m, err := llama.LoadModel(t.Context(), llama.ModelParams{
				Paths:   []string{storetest.Model(t, name)},
				CPUOnly: os.Getenv("NORION_TEST_GPU") != "1",
			})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, m.Close()) })
			d := newDrifting(t, m)
			d.prompts()
			d.answers()
			d.judge()
		})
	}
}

// drifting is one text in several contexts.
type drifting struct {
	t      *testing.T
	m      *llama.Model
	text   []llama.Token
	cold   *llama.Context
	p      distribution // of the cold run
	busy   []*busyContext
	rows   []*driftRow
	alone  *driftRow // token by token, alone
	drafts *driftRow // as the drafts of such an answer
}

// busyContext is a context in which others are busy, too.
type busyContext struct {
	name   string
	c      *llama.Context
	others int // tokens that each of the others holds
	blobs  map[int][]byte
	prompt [2]*driftRow               // beside the others' cells, and in their batches
	answer [driftOthers + 1]*driftRow // by where the prefix came from
}

func newDrifting(t *testing.T, m *llama.Model) *drifting {
	text := ""
	for _, name := range []string{"0001-cgo-in-a-child-process", "0003-the-pin", "0004-huge-pages"} {
		part, err := os.ReadFile("../../docs/adr/" + name + ".md")
		require.NoError(t, err)
		text += string(part)
	}
	tokens, err := m.Tokenize(text, true, false)
	require.NoError(t, err)
	require.Greater(t, len(tokens), driftText)
	d := &drifting{t: t, m: m, text: tokens}
	d.cold = d.context(1, false)
	for _, shared := range []bool{true, false} {
		b := &busyContext{
			name: "streams", c: d.context(int(driftSeqs), shared), blobs: map[int][]byte{},
		}
		if shared {
			b.name = "shared"
		}
		b.prompt[0] = d.row(b.name, "prompt, others' cells before and between")
		b.prompt[1] = d.row(b.name, "prompt, in one batch with 3 answers")
		for i, prefix := range []string{"none", "copied", "from RAM", "from RAM, parked half way"} {
			b.answer[i] = d.row(b.name, "answer in a batch of 4, prefix: "+prefix)
		}
		d.busy = append(d.busy, b)
	}
	d.alone = d.row("alone", "answer")
	d.drafts = d.row("alone", fmt.Sprintf("answer, verified as drafts of %d", driftDraft))
	return d
}

// context is one as the engine makes it.
func (d *drifting) context(sequences int, shared bool) *llama.Context {
	tokens := sequences * (driftText + 256)
	if shared {
		tokens = 3*driftText + 1024
	}
	c, err := d.m.NewContext(llama.ContextParams{
		Tokens: tokens, Sequences: sequences, Unified: shared, Threads: 1,
		Outputs: driftChunk + driftOthers,
	})
	require.NoError(d.t, err)
	d.t.Cleanup(func() { require.NoError(d.t, c.Close()) })
	return c
}

func (d *drifting) row(layout, condition string) *driftRow {
	r := &driftRow{layout: layout, condition: condition}
	d.rows = append(d.rows, r)
	return r
}

// add puts tokens of a sequence into a batch, all of them with logits.
func (d *drifting) add(c *llama.Context, s llama.Seq, at int, tokens ...llama.Token) {
	for i, token := range tokens {
		_, err := c.Batch().Add(token, llama.Pos(at+i), s, true)
		require.NoError(d.t, err)
	}
}

// read computes n tokens of the text in a sequence.
func (d *drifting) read(c *llama.Context, s llama.Seq, at, n int) {
	d.add(c, s, at, d.text[at:at+n]...)
	require.NoError(d.t, c.Decode())
}

// logits are those of a place of the last step, valid until the next one.
func (d *drifting) logits(c *llama.Context, place int) []float32 {
	l, err := c.Logits(place)
	require.NoError(d.t, err)
	return l
}

// prompts reads the text as a prompt: alone, and beside others who hold cells before it and take
// more after each chunk; in its second half, those are in the same batches.
func (d *drifting) prompts() {
	for _, b := range d.busy {
		for range 8 {
			d.speak(b, 16)
		}
	}
	for at := 0; at < driftText; at += driftChunk {
		d.read(d.cold, 0, at, driftChunk)
		half := at * 2 / driftText
		for _, b := range d.busy {
			d.add(b.c, driftReader, at, d.text[at:at+driftChunk]...)
			if half == 1 {
				d.speak(b, 1)
			} else {
				require.NoError(d.t, b.c.Decode())
			}
		}
		for i := range driftChunk {
			d.p.set(d.logits(d.cold, i))
			for _, b := range d.busy {
				b.prompt[half].compare(&d.p, d.logits(b.c, i), d.text[at+i+1])
			}
		}
		for _, b := range d.busy {
			if half == 0 {
				d.speak(b, 5)
			}
			d.keep(b, at+driftChunk)
		}
	}
}

// speak lets each of the others go on by n tokens, together with what the batch holds.
func (d *drifting) speak(b *busyContext, n int) {
	for i := range llama.Seq(driftOthers) {
		from := b.others + 100*int(i+1)
		d.add(b.c, driftOther+i, b.others, d.text[from:from+n]...)
	}
	b.others += n
	require.NoError(d.t, b.c.Decode())
}

// keep takes the prefixes that answers begin with, where the prompt has come to their length: the
// first is a copy, as the engine makes it, the others are saved in memory.
func (d *drifting) keep(b *busyContext, length int) {
	i := length / driftPart
	switch {
	case length%driftPart != 0 || i > driftOthers:
	case i == 1 && b.name == "shared":
		require.NoError(d.t, b.c.Copy(driftReader, driftAnswer+1, 0, llama.Pos(length)))
	case i == 1:
		d.restore(b, 1, d.save(b, driftReader))
	default:
		b.blobs[i] = d.save(b, driftReader)
	}
}

func (d *drifting) save(b *busyContext, s llama.Seq) []byte {
	n, err := b.c.StateSize(s, 0)
	require.NoError(d.t, err)
	blob := make([]byte, n)
	n, err = b.c.StateGet(s, blob, 0)
	require.NoError(d.t, err)
	return blob[:n]
}

func (d *drifting) restore(b *busyContext, i int, blob []byte) {
	require.NoError(d.t, b.c.StateSet(driftAnswer+llama.Seq(i), blob, 0))
}

// answers reads the text token by token: four parts of it in one batch, each behind a prefix that
// was reused; the cold run has them as prompts, each in a context of its own.
func (d *drifting) answers() {
	var cold [driftOthers + 1]*llama.Context
	for i := range cold {
		cold[i] = d.cold // holds all of the text
		if i == driftOthers {
			require.NoError(d.t, d.cold.Truncate(0, llama.Pos(i*driftPart)))
			continue
		}
		cold[i] = d.context(1, false)
		for at := 0; at < i*driftPart; at += driftChunk {
			d.read(cold[i], 0, at, driftChunk)
		}
	}
	for _, b := range d.busy {
		for i, blob := range b.blobs {
			d.restore(b, i, blob)
		}
	}
	alone, drafts := d.context(1, false), d.context(1, false)
	for n := range driftPart {
		if n%driftChunk == 0 {
			for i, c := range cold {
				d.read(c, 0, i*driftPart+n, driftChunk)
			}
		}
		if n%driftDraft == 0 {
			d.read(drafts, 0, n, driftDraft)
		}
		d.read(alone, 0, n, 1)
		for _, b := range d.busy {
			d.answer(b, n)
		}
		for i, c := range cold {
			next := d.text[i*driftPart+n+1]
			d.p.set(d.logits(c, n%driftChunk))
			for _, b := range d.busy {
				b.answer[i].compare(&d.p, d.logits(b.c, i), next)
			}
			if i == 0 {
				one, draft := d.logits(alone, 0), d.logits(drafts, n%driftDraft)
				d.alone.compare(&d.p, one, next)
				d.drafts.compare(&d.p, draft, next)
				d.drafts.single += count(slices.Equal(one, draft))
				for _, b := range d.busy {
					b.answer[0].single += count(slices.Equal(one, d.logits(b.c, 0)))
				}
			}
		}
	}
}

// answer computes token n of each part in one step.
func (d *drifting) answer(b *busyContext, n int) {
	if n == driftPart/2 {
		parked := driftAnswer + driftOthers
		blob := d.save(b, parked)
		require.NoError(d.t, b.c.Drop(parked))
		d.restore(b, driftOthers, blob)
	}
	for i := range driftOthers + 1 {
		d.add(b.c, driftAnswer+llama.Seq(i), i*driftPart+n, d.text[i*driftPart+n])
	}
	require.NoError(d.t, b.c.Decode())
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// judge prints the table and holds it against the bounds.
func (d *drifting) judge() {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "layout\tcondition\tpositions\tbit-equal\tmean KL\tmax KL\tperplexity\t+-\t")
	rows := d.rows
	for _, b := range d.busy {
		all := &driftRow{layout: b.name, condition: "all"}
		for _, r := range d.rows {
			if r.layout == b.name {
				all.sum(r)
			}
		}
		rows = append(rows, all)
	}
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	require.NoError(d.t, w.Flush())
	d.t.Logf("against a cold prompt, KL in nats, perplexity as a ratio:\n%s", &table)
	for _, b := range d.busy {
		d.t.Logf("%s: %d of %d steps of the answer without a prefix equal those alone, bit for bit",
			b.name, b.answer[0].single, driftPart)
	}
	d.t.Logf("drafts: %d of %d positions equal those one by one, bit for bit",
		d.drafts.single, driftPart)
	for _, r := range rows {
		require.LessOrEqual(d.t, r.mean(), driftKL, "%s: %s", r.layout, r.condition)
	}
	for _, all := range rows[len(d.rows):] {
		require.Equal(d.t, 2*driftText, all.positions)
		off := math.Abs(all.perplexity() - 1)
		require.LessOrEqual(d.t, off, driftPerplexity+2*all.deviation(), all.layout)
	}
	streams := d.busy[1].prompt[0]
	require.Equal(d.t, streams.positions, streams.equal, "others' cells do not touch a stream")
}

// distribution is a row of logits as probabilities.
type distribution struct {
	logits []float32
	p      []float64
	z      float64 // log of the sum of exp(logit)
}

func (d *distribution) set(logits []float32) {
	d.logits = logits
	d.p = slices.Grow(d.p[:0], len(logits))[:len(logits)]
	most, sum := float64(slices.Max(logits)), 0.0
	for i, x := range logits {
		d.p[i] = math.Exp(float64(x) - most)
		sum += d.p[i]
	}
	for i := range d.p {
		d.p[i] /= sum
	}
	d.z = most + math.Log(sum)
}

func logSum(logits []float32) float64 {
	most, sum := float64(slices.Max(logits)), 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - most)
	}
	return most + math.Log(sum)
}

// driftRow is what one condition does to the distributions.
type driftRow struct {
	layout, condition string
	positions, equal  int
	single            int     // positions equal to those of single steps alone
	kl, most          float64 // of the cold distribution from this one: the sum, and the most
	// worse is how much less likely the text's tokens are than in the cold run: the sum of log
	// ratios, and that of their squares.
	worse, squares float64
}

// compare adds a position: KL(p || q) is the sum of p(log p - log q) over the vocabulary.
func (r *driftRow) compare(p *distribution, logits []float32, next llama.Token) {
	r.positions++
	if slices.Equal(p.logits, logits) {
		r.equal++
		return
	}
	z, kl := logSum(logits), 0.0
	for i, p1 := range p.p {
		kl += p1 * (float64(p.logits[i]) - float64(logits[i]))
	}
	kl += z - p.z
	r.kl += kl
	r.most = max(r.most, kl)
	worse := z - float64(logits[next]) - (p.z - float64(p.logits[next]))
	r.worse += worse
	r.squares += worse * worse
}

func (r *driftRow) sum(o *driftRow) {
	r.positions, r.equal = r.positions+o.positions, r.equal+o.equal
	r.kl, r.most = r.kl+o.kl, max(r.most, o.most)
	r.worse, r.squares = r.worse+o.worse, r.squares+o.squares
}

func (r *driftRow) mean() float64 { return r.kl / float64(r.positions) }

// perplexity is that of the text, as a multiple of the cold run's.
func (r *driftRow) perplexity() float64 {
	return math.Exp(r.worse / float64(r.positions))
}

// deviation is the standard error of perplexity: other texts of that length would give others.
func (r *driftRow) deviation() float64 {
	n := float64(r.positions)
	mean := r.worse / n
	return math.Sqrt((r.squares/n - mean*mean) / n)
}

func (r *driftRow) String() string {
	return fmt.Sprintf("%s\t%s\t%d\t%d\t%.5f\t%.4f\t%.4f\t%.4f\t", r.layout, r.condition, r.positions,
		r.equal, r.mean(), r.most, r.perplexity(), r.deviation())
}
