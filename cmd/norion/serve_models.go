package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// modelsMax bounds how many models one server loads.
const modelsMax = 16

// models are the loaded models of a server, by name. It implements httpapi.Models.
type models struct {
	list   []httpapi.Model
	byName map[string]infer.Backend
	ends   []func() error // in the order in which they were begun
}

// openModels loads all models that are named.
func (a *app) openModels(
	ctx context.Context, refs []string, f *modelFlags, o engine.Options, all *prometheus.Registry,
) (_ *models, err error) {
	m := &models{byName: map[string]infer.Backend{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	for _, ref := range refs {
		if m.byName[serveName(ref)] != nil {
			return nil, &usageError{
				message: fmt.Sprintf("two models would be called %s", serveName(ref)),
				hint:    "name each model once",
			}
		}
		b, err := a.load(ctx, ref, f, o)
		if err != nil {
			return nil, err
		}
		unpublish := a.publish(b, o.CacheDir)
		m.ends = append(m.ends, b.Close, func() error { unpublish(); return nil })
		a.notes(b)
		info := b.Info()
		name := serveName(ref)
		m.byName[name] = b.Backend // itself, with all that it can do besides
		m.list = append(m.list, httpapi.Model{Name: name, Created: time.Now(), Info: &info})
		if seen, ok := b.Backend.(infer.Observer); ok {
			labels := prometheus.Labels{"model": name}
			if err := prometheus.WrapRegistererWith(labels, all).Register(collector{seen}); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// serveName is what requests call a model: the name it was asked by, or its file's without the end.
func serveName(ref string) string {
	name := ref[strings.LastIndexAny(ref, `/\`)+1:]
	return strings.TrimSuffix(name, ".gguf")
}

// names are those of the models in the order in which they were named.
func (m *models) names() []string {
	out := make([]string, len(m.list))
	for i, l := range m.list {
		out[i] = l.Name
	}
	return out
}

// List implements httpapi.Models.
func (m *models) List() []httpapi.Model { return m.list }

// Open implements httpapi.Models.
func (m *models) Open(_ context.Context, name string) (infer.Backend, func(), error) {
	if b := m.byName[name]; b != nil {
		return b, func() {}, nil
	}
	return nil, nil, fmt.Errorf("%w: there are %s", httpapi.ErrNoModel,
		strings.Join(slices.Sorted(maps.Keys(m.byName)), ", "))
}

// close unloads all models. No request uses them any more.
func (m *models) close() (err error) {
	for _, end := range slices.Backward(m.ends) {
		err = errors.Join(err, end())
	}
	return err
}
