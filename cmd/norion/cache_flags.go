package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
)

// evictPolicies are what --evict takes.
func evictPolicies() []string {
	return []string{"refuse", "sink-window", "keep-system", "middle-out"}
}

// kvFlags are the flags that say how cached keys and values are reused, given up and kept.
type kvFlags struct {
	p             infer.KVPolicy
	speculate     string
	cache, plain  bool
	contextTokens int // of the loaded model; 0 before
	fs            *pflag.FlagSet
}

func (f *kvFlags) add(fs *pflag.FlagSet) {
	f.fs = fs
	fs.StringVar(&f.p.Evict, "evict", "",
		"`POLICY` that gives up tokens when the context is full: refuse (ends the answer), "+
			"sink-window, keep-system, middle-out")
	fs.IntVar(&f.p.Sinks, "sinks", 4, "sink-window: first tokens that are kept")
	fs.IntVar(&f.p.Window, "window", 0,
		"sink-window: last tokens that are kept; 0: as many as the context has room for")
	fs.IntVar(&f.p.Block, "block", 0, "tokens given up at a time; 0: an eighth")
	fs.BoolVar(&f.p.Recompute, "recompute", false,
		"evict also where positions cannot be moved: what is kept is computed again")
	fs.BoolVar(&f.p.NoReuse, "no-reuse", false, "compute the whole prompt")
	fs.BoolVar(&f.p.Deterministic, "deterministic", false,
		"the same tokens whatever was cached; slower")
	fs.StringVar(&f.p.Scope, "scope", "", "reuse prefixes only within the scope `NAME`")
	fs.StringVar(&f.p.Salt, "salt", "",
		"reuse prefixes only of the same `SECRET`; better set as NORION_SALT than typed")
	fs.BoolVar(&f.p.PublicSystem, "public-system", false,
		"the system prompt is no secret: share it whatever the salt")
	fs.StringVar(&f.speculate, "speculate", string(infer.SpeculateOff),
		"guess several tokens at a time from the text so far: `MODE` off, on, adaptive")
	fs.BoolVar(&f.cache, "cache", false, "keep prefixes on disk, encrypted; see norion cache")
	fs.BoolVar(&f.plain, "cache-plain", false, "as --cache, not encrypted")
}

// addMoves adds the flag of those commands in which an earlier request can have left something to
// move.
func (f *kvFlags) addMoves(fs *pflag.FlagSet) {
	fs.IntVar(&f.p.ReuseChunks, "reuse-chunks", 0,
		"behind what was taken out, move runs of `N` or more equal tokens up; approximate")
}

// speculations are what --speculate takes.
func speculations() []string {
	return []string{
		string(infer.SpeculateOff), string(infer.SpeculateOn), string(infer.SpeculateAdaptive),
	}
}

// kept says that prefixes are kept on disk.
func (f *kvFlags) kept() bool { return f.cache || f.plain }

// policy gives the policy of a request. Until the model is loaded a window of 0 stays 0.
func (f *kvFlags) policy() (infer.KVPolicy, error) {
	p, sinks := f.p, f.p.Evict == "sink-window"
	switch {
	case p.Evict != "" && !slices.Contains(evictPolicies(), p.Evict):
		return p, flagError("evict", "use one of "+strings.Join(evictPolicies(), ", "),
			"unknown policy %.40q", p.Evict)
	case !sinks && p.Window != 0:
		return p, flagError("window", "add --evict sink-window", "only sink-window has one")
	case !sinks && f.fs.Changed("sinks"):
		return p, flagError("sinks", "add --evict sink-window", "only sink-window has some")
	case (p.Evict == "" || p.Evict == "refuse") && (p.Block != 0 || p.Recompute):
		flag := map[bool]string{true: "block", false: "recompute"}[p.Block != 0]
		return p, flagError(flag, "name a policy with --evict", "nothing is given up")
	case p.Deterministic && p.Evict != "" && p.Evict != "refuse":
		return p, flagError("deterministic", "leave out --evict",
			"what is given up depends on what was reused")
	case p.Deterministic && f.speculate == string(infer.SpeculateOn):
		return p, flagError("speculate", "use adaptive, which goes without",
			"guessing rounds in another order than --deterministic wants")
	case p.Deterministic && p.ReuseChunks > 0:
		return p, flagError("reuse-chunks", "leave out one of them", "moved tokens are approximate")
	case !sinks:
		p.Sinks = 0
		return p, f.valid(p)
	}
	if room := f.contextTokens; room > 0 {
		if p.Window == 0 {
			p.Window = room - p.Sinks
			if (kv.SinkWindow{Sinks: p.Sinks, Window: p.Window}).Validate() != nil {
				return p, flagError("sinks", "use a larger --ctx, or at most half of it for sinks",
					"%d sinks leave a window of %d in the context of %d", p.Sinks, max(0, p.Window), room)
			}
		} else if p.Sinks+p.Window > room {
			return p, flagError("window", "use a larger --ctx or a smaller window",
				"%d sinks and a window of %d exceed the context of %d", p.Sinks, p.Window, room)
		}
	}
	return p, f.valid(p)
}

// valid refuses what the policies themselves refuse.
func (f *kvFlags) valid(p infer.KVPolicy) error {
	var e kv.Validator = kv.KeepSystem{Block: p.Block} // of middle-out, too
	if p.Evict == "sink-window" {
		w := kv.SinkWindow{Sinks: p.Sinks, Window: p.Window, Block: p.Block}
		if w.Window == 0 {
			w.Window = kv.TokensMax // not known yet
		}
		e = w
	}
	err := e.Validate()
	bad, ok := errors.AsType[*kv.Error](err)
	if !ok {
		return err
	}
	return flagError(strings.ToLower(bad.Field), bad.Hint, "%w", bad.Err)
}

// options says where prefixes are kept.
func (f *kvFlags) options(a *app, o *engine.Options) (err error) {
	if !f.kept() {
		return nil
	}
	if len(o.Loras) > 0 {
		return flagError("cache", "leave out --lora or --cache",
			"what adapters had a part in is not kept on disk")
	}
	o.CacheDir, err = cacheDir(a.getenv)
	o.CachePlain, o.DiskBytes = f.plain, cacheDiskBytes
	return err
}

// fileDigest reads a model file of which no digest is known: what is kept of one model must never
// serve another one at the same path.
func (a *app) fileDigest(ctx context.Context, path string) (digest string, err error) {
	file, err := gguf.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return a.digest(ctx, file)
}

// cacheLine says what of a prompt was cached, by where it lay, and what was given up.
func cacheLine(u infer.Usage) string {
	line := fmt.Sprintf("cache        %d live, %d RAM, %d disk; %d computed, %d evicted",
		u.Cached.Live, u.Cached.RAM, u.Cached.Disk, u.Computed, u.Evicted)
	if u.Cached.Moved > 0 {
		line += fmt.Sprintf("; %d moved: approximate", u.Cached.Moved)
	}
	return line
}
