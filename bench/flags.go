package bench

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Flag describes one flag of a Grid, named as llama-bench names it.
type Flag struct {
	Name    string // the long form, without dashes
	Short   string // one letter, or ""
	Alias   string // llama-bench's other form of several letters behind one dash, or ""
	Usage   string
	Default string

	set func(g *Grid, value string) error
}

// Flags lists the flags that set a Grid. All but repetitions take several values, separated by
// commas or by giving the flag again.
func Flags() []Flag {
	ints := func(list func(*Grid) *[]int) func(*Grid, string) error {
		return func(g *Grid, value string) error {
			n, err := ParseInts(value)
			p := list(g)
			*p = append(*p, n...)
			return err
		}
	}
	return []Flag{
		{"model", "m", "", "model names or paths of .gguf files", "", func(g *Grid, v string) error {
			g.Models = append(g.Models, strings.Split(v, ",")...)
			return nil
		}},
		{
			"n-prompt", "p", "", "prompt tokens of a prefill test", "512",
			ints(func(g *Grid) *[]int { return &g.Prompt }),
		},
		{
			"n-gen", "n", "", "tokens of a generation test", "128",
			ints(func(g *Grid) *[]int { return &g.Gen }),
		},
		{"pg", "", "pg", "PROMPT,GEN tokens of a test of both together", "", setPromptGen},
		{
			"n-depth", "d", "", "tokens in the cache before the test", "0",
			ints(func(g *Grid) *[]int { return &g.Depth }),
		},
		{
			"batch-size", "b", "", "most tokens of one decode", "2048",
			ints(func(g *Grid) *[]int { return &g.Batch }),
		},
		{
			"ubatch-size", "", "ub", "most tokens computed at once", "512",
			ints(func(g *Grid) *[]int { return &g.MicroBatch }),
		},
		{"cache-type-k", "", "ctk", "type of cached keys", "f16", setType(
			func(g *Grid) *[]string { return &g.TypeK })},
		{"cache-type-v", "", "ctv", "type of cached values", "f16", setType(
			func(g *Grid) *[]string { return &g.TypeV })},
		{
			"threads", "t", "", "threads", "physical cores",
			ints(func(g *Grid) *[]int { return &g.Threads }),
		},
		{
			"poll", "", "", "0 lets threads sleep between graphs, 100 lets them spin", "50",
			ints(func(g *Grid) *[]int { return &g.Poll }),
		},
		{
			"n-gpu-layers", "", "ngl", "layers on GPUs, -1 for all", "-1",
			ints(func(g *Grid) *[]int { return &g.GPULayers }),
		},
		{"no-kv-offload", "", "nkvo", "keep the cache in host memory: 0 or 1", "0", setNoKVOffload},
		{"flash-attn", "", "fa", "flash attention: on, off or auto", "auto", setFlash},
		{"load-mode", "", "lm", "how weights come into memory: auto, none or mmap", "auto", setLoad},
		{"repetitions", "r", "", "measurements of each test", "5", func(g *Grid, v string) error {
			n, err := strconv.Atoi(v)
			g.Reps = n
			if err == nil && n == 0 {
				g.Reps = -1 // zero was asked for: Validate refuses it
			}
			return err
		}},
	}
}

// kvTypes are the cache types that llama-bench takes.
var kvTypes = [...]string{"f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"}

func setType(list func(*Grid) *[]string) func(*Grid, string) error {
	return func(g *Grid, value string) error {
		for v := range strings.SplitSeq(value, ",") {
			if !slices.Contains(kvTypes[:], v) {
				return badFlag("cache-type", "use one of "+strings.Join(kvTypes[:], " "),
					"unknown %q", clip(v))
			}
			p := list(g)
			*p = append(*p, v)
		}
		return nil
	}
}

func setPromptGen(g *Grid, value string) error {
	n, err := ParseInts(value)
	if err != nil {
		return err
	}
	if len(n) != 2 || strings.Count(value, ",") != 1 {
		return badFlag("pg", "for example -pg 512,128", "%q is not PROMPT,GEN", clip(value))
	}
	g.PromptGen = append(g.PromptGen, [2]int{n[0], n[1]})
	return nil
}

func setNoKVOffload(g *Grid, value string) error {
	for v := range strings.SplitSeq(value, ",") {
		if v != "0" && v != "1" {
			return badFlag("no-kv-offload", "use 0 or 1", "%q", clip(v))
		}
		g.NoKVOffload = append(g.NoKVOffload, v == "1")
	}
	return nil
}

func setFlash(g *Grid, value string) error {
	for v := range strings.SplitSeq(value, ",") {
		switch v {
		case "on", "enabled", "true", "1":
			g.Flash = append(g.Flash, FlashOn)
		case "off", "disabled", "false", "0":
			g.Flash = append(g.Flash, FlashOff)
		case "auto", "-1":
			g.Flash = append(g.Flash, FlashAuto)
		default:
			return badFlag("flash-attn", "use on, off or auto", "unknown %q", clip(v))
		}
	}
	return nil
}

func setLoad(g *Grid, value string) error {
	for v := range strings.SplitSeq(value, ",") {
		switch m := LoadMode(v); m {
		case LoadAuto, LoadNone, LoadMap:
			g.Load = append(g.Load, m)
		default:
			return badFlag("load-mode", "use auto, none or mmap", "unknown %q", clip(v))
		}
	}
	return nil
}

// Value is one flag of a grid in the form that flag libraries take.
type Value struct {
	grid *Grid
	flag Flag
	text []string
}

// Value binds a flag of Flags to the grid.
func (g *Grid) Value(f Flag) *Value { return &Value{grid: g, flag: f} }

// Set adds the values of one occurrence. Errors: ErrFlag.
func (v *Value) Set(value string) error {
	if err := v.flag.set(v.grid, value); err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return e
		}
		return &Error{Op: "flags", Kind: ErrFlag, Field: v.flag.Name, Err: err}
	}
	v.text = append(v.text, value)
	return nil
}

// String gives what was set.
func (v *Value) String() string { return strings.Join(v.text, ",") }

// Type names the kind of value for help texts.
func (v *Value) Type() string { return "list" }

// LongArgs turns llama-bench's flags of several letters behind one dash (-fa, -ctk, -pg) into the
// long flags that flag libraries read, and underscores in long flags into dashes.
func LongArgs(args []string) []string {
	long := map[string]string{"-oe": "--output-err"}
	for _, f := range Flags() {
		if f.Alias != "" {
			long["-"+f.Alias] = "--" + f.Name
		}
	}
	out := make([]string, 0, len(args))
	for i, arg := range args {
		if arg == "--" {
			return append(out, args[i:]...)
		}
		name, value, hasValue := strings.Cut(arg, "=")
		if strings.HasPrefix(name, "--") {
			name = strings.ReplaceAll(name, "_", "-")
		} else if l, ok := long[name]; ok {
			name = l
		}
		if hasValue {
			name += "=" + value
		}
		out = append(out, name)
	}
	return out
}
