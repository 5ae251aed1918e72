// Command norion runs language models on this machine. It owns the command line: commands, flags,
// environment, output, exit codes and the wiring of the rooms. It must not know how a model is
// stored, read or run: each command gathers its options, calls one room and prints what comes back.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker"
)

func main() {
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.LookupEnv, open: openEngine,
		spawn: openWorker,
	}
	os.Exit(a.main(context.Background(), os.Args[1:]))
}

// app is what the commands share: the edges of the process. One app serves one command line.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
	open     opener
	spawn    func(context.Context, worker.Options) (infer.Backend, error)  // a model's process
	probe    func(context.Context, device.Options) (device.Machine, error) // nil: device.Probe

	reached bool              // a command's own code ran: what fails after that is no usage error
	config  string            // the file that --config names
	sources map[string]string // where the flags that are not at their defaults got their values
}

// opener loads a model.
type opener = func(context.Context, engine.Options) (infer.Backend, error)

func openEngine(ctx context.Context, o engine.Options) (infer.Backend, error) {
	e, err := engine.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// main runs one command line and returns the exit code. The first interrupt cancels the command,
// the second ends the process.
func (a *app) main(ctx context.Context, args []string) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root := a.newRoot()
	root.SetArgs(args)
	return a.report(root.ExecuteContext(ctx), args)
}

// getenv is the environment in the form that the rooms take: "" for what is not set.
func (a *app) getenv(name string) string {
	if v, ok := a.env(name); ok {
		return v
	}
	return ""
}
