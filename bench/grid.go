package bench

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Flash says when the fused attention kernel is used; the numbers are llama.cpp's.
type Flash int

const (
	FlashAuto Flash = -1
	FlashOff  Flash = 0
	FlashOn   Flash = 1
)

// LoadMode says how weights come into memory; the names are llama-bench's.
type LoadMode string

const (
	LoadAuto LoadMode = "auto" // as the program chooses
	LoadNone LoadMode = "none" // read into memory of its own
	LoadMap  LoadMode = "mmap"
)

// Grid is every combination that one run measures. An empty list means llama-bench's default.
type Grid struct {
	Models      []string // names or paths, as given
	GPULayers   []int    // -1 means all
	Load        []LoadMode
	Batch       []int
	MicroBatch  []int
	TypeK       []string
	TypeV       []string
	NoKVOffload []bool
	Flash       []Flash
	Threads     []int // default: the physical cores
	Depth       []int
	Poll        []int // 0 sleeps between graphs, 100 spins
	Prompt      []int
	Gen         []int
	PromptGen   [][2]int
	Reps        int // 0 means 5
}

// Bounds of a Grid.
const (
	TokensMax  = 1 << 24 // in each of prompt, generation and depth
	listMax    = 4096    // values of one flag
	TestsMax   = 1 << 16
	RepsMax    = 10000
	threadsMax = 512
)

// Test is one combination: what one line of llama-bench's table measures.
type Test struct {
	Model       string   `json:"model"` // as given
	Prompt      int      `json:"n_prompt"`
	Gen         int      `json:"n_gen"`
	Depth       int      `json:"n_depth"`
	Batch       int      `json:"n_batch"`
	MicroBatch  int      `json:"n_ubatch"`
	TypeK       string   `json:"type_k"`
	TypeV       string   `json:"type_v"`
	Threads     int      `json:"n_threads"`
	Poll        int      `json:"poll"`
	GPULayers   int      `json:"n_gpu_layers"`
	NoKVOffload bool     `json:"no_kv_offload"`
	Flash       Flash    `json:"flash_attn"`
	Load        LoadMode `json:"load_mode"`
}

// String gives the name of the test in llama-bench's table: pp512, tg128, pp512+tg128 @ d4096.
func (t Test) String() string {
	var s string
	switch {
	case t.Gen == 0:
		s = fmt.Sprintf("pp%d", t.Prompt)
	case t.Prompt == 0:
		s = fmt.Sprintf("tg%d", t.Gen)
	default:
		s = fmt.Sprintf("pp%d+tg%d", t.Prompt, t.Gen)
	}
	if t.Depth > 0 {
		s += fmt.Sprintf(" @ d%d", t.Depth)
	}
	return s
}

// Args are the flags that make llama-bench, or `norion bench native`, run exactly this test with
// the model at path.
func (t Test) Args(path string, reps int) []string {
	n := strconv.Itoa
	args := []string{
		"-m", path, "-d", n(t.Depth), "-b", n(t.Batch), "-ub", n(t.MicroBatch),
		"-ctk", t.TypeK, "-ctv", t.TypeV, "-t", n(t.Threads), "--poll", n(t.Poll),
		"-ngl", n(t.GPULayers), "-nkvo", bit(t.NoKVOffload), "-fa", n(int(t.Flash)),
		"-lm", string(t.Load), "-r", n(reps), "-o", "json",
	}
	if t.Prompt > 0 && t.Gen > 0 {
		return append(args, "-p", "0", "-n", "0", "-pg", n(t.Prompt)+","+n(t.Gen))
	}
	return append(args, "-p", n(t.Prompt), "-n", n(t.Gen))
}

func bit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// fill returns g with llama-bench's defaults in place of what is empty.
func (g Grid) fill() Grid {
	ints := func(list *[]int, value int) {
		if len(*list) == 0 {
			*list = []int{value}
		}
	}
	ints(&g.GPULayers, -1)
	ints(&g.Batch, 2048)
	ints(&g.MicroBatch, 512)
	ints(&g.Depth, 0)
	ints(&g.Poll, 50)
	ints(&g.Prompt, 512)
	ints(&g.Gen, 128)
	if len(g.Threads) == 0 {
		g.Threads = []int{DefaultThreads()}
	}
	if len(g.TypeK) == 0 {
		g.TypeK = []string{"f16"}
	}
	if len(g.TypeV) == 0 {
		g.TypeV = []string{"f16"}
	}
	if len(g.NoKVOffload) == 0 {
		g.NoKVOffload = []bool{false}
	}
	if len(g.Flash) == 0 {
		g.Flash = []Flash{FlashAuto}
	}
	if len(g.Load) == 0 {
		g.Load = []LoadMode{LoadAuto}
	}
	if g.Reps == 0 {
		g.Reps = 5
	}
	return g
}

// Validate refuses a grid that cannot be measured. Errors: ErrFlag.
func (g *Grid) Validate() error {
	f := g.fill()
	if len(f.Models) == 0 {
		return badFlag("model", "name one: norion bench -m smollm2:135m", "none was given")
	}
	for _, l := range []struct {
		name     string
		values   []int
		min, max int
	}{
		{"n-gpu-layers", f.GPULayers, -1, 1 << 20},
		{"batch-size", f.Batch, 1, TokensMax},
		{"ubatch-size", f.MicroBatch, 1, TokensMax},
		{"threads", f.Threads, 1, threadsMax},
		{"n-depth", f.Depth, 0, TokensMax},
		{"poll", f.Poll, 0, 100},
		{"n-prompt", f.Prompt, 0, TokensMax},
		{"n-gen", f.Gen, 0, TokensMax},
		{"repetitions", []int{f.Reps}, 1, RepsMax},
	} {
		for _, v := range l.values {
			if v < l.min || v > l.max {
				return badFlag(l.name, "", "%d is outside %d..%d", v, l.min, l.max)
			}
		}
	}
	for _, pg := range f.PromptGen {
		if min(pg[0], pg[1]) < 0 || max(pg[0], pg[1]) > TokensMax {
			return badFlag("pg", "", "%d,%d is outside 0..%d", pg[0], pg[1], TokensMax)
		}
	}
	if n := f.count(); n == 0 || n > TestsMax {
		return badFlag("n-prompt", "give -p, -n or -pg a number above 0", "%d tests, want 1..%d",
			n, TestsMax)
	}
	return nil
}

// count is the number of tests, or one more than TestsMax.
func (g *Grid) count() int {
	above := func(list []int) (n int) {
		for _, v := range list {
			if v > 0 {
				n++
			}
		}
		return n
	}
	n := above(g.Prompt) + above(g.Gen)
	for _, pg := range g.PromptGen {
		if pg != [2]int{} {
			n++
		}
	}
	for _, l := range []int{
		len(g.Models), len(g.GPULayers), len(g.Batch), len(g.MicroBatch), len(g.TypeK),
		len(g.TypeV), len(g.NoKVOffload), len(g.Flash), len(g.Threads), len(g.Depth), len(g.Poll),
		len(g.Load),
	} {
		n = min(n*l, TestsMax+1)
	}
	return n
}

// Tests lists every combination, in llama-bench's order: each model is loaded once.
func (g Grid) Tests() []Test {
	g = g.fill()
	tests := []Test{{}}
	tests = cross(tests, g.Models, func(t *Test, v string) { t.Model = v })
	tests = cross(tests, g.GPULayers, func(t *Test, v int) { t.GPULayers = v })
	tests = cross(tests, g.Load, func(t *Test, v LoadMode) { t.Load = v })
	tests = cross(tests, g.Batch, func(t *Test, v int) { t.Batch = v })
	tests = cross(tests, g.MicroBatch, func(t *Test, v int) { t.MicroBatch = v })
	tests = cross(tests, g.TypeK, func(t *Test, v string) { t.TypeK = v })
	tests = cross(tests, g.TypeV, func(t *Test, v string) { t.TypeV = v })
	tests = cross(tests, g.NoKVOffload, func(t *Test, v bool) { t.NoKVOffload = v })
	tests = cross(tests, g.Flash, func(t *Test, v Flash) { t.Flash = v })
	tests = cross(tests, g.Threads, func(t *Test, v int) { t.Threads = v })
	tests = cross(tests, g.Depth, func(t *Test, v int) { t.Depth = v })
	tests = cross(tests, g.Poll, func(t *Test, v int) { t.Poll = v })
	work := make([][2]int, 0, len(g.Prompt)+len(g.Gen)+len(g.PromptGen))
	for _, n := range g.Prompt {
		work = append(work, [2]int{n, 0})
	}
	for _, n := range g.Gen {
		work = append(work, [2]int{0, n})
	}
	work = append(work, g.PromptGen...)
	work = slices.DeleteFunc(work, func(w [2]int) bool { return w == [2]int{} })
	return cross(tests, work, func(t *Test, v [2]int) { t.Prompt, t.Gen = v[0], v[1] })
}

// cross gives, for each test, one copy per value.
func cross[V any](tests []Test, values []V, set func(*Test, V)) []Test {
	out := make([]Test, 0, len(tests)*len(values))
	for _, t := range tests {
		for _, v := range values {
			set(&t, v)
			out = append(out, t)
		}
	}
	return out
}

// rangeItem is one item of a list: first, first-last, first-last+step or first-last*factor.
var rangeItem = regexp.MustCompile(`^(-?\d+)(?:-(\d+)(?:([+*])(\d+))?)?$`)

// ParseInts reads a list of numbers and ranges as llama-bench takes them: "512", "1,2,8",
// "1-4", "64-512+64", "1-16*2". A single negative number is allowed; the caller checks bounds.
func ParseInts(s string) ([]int, error) {
	var out []int
	for item := range strings.SplitSeq(strings.TrimSuffix(s, ","), ",") {
		m := rangeItem.FindStringSubmatch(item)
		if m == nil {
			return nil, fmt.Errorf("%q is no number or range (1,2 or 1-4 or 64-512+64 or 1-16*2)",
				clip(item))
		}
		var bounds [3]int64 // first, last, step or factor
		for i, text := range []string{m[1], m[2], m[4]} {
			if text == "" {
				bounds[i] = []int64{0, bounds[0], 1}[i]
				continue
			}
			n, err := strconv.ParseInt(text, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%q is too large", clip(text))
			}
			bounds[i] = n
		}
		if bounds[0] > bounds[1] {
			return nil, fmt.Errorf("%q ends before it begins", clip(item))
		}
		for i := bounds[0]; i <= bounds[1]; {
			if len(out) == listMax {
				return nil, fmt.Errorf("more than %d values", listMax)
			}
			out = append(out, int(i))
			next := i + bounds[2]
			if m[3] == "*" {
				next = i * bounds[2]
			}
			if next <= i {
				return nil, fmt.Errorf("%q does not get on", clip(item))
			}
			i = next
		}
	}
	return out, nil
}

// clip shortens text that came from outside for a message.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
