//go:build cgo

package llama_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/llama"
)

// cell is a place of the cache in the reference: one position, shared by some sequences.
type cell struct {
	pos    llama.Pos
	stream llama.Seq
	seqs   map[llama.Seq]bool
}

// reference is the cache as its documentation tells it, positions only.
type reference struct {
	unified bool
	room    int // cells of a stream
	n       int // sequences
	cells   []*cell
}

func (r *reference) stream(seq llama.Seq) llama.Seq {
	if r.unified {
		return 0
	}
	return seq
}

// of lists the cells of a sequence in p0 <= p < p1.
func (r *reference) of(seq llama.Seq, p0, p1 llama.Pos) (found []*cell) {
	for _, c := range r.cells {
		if c.seqs[seq] && c.pos >= p0 && c.pos < p1 {
			found = append(found, c)
		}
	}
	return found
}

func (r *reference) span(seq llama.Seq) (first, last llama.Pos) {
	first, last = -1, -1
	for _, c := range r.of(seq, 0, math.MaxInt32) {
		if first < 0 || c.pos < first {
			first = c.pos
		}
		last = max(last, c.pos)
	}
	return first, last
}

func (r *reference) free(seq llama.Seq) int {
	used := 0
	for _, c := range r.cells {
		if c.stream == r.stream(seq) {
			used++
		}
	}
	return r.room - used
}

func (r *reference) feed(seq llama.Seq, from llama.Pos, n int) {
	for i := range n {
		r.cells = append(r.cells, &cell{
			from + llama.Pos(i), r.stream(seq), map[llama.Seq]bool{seq: true},
		})
	}
}

func (r *reference) remove(seq llama.Seq, p0, p1 llama.Pos) {
	for _, c := range r.of(seq, p0, p1) {
		delete(c.seqs, seq)
	}
	r.cells = slices.DeleteFunc(r.cells, func(c *cell) bool { return len(c.seqs) == 0 })
}

func (r *reference) copy(from, to llama.Seq, p0, p1 llama.Pos) {
	r.remove(to, 0, math.MaxInt32)
	for _, c := range r.of(from, p0, p1) {
		if r.unified {
			c.seqs[to] = true
		} else {
			r.feed(to, c.pos, 1)
		}
	}
}

// TestMemoryAgainstReference does random operations on a real cache and on the reference.
func TestMemoryAgainstReference(t *testing.T) {
	m := load(t, tiny(t))
	defer func() { require.NoError(t, m.Close()) }()
	for _, unified := range []bool{false, true} {
		t.Run(fmt.Sprintf("unified %t", unified), func(t *testing.T) {
			const n, room = 3, 256
			p := llama.ContextParams{
				Tokens: room, Sequences: n, Batch: 64, MicroBatch: 32, Threads: 1, Unified: unified,
			}
			if !unified {
				p.Tokens = n * room
			}
			c := newContext(t, m, p)
			rapid.Check(t, func(rt *rapid.T) {
				require.NoError(rt, c.Clear())
				r := &reference{unified: unified, room: room, n: n}
				rt.Repeat(memoryActions(c, r))
			})
		})
	}
}

func memoryActions(c *llama.Context, r *reference) map[string]func(*rapid.T) {
	seq := func(rt *rapid.T, name string) llama.Seq {
		return llama.Seq(rapid.IntRange(0, r.n-1).Draw(rt, name))
	}
	span := func(rt *rapid.T) (llama.Pos, llama.Pos) {
		p0 := rapid.Int32Range(0, 80).Draw(rt, "p0")
		return llama.Pos(p0), llama.Pos(p0 + rapid.Int32Range(0, 80).Draw(rt, "length"))
	}
	return map[string]func(*rapid.T){
		"feed": func(rt *rapid.T) {
			s, n := seq(rt, "seq"), rapid.IntRange(1, 64).Draw(rt, "n")
			feedBoth(rt, c, r, s, n)
		},
		"drop": func(rt *rapid.T) {
			s := seq(rt, "seq")
			require.NoError(rt, c.Drop(s))
			r.remove(s, 0, math.MaxInt32)
		},
		"remove": func(rt *rapid.T) {
			s := seq(rt, "seq")
			p0, p1 := span(rt)
			require.NoError(rt, c.Remove(s, p0, p1))
			r.remove(s, p0, p1)
		},
		"truncate": func(rt *rapid.T) {
			s := seq(rt, "seq")
			p0, _ := span(rt)
			require.NoError(rt, c.Truncate(s, p0))
			r.remove(s, p0, math.MaxInt32)
		},
		"keep": func(rt *rapid.T) {
			s := seq(rt, "seq")
			require.NoError(rt, c.Keep(s))
			for other := range llama.Seq(r.n) {
				if other != s {
					r.remove(other, 0, math.MaxInt32)
				}
			}
		},
		"copy": func(rt *rapid.T) {
			from, to := seq(rt, "from"), seq(rt, "to")
			p0, p1 := span(rt)
			copyBoth(rt, c, r, from, to, p0, p1)
		},
		"shift": func(rt *rapid.T) {
			s, delta := seq(rt, "seq"), llama.Pos(rapid.Int32Range(-20, 40).Draw(rt, "delta"))
			p0, p1 := span(rt)
			shiftBoth(rt, c, r, s, p0, p1, delta)
		},
		"divide": func(rt *rapid.T) {
			s, d := seq(rt, "seq"), rapid.IntRange(2, 5).Draw(rt, "d")
			p0, p1 := span(rt)
			require.NoError(rt, c.Divide(s, p0, p1, d))
			for _, moved := range r.of(s, p0, p1) {
				moved.pos /= llama.Pos(d)
			}
		},
		"": func(rt *rapid.T) {
			for s := range llama.Seq(r.n) {
				first, last := r.span(s)
				require.Equal(rt, last, c.PosMax(s), "last of %d", s)
				require.Equal(rt, first, c.PosMin(s), "first of %d", s)
			}
		},
	}
}

// feedBoth decodes n tokens after what a sequence has; without room that is Full.
func feedBoth(rt *rapid.T, c *llama.Context, r *reference, s llama.Seq, n int) {
	_, last := r.span(s)
	for i := range n {
		_, err := c.Batch().Add(5, last+1+llama.Pos(i), s, false)
		require.NoError(rt, err)
	}
	err := c.Decode()
	if n > r.free(s) {
		requireCode(rt, llama.Full, err)
		require.Zero(rt, c.Batch().Len())
		return
	}
	require.NoError(rt, err)
	r.feed(s, last+1, n)
}

func shiftBoth(rt *rapid.T, c *llama.Context, r *reference, s llama.Seq, p0, p1, delta llama.Pos) {
	err := c.Shift(s, p0, p1, delta)
	if p0+delta < 0 {
		requireCode(rt, llama.Invalid, err)
		return
	}
	require.NoError(rt, err)
	for _, moved := range r.of(s, p0, p1) {
		moved.pos += delta
	}
}

func copyBoth(rt *rapid.T, c *llama.Context, r *reference, from, to llama.Seq, p0, p1 llama.Pos) {
	_, last := r.span(from)
	err := c.Copy(from, to, p0, p1)
	switch {
	case from == to:
		requireCode(rt, llama.Invalid, err)
	case !r.unified && (p0 != 0 || p1 <= last):
		requireCode(rt, llama.Unsupported, err)
	default:
		require.NoError(rt, err)
		r.copy(from, to, p0, p1)
	}
}

// TestMemoryPreconditions proves, in a process of its own, that calls which upstream asserts on
// are refused before it sees them.
func TestMemoryPreconditions(t *testing.T) { child(t, "bad memory calls", tinyFile(t)) }

func badMemoryCalls(args []string) error {
	m, err := llama.LoadModel(background, llama.ModelParams{Paths: args[:1], CPUOnly: true})
	if err != nil {
		return err
	}
	defer m.Close()
	c, err := m.NewContext(streams(2))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := compute(c, 0, 0, 5, 6, 7, 8); err != nil {
		return err
	}
	for _, bad := range []llama.Seq{-2, -1, 2, 255, 256, math.MaxInt32, math.MinInt32} {
		_, errAdd := c.Batch().Add(5, 0, bad, false)
		for i, err := range []error{
			errAdd, c.Drop(bad), c.Remove(bad, 0, 1), c.Truncate(bad, 1), c.Keep(bad),
			c.Copy(bad, 1, 0, 9), c.Copy(0, bad, 0, 9), c.Shift(bad, 0, 1, 1),
			c.Divide(bad, 0, 1, 2), c.Embedding(bad, make([]float32, 32)),
		} {
			if err := wantInvalid(err); err != nil {
				return fmt.Errorf("sequence %d, call %d: %w", bad, i, err)
			}
		}
		if c.PosMin(bad) != -1 || c.PosMax(bad) != -1 {
			return fmt.Errorf("sequence %d has positions", bad)
		}
	}
	for i, err := range badSpans(c) {
		if err := wantInvalid(err); err != nil {
			return fmt.Errorf("span %d: %w", i, err)
		}
	}
	if c.PosMax(0) != 3 {
		return fmt.Errorf("a refused call changed the cache: %d", c.PosMax(0))
	}
	return nil
}

// badSpans makes calls with spans, distances and tokens that cannot be.
func badSpans(c *llama.Context) []error {
	const most, least = math.MaxInt32, math.MinInt32
	_, token := c.Batch().Add(16, 0, 0, false)
	_, negative := c.Batch().Add(-1, 0, 0, false)
	_, before := c.Batch().Add(5, -1, 0, false)
	_, after := c.Batch().Add(5, llama.ContextTokensMax, 0, false)
	_, far := c.Logits(most)
	_, below := c.Logits(-1)
	return []error{
		c.Remove(0, 2, 1), c.Remove(0, -1, 1), c.Remove(0, least, most), c.Truncate(0, -1),
		c.Copy(0, 1, -1, 4), c.Copy(0, 1, 4, 2), c.Copy(0, 0, 0, 4),
		c.Shift(0, 1, 4, -2), c.Shift(0, 0, 4, least), c.Shift(0, 0, 4, most),
		c.Shift(0, -1, 4, 1), c.Shift(0, 4, 1, 1), c.Shift(0, 0, most, 1),
		c.Divide(0, 0, 4, 0), c.Divide(0, 0, 4, 1), c.Divide(0, 0, 4, -2), c.Divide(0, 4, 0, 2),
		c.Divide(0, 0, 4, llama.ContextTokensMax+1),
		token, negative, before, after, far, below, c.Decode(), c.Step(nil),
		c.SetThreads(0, 1), c.SetThreads(1, 0), c.SetThreads(llama.ThreadsMax+1, 1),
		c.Step([]llama.Pick{{}}), c.Step(make([]llama.Pick, 3)),
	}
}

func wantInvalid(err error) error {
	if !isCode(err, llama.Invalid) {
		return fmt.Errorf("want an invalid argument, got %v", err)
	}
	return nil
}

func TestDecodeFullCanBeRetried(t *testing.T) {
	m := model(t, smol)
	c := newContext(t, m, small())
	feed(t, c, 0, 0, tokenize(t, m, passage)...)
	want, end := next(t, c, 0), c.PosMax(0)+1
	many := make([]llama.Token, 256)
	for i := range many {
		many[i] = llama.Token(i + 1)
	}
	add(t, c, 0, end, many[:257-int(end)]...)
	requireCode(t, llama.Full, c.Decode())
	require.Equal(t, end-1, c.PosMax(0))
	equalLogits(t, want, next(t, c, 0), "the state is unchanged")
	fits := feed(t, c, 0, end, many[:256-int(end)]...)
	require.EqualValues(t, 255, c.PosMax(0))
	_, err := c.Logits(fits)
	require.NoError(t, err)
	add(t, c, 0, 256, 1)
	requireCode(t, llama.Full, c.Decode())
	_, err = c.Logits(0)
	requireCode(t, llama.Invalid, err, "a decode that failed has no outputs")
	require.NoError(t, c.Truncate(0, end))
	equalLogits(t, want, next(t, c, 0))
}

func TestOutputsLimit(t *testing.T) {
	p := small()
	p.Outputs = 3
	c := newContext(t, model(t, smol), p)
	for i := range 3 {
		_, err := c.Batch().Add(5, llama.Pos(i), 0, true)
		require.NoError(t, err)
	}
	_, err := c.Batch().Add(5, 3, 0, true)
	requireCode(t, llama.Invalid, err)
	_, err = c.Batch().Add(5, 3, 0, false)
	require.NoError(t, err)
	require.NoError(t, c.Decode())
	for place, code := range map[int]llama.Code{0: 0, 2: 0, 3: llama.Invalid, 4: llama.Invalid} {
		_, err := c.Logits(place)
		if code == 0 {
			require.NoError(t, err)
		} else {
			requireCode(t, code, err)
		}
	}
	// A place of an older batch has no output in a newer one, filled or not.
	feed(t, c, 0, 4, 5)
	_, err = c.Logits(2)
	requireCode(t, llama.Invalid, err)
	add(t, c, 0, 5, 5, 6)
	_, err = c.Logits(0)
	require.NoError(t, err, "a batch that is being filled hides nothing of the last one")
}

func TestDecodeRefusesAGapInPositions(t *testing.T) {
	c := newContext(t, model(t, smol), small())
	feed(t, c, 0, 0, 5, 6)
	add(t, c, 0, 7, 5)
	requireCode(t, llama.Invalid, c.Decode())
	require.EqualValues(t, 1, c.PosMax(0))
	feed(t, c, 0, 2, 7)
}
