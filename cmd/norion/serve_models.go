package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker"
	"github.com/norion/norion/runtime/worker/pool"
)

// modelsMax bounds how many models one server loads.
const modelsMax = 16

// models are the models of a server. It implements httpapi.Models.
type models struct {
	pool   *pool.Pool
	names  []string // in the order in which they were given
	began  time.Time
	record *recorder

	changed []string // flags by which they answer in another way than their files alone say

	mu       sync.Mutex
	infos    map[string]*infer.Info // as last loaded
	paths    map[string]string      // of files, as last loaded
	restarts map[string]int64       // of workers that are unloaded
	mapped   map[string]int64       // bytes of files that loaded models map
}

// openModels loads all models that are named, as far as they have room, so that what cannot be
// loaded is known at once.
func (a *app) openModels(
	ctx context.Context, refs []string, f *serveFlags, o engine.Options, edge *httpapi.Options,
) (_ *models, err error) {
	m := &models{
		began: time.Now(), changed: f.changes(), infos: map[string]*infer.Info{},
		paths: map[string]string{}, restarts: map[string]int64{}, mapped: map[string]int64{},
	}
	open := a.open
	switch {
	case f.inProcess:
	case !worker.Supported:
		fmt.Fprintln(a.err, "note: models run in the server's own process, as with --in-process: "+
			"this system has no others")
	default:
		open = func(ctx context.Context, o engine.Options) (infer.Backend, error) {
			return a.spawn(ctx, f.worker(a, o, edge.Logger))
		}
	}
	keep := pool.Options{BudgetBytes: f.memory << 20, Idle: f.idle, Logger: a.logger(f.verbose)}
	for _, ref := range refs {
		name := serveName(ref)
		if slices.Contains(m.names, name) {
			return nil, &usageError{
				message: fmt.Sprintf("two models would be called %s", name),
				hint:    "name each model once",
			}
		}
		m.names = append(m.names, name)
		entry := pool.Model{Name: name, Open: a.opening(m, ref, f, o, open)}
		if f.memory > 0 {
			if entry.Bytes, err = a.predict(ctx, ref, o); err != nil {
				return nil, err
			}
		}
		keep.Models = append(keep.Models, entry)
		labels := prometheus.Labels{"model": name}
		c := servedModel{m, name}
		if err := prometheus.WrapRegistererWith(labels, edge.Registry).Register(c); err != nil {
			return nil, err
		}
	}
	if m.pool, err = pool.New(keep); err != nil {
		return nil, asFlag(err)
	}
	for _, name := range m.names {
		b, release, err := m.pool.Acquire(ctx, name)
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		a.notes(b)
		release()
	}
	return m, nil
}

// opening gives the function by which the pool loads a model.
func (a *app) opening(m *models, ref string, f *serveFlags, o engine.Options, open opener) func(
	context.Context,
) (infer.Backend, func() error, error) {
	name := serveName(ref)
	return func(ctx context.Context) (infer.Backend, func() error, error) {
		flags := f.modelFlags
		flags.sayPlan, flags.mapped = true, m.mappedBytes()
		b, err := a.loadBy(ctx, open, ref, &flags, o)
		if errors.Is(err, plan.ErrNoFit) { // the pool may make room
			err = &infer.Error{Op: "load", Kind: infer.KindNoMemory, Hint: hintOf(err), Err: err}
		}
		if err != nil {
			return nil, nil, err
		}
		info := b.Info()
		m.mu.Lock()
		m.infos[name], m.paths[name], m.mapped[name] = &info, absolute(b.path), mapped(b.plan)
		m.mu.Unlock()
		unpublish := a.publish(b, o.CacheDir)
		return b.Backend, func() error { // itself, with all that it can do besides
			unpublish()
			err := b.Close()
			m.mu.Lock()
			m.restarts[name] += restarts(b.Backend)
			delete(m.mapped, name)
			m.mu.Unlock()
			return err
		}, nil
	}
}

// path is that of a model's file, without links.
func (m *models) path(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.paths[name]
}

// mappedBytes are those of files that loaded models map: they seem to be free.
func (m *models) mappedBytes() (total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, bytes := range m.mapped {
		total += bytes
	}
	return total
}

// mapped are the bytes that a planned load maps.
func mapped(p *plan.Plan) int64 {
	if p == nil || p.Load != plan.LoadMap {
		return 0
	}
	return p.Devices[len(p.Devices)-1].Bytes.Weights // the last one is the host
}

// predict says how many bytes a model takes when it is loaded, by its plan.
func (a *app) predict(ctx context.Context, ref string, o engine.Options) (total int64, err error) {
	found, err := a.find(ctx, ref)
	if err != nil {
		return 0, err
	}
	shape, err := modelShape(found.Path)
	if err != nil {
		return 0, err
	}
	machine, err := a.thisMachine(ctx)
	if err != nil {
		return 0, err
	}
	w := wishOf(&o)
	w.ContextMin = 0 // what is asked for, not what would fit
	p, err := plan.Make(shape, machine, w)
	if err != nil {
		return 0, err
	}
	for _, d := range p.Devices {
		total += d.Bytes.Total()
	}
	return total, nil
}

// restarts are those of a model's process; 0 where it has none of its own.
func restarts(b infer.Backend) int64 {
	if w, ok := b.(*worker.Worker); ok {
		return w.Status().Restarts
	}
	return 0
}

// revive has processes start again that were given up.
func (m *models) revive() {
	for _, name := range m.names {
		if w, ok := m.pool.Peek(name).(*worker.Worker); ok {
			w.Revive()
		}
	}
}

// serveName is what requests call a model: the name it was asked by, or its file's without the end.
func serveName(ref string) string {
	name := ref[strings.LastIndexAny(ref, `/\`)+1:]
	return strings.TrimSuffix(name, ".gguf")
}

// List implements httpapi.Models.
func (m *models) List() []httpapi.Model {
	m.mu.Lock()
	infos := maps.Clone(m.infos)
	m.mu.Unlock()
	out := make([]httpapi.Model, len(m.names))
	for i, name := range m.names {
		out[i] = httpapi.Model{Name: name, Created: m.began}
		if m.pool.Peek(name) != nil {
			out[i].Info = infos[name]
		}
	}
	return out
}

// Open implements httpapi.Models.
func (m *models) Open(ctx context.Context, name string) (infer.Backend, func(), error) {
	b, release, err := m.pool.Acquire(ctx, name)
	if errors.Is(err, pool.ErrNoModel) {
		return nil, nil, fmt.Errorf("%w: there are %s", httpapi.ErrNoModel, strings.Join(m.names, ", "))
	}
	if _, ok := errors.AsType[*infer.Error](err); err != nil && !ok { // of the store or the plan
		err = &infer.Error{Op: "load", Kind: infer.KindModel, Hint: hintOf(err), Err: err}
	}
	if err != nil {
		return nil, nil, err
	}
	recorded, err := m.record.over(b)
	if err != nil {
		release()
		return nil, nil, err
	}
	return recorded, release, nil
}

// close unloads all models. No request uses them any more.
func (m *models) close() error { return m.pool.Close() }
