package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker"
)

// newWorker is the process of one model, which norion serve starts. No list of commands has it.
func (a *app) newWorker() *cobra.Command {
	return &cobra.Command{
		Use: "worker", Short: "Run one model for a server", Hidden: true,
		Args: args(0, 0, "no arguments"),
		RunE: a.ran(func(*cobra.Command, []string) error { return worker.Main(openEngine) }),
	}
}

// openWorker starts the process of a model.
func openWorker(ctx context.Context, o worker.Options) (infer.Backend, error) {
	w, err := worker.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// worker gives the options of a model's process.
func (f *serveFlags) worker(a *app, o engine.Options, logger *slog.Logger) worker.Options {
	return worker.Options{
		Engine: o, Env: a.driverEnv(), Confine: worker.Confinement{Off: f.unconfined}, Logger: logger,
	}
}

// driverVariables say where the libraries of drivers are and which devices they use. No others
// reach a model's process.
func driverVariables() []string {
	return []string{
		"LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES",
		"ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES", "GOMAXPROCS", "OMP_NUM_THREADS",
		"OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT",
	}
}

// driverEnv gives those that are set.
func (a *app) driverEnv() (env []string) {
	for _, name := range driverVariables() {
		if value, ok := a.env(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
