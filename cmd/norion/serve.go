package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// serveFlags are the flags of norion serve.
type serveFlags struct {
	modelFlags
	kvFlags
	recordFlags
	listen    listenFlags
	sequences int
	keys      bool
	origins   []string
	inFlight  int
	timeout   time.Duration
	drain     time.Duration

	inProcess, unconfined bool
	idle                  time.Duration
	memory                int64 // MiB
}

func (a *app) newServe() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve MODEL...",
		Short: "Answer OpenAI's and Anthropic's requests over HTTP",
		Long: `Answer OpenAI's and Anthropic's requests over HTTP, with the models named, until it is
interrupted. Answers that run then have --drain to end. Each model has a process of its own.

Only this machine can connect, and needs no key, unless --host names another address: then
callers need a key of norion keys, and none is let in without.`,
		Example: "  norion serve smollm2:135m\n" +
			"  norion serve smollm2:135m gemma3:270m --sequences 8 --ctx 8192\n" +
			"  norion keys create laptop && norion serve smollm2:135m --host 0.0.0.0 --tls-self-signed",
		Args: args(1, modelsMax, "a MODEL: a name or a .gguf file"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			return a.serve(cmd.Context(), f, args)
		}),
	}
	group(cmd.Flags(), "Server", f.add)
	group(cmd.Flags(), "Models", f.addModels)
	group(cmd.Flags(), "Cache", func(fs *pflag.FlagSet) {
		fs.StringVar(&f.speculate, "speculate", string(infer.SpeculateOff),
			"guess several tokens at a time from the text so far: `MODE` off, adaptive")
		fs.BoolVar(&f.cache, "cache", false, "keep prefixes on disk, encrypted; see norion cache")
		fs.BoolVar(&f.plain, "cache-plain", false, "as --cache, not encrypted")
	})
	f.modelFlags.register(cmd)
	return a.configured(cmd)
}

func (f *serveFlags) add(fs *pflag.FlagSet) {
	f.listen.add(fs)
	fs.BoolVar(&f.keys, "keys", false, "ask callers of this machine for a key, too")
	fs.StringArrayVar(&f.origins, "allow-origin", nil,
		"web `ORIGIN` whose pages may call, as https://chat.example; may be repeated")
	fs.IntVar(&f.sequences, "sequences", 4, "requests of a model that run at once; others wait")
	f.recordFlags.add(fs)
	fs.IntVar(&f.inFlight, "in-flight", 256, "requests at once, waiting ones included")
	fs.DurationVar(&f.timeout, "timeout", 30*time.Minute, "time that a request may take")
	fs.DurationVar(&f.drain, "drain", 30*time.Second,
		"time that answers have to end once the server is interrupted")
}

func (f *serveFlags) addModels(fs *pflag.FlagSet) {
	fs.Int64Var(&f.memory, "memory", 0,
		"MiB that loaded models may take together, as planned; the one that was not used for longest "+
			"is unloaded to make room; 0: no bound")
	fs.DurationVar(&f.idle, "idle", 0,
		"unload a model that was not used for so long, and load it again on demand; 0: never")
	fs.BoolVar(&f.inProcess, "in-process", false,
		"run models in the server's own process: what ends one ends all")
	fs.BoolVar(&f.unconfined, "unconfined", false,
		"let the processes of models write files and use the network")
}

func (a *app) serve(ctx context.Context, f *serveFlags, refs []string) (err error) {
	listener, err := a.listen(ctx, &f.listen)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreClosed(listener.Close())) }()
	log := a.openServerLog(f.verbose)
	defer log.close()
	o := httpapi.Options{
		Now: time.Now, Hosts: f.listen.allowed(), Origins: f.origins, InFlight: f.inFlight,
		RequestTimeout: f.timeout, Registry: prometheus.NewRegistry(), Logger: log.Logger,
	}
	if f.keys || !f.listen.local() {
		ring, err := a.openKeys(o.Logger)
		if err != nil {
			return err
		}
		if !ring.get().Usable(time.Now()) {
			return flagError("host", "make a key with norion keys create NAME",
				"%s asks for keys, and there are none", listener.Addr())
		}
		o.Keys = ring.get
	}
	engine, err := f.engine(a)
	if err != nil {
		return err
	}
	record, err := a.openRecorder(ctx, &f.recordFlags, ofSalt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, record.close(a)) }()
	f.digest = f.record
	models, err := a.openModels(ctx, refs, f, engine, &o)
	if err != nil {
		return err
	}
	models.record = record
	hide := func() {}
	defer func() {
		err = errors.Join(err, models.close())
		hide()
	}()
	defer onRevive(ctx, models.revive)()
	o.Models = models
	s, err := httpapi.New(o)
	if err != nil {
		return asFlag(err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	hide = a.announce(log, f.shown(listener, log, o.Keys != nil), models, o.Registry, stop)
	fmt.Fprintf(a.err, "norion serves %s at %s\n", strings.Join(models.names, ", "),
		f.listen.url(listener))
	return serveUntil(ctx, s, listener, f.drain)
}

// engine gives the options that all models are loaded with.
func (f *serveFlags) engine(a *app) (engine.Options, error) {
	o, err := f.modelFlags.options(a)
	if err == nil {
		err = f.kvFlags.options(a, &o)
	}
	if err != nil {
		return o, err
	}
	o.Sequences = f.sequences
	switch f.speculate {
	case string(infer.SpeculateOff):
	case string(infer.SpeculateAdaptive):
		o.Speculate = "ngram"
	default:
		return o, flagError("speculate", "use off or adaptive", "unknown mode %.40q", f.speculate)
	}
	if f.memory < 0 || f.memory > 1<<30 || f.idle < 0 {
		return o, flagError("memory", "0 is no bound", "%d MiB, or idle time of %s", f.memory, f.idle)
	}
	return o, nil
}

// serveUntil serves until ctx ends, and then until the requests that run have ended or their time
// is over.
func serveUntil(
	ctx context.Context, s *httpapi.Server, l net.Listener, drain time.Duration,
) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	h := s.HTTP(base)
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	s.Drain()
	last, stop := context.WithTimeout(base, drain)
	defer stop()
	err := h.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) { // what still runs is cut off
		cut()
		err = h.Close()
	}
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// logger writes what the server says: each request with verbose, else what went wrong.
func (a *app) logger(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
