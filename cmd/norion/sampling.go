package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/norion/norion/runtime/infer"
)

// samplingFlags are the flags of sampling, with the names and defaults of llama.cpp's tools.
type samplingFlags struct {
	s               infer.Sampling
	seed            int64
	lastN, dryLastN int
	bias            []string
	ignoreEOS       bool
}

func (f *samplingFlags) add(fs *pflag.FlagSet) {
	f.s = infer.DefaultSampling()
	s, d := &f.s, infer.DefaultSampling()
	fs.Float32Var(&s.Temperature, "temp", d.Temperature, "temperature; 0 is greedy")
	fs.Int64VarP(&f.seed, "seed", "s", -1, "seed of the random numbers; -1 or 0 draws one")
	fs.IntVar(&s.TopK, "top-k", d.TopK, "keep the `N` most probable tokens; 0 keeps all")
	fs.Float32Var(&s.TopP, "top-p", d.TopP, "keep the top tokens of this probability; 1 keeps all")
	fs.Float32Var(&s.MinP, "min-p", d.MinP, "least probability relative to the best; 0 keeps all")
	fs.Float32Var(&s.TypicalP, "typical", 1, "locally typical sampling; 1 keeps all")
	fs.Float32Var(&s.TopSigma, "top-n-sigma", -1, "keep within N standard deviations; -1 is off")
	fs.Float32Var(&s.XTCProbability, "xtc-probability", 0, "chance to drop the top choices")
	fs.Float32Var(&s.XTCThreshold, "xtc-threshold", 0.1, "least probability of what XTC drops")
	fs.Float32Var(&s.DynatempRange, "dynatemp-range", 0, "range of the dynamic temperature")
	fs.Float32Var(&s.DynatempExponent, "dynatemp-exp", 1, "exponent of the dynamic temperature")
	fs.Float32Var(&s.RepeatPenalty, "repeat-penalty", 1, "penalty of repeated tokens; 1 is off")
	fs.IntVar(&f.lastN, "repeat-last-n", 64, "tokens that penalties look at; 0 none, -1 all")
	fs.Float32Var(&s.PresencePenalty, "presence-penalty", 0, "penalty of tokens that occurred")
	fs.Float32Var(&s.FrequencyPenalty, "frequency-penalty", 0, "penalty by how often they did")
	fs.Float32Var(&s.DRYMultiplier, "dry-multiplier", 0, "strength of DRY; 0 is off")
	fs.Float32Var(&s.DRYBase, "dry-base", 1.75, "base of DRY")
	fs.IntVar(&s.DRYAllowedLength, "dry-allowed-length", 2, "repeated tokens that DRY lets pass")
	fs.IntVar(&f.dryLastN, "dry-penalty-last-n", -1, "tokens that DRY looks at; 0 none, -1 all")
	fs.StringArrayVar(&s.DRYBreakers, "dry-sequence-breaker", nil,
		"`TEXT` that DRY starts anew at; may be repeated; \"none\" for none")
	fs.IntVar(&s.Mirostat, "mirostat", 0, "Mirostat 1 or 2 in place of the other samplers; 0 is off")
	fs.Float32Var(&s.MirostatEta, "mirostat-lr", 0.1, "learning rate of Mirostat")
	fs.Float32Var(&s.MirostatTau, "mirostat-ent", 5, "target entropy of Mirostat")
	fs.StringArrayVarP(&f.bias, "logit-bias", "l", nil,
		"`TOKEN(+|-)BIAS` by token id, as 15043+1 or 15043-inf; may be repeated")
	fs.BoolVar(&f.ignoreEOS, "ignore-eos", false, "go on past the end of the answer")
}

// sampling gives the values in the vocabulary of infer, where 0 often means the default: there a
// literal 0 is refused rather than changed silently.
func (f *samplingFlags) sampling() (infer.Sampling, error) {
	s := f.s
	for _, v := range []struct {
		flag, hint string
		zero       bool
	}{
		{"top-p", "1 keeps all tokens; --temp 0 takes the most probable one", s.TopP == 0},
		{"typical", "1 is off", s.TypicalP == 0},
		{"repeat-penalty", "1 is off", s.RepeatPenalty == 0},
		{"dynatemp-exp", "1 is the default", s.DynatempExponent == 0},
		{"dry-base", "1.75 is the default; --dry-multiplier 0 is off", s.DRYBase == 0},
		{"dry-allowed-length", "1 is the least", s.DRYAllowedLength == 0},
		{"mirostat-lr", "0.1 is the default", s.MirostatEta == 0},
		{"mirostat-ent", "5 is the default", s.MirostatTau == 0},
	} {
		if v.zero {
			return s, flagError(v.flag, v.hint, "0 cannot be used")
		}
	}
	if f.seed < -1 || f.seed > math.MaxUint32 {
		return s, flagError("seed", "", "%d is outside -1..%d", f.seed, uint32(math.MaxUint32))
	}
	s.Seed = uint32(max(f.seed, 0))
	if s.TopSigma == -1 {
		s.TopSigma = 0
	}
	if s.PenaltyLastN = f.lastN; f.lastN == 0 {
		s.RepeatPenalty, s.PresencePenalty, s.FrequencyPenalty = 1, 0, 0
	}
	switch s.DRYLastN = max(f.dryLastN, 0); {
	case f.dryLastN == 0:
		s.DRYMultiplier = 0
	case f.dryLastN < -1:
		return s, flagError("dry-penalty-last-n", "", "%d is below -1", f.dryLastN)
	}
	if len(s.DRYBreakers) == 1 && s.DRYBreakers[0] == "none" {
		s.DRYBreakers = []string{}
	}
	for _, text := range f.bias {
		id, bias, err := parseBias(text)
		if err != nil {
			return s, err
		}
		if s.LogitBias == nil {
			s.LogitBias = map[infer.TokenID]float32{}
		}
		s.LogitBias[id] = bias
	}
	return s, asFlag(s.Validate())
}

// parseBias reads TOKEN(+|-)BIAS.
func parseBias(text string) (infer.TokenID, float32, error) {
	i := strings.IndexAny(text, "+-")
	if i > 0 {
		id, err1 := strconv.ParseInt(text[:i], 10, 32)
		bias, err2 := strconv.ParseFloat(text[i:], 32)
		if err1 == nil && err2 == nil {
			return infer.TokenID(id), float32(bias), nil
		}
	}
	return 0, 0, flagError("logit-bias", "write a token id, + or -, and a number: 15043+1",
		"%q", text)
}

// flagError refuses the value of a flag.
func flagError(flag, hint, format string, args ...any) error {
	return &infer.Error{
		Kind: infer.KindInvalid, Field: "--" + flag, Hint: hint, Err: fmt.Errorf(format, args...),
	}
}

// flagNames are the flags whose names differ from the fields of requests and options.
var flagNames = map[string]string{
	"temperature": "temp", "typical_p": "typical", "dynatemp_exponent": "dynatemp-exp",
	"mirostat_tau": "mirostat-ent", "mirostat_eta": "mirostat-lr", "max_tokens": "predict",
	"dry_sequence_breakers": "dry-sequence-breaker", "top_logprobs": "logprobs",
	"context": "ctx", "micro-batch": "ubatch", "batch threads": "threads-batch",
	"GPU layers": "gpu-layers", "adapters": "lora", "KV type": "kv-type", "batch": "batch",
	"threads": "threads", "kv.evict": "evict", "kv.deterministic": "deterministic",
	"Policy.Evict": "evict", "kv.scope": "scope", "kv.salt": "salt",
	"kv.public_system": "public-system", "kv.reuse_chunks": "reuse-chunks",
}

// asFlag names the flag in place of the field that a request or options refuse.
func asFlag(err error) error {
	e, ok := errors.AsType[*infer.Error](err)
	if !ok || e.Kind != infer.KindInvalid || e.Field == "prompt" {
		return err
	}
	named := *e
	flag, ok := flagNames[e.Field]
	if !ok {
		flag = strings.ReplaceAll(e.Field, "_", "-")
	}
	named.Op, named.Field = "", "--"+flag
	if strings.HasPrefix(e.Field, "messages") { // --system has been checked before
		named.Field = "prompt"
	}
	if flag == "grammar" && e.Hint == "" {
		named.Hint = `rules look like root ::= "yes" | "no"`
	}
	return &named
}
