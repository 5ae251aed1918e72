package main

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store/storetest"
)

// trial loads on a made-up machine, where the first so many loads find no room.
type trial struct {
	app    *app
	stderr bytes.Buffer
	full   int              // loads that find no room
	opened []engine.Options // what was tried
}

var errFull = &infer.Error{Op: "open", Kind: infer.KindNoMemory, Err: errors.New("no room")}

func newTrial(t *testing.T, full int, available int64) *trial {
	t.Helper()
	home := t.TempDir()
	tr := &trial{full: full}
	tr.app = &app{
		err: &tr.stderr, env: func(name string) (string, bool) {
			return home, name == "NORION_HOME"
		},
		open: func(_ context.Context, o engine.Options) (infer.Backend, error) {
			tr.opened = append(tr.opened, o)
			if len(tr.opened) <= full {
				return nil, errFull
			}
			return fakeBackend{}, nil
		},
		probe: func(context.Context, device.Options) (device.Machine, error) {
			m, err := plan.Machine("laptop-16gb")
			m.Memory.AvailableBytes = available
			return m, err
		},
	}
	return tr
}

// fakeBackend is a model that is only opened.
type fakeBackend struct{ infer.Backend }

// TestReplans: a load that finds no room is planned again with less, and this is said.
func TestReplans(t *testing.T) {
	t.Parallel()
	path := storetest.Model(t, "smollm2:135m")
	tr := newTrial(t, 2, 405<<20)
	o := engine.Options{Sequences: 2}
	b, err := tr.app.load(t.Context(), path, &modelFlags{plan: planAuto}, o)
	require.NoError(t, err)
	require.Len(t, tr.opened, 3)
	for i := 1; i < len(tr.opened); i++ {
		require.Less(t, tr.opened[i].ContextTokens, tr.opened[i-1].ContextTokens)
	}
	require.Equal(t, tr.opened[2].ContextTokens, b.plan.ContextTokens)
	require.Contains(t, tr.stderr.String(), "note: it has no room as planned, and is planned again")
}

// TestReplansEnd: where there is no other plan, the error of the load is the answer.
func TestReplansEnd(t *testing.T) {
	t.Parallel()
	path := storetest.Model(t, "smollm2:135m")
	for name, c := range map[string]struct {
		o     engine.Options
		how   string
		tries int
	}{
		"a context that was asked for": {engine.Options{ContextTokens: 2048}, planAuto, 1},
		"no plan":                      {engine.Options{}, planOff, 1},
		"no end":                       {engine.Options{Sequences: 2}, planAuto, replansMax + 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTrial(t, 100, 405<<20)
			_, err := tr.app.load(t.Context(), path, &modelFlags{plan: c.how}, c.o)
			require.ErrorIs(t, err, errFull)
			require.Len(t, tr.opened, c.tries)
		})
	}
}

// TestUnplanned: what a plan would refuse on a processor alone is loaded without one, and this is
// said.
func TestUnplanned(t *testing.T) {
	t.Parallel()
	path := storetest.Model(t, "smollm2:135m")
	tr := newTrial(t, 0, 100<<20)
	b, err := tr.app.load(t.Context(), path, &modelFlags{plan: planAuto}, engine.Options{})
	require.NoError(t, err)
	require.Nil(t, b.plan)
	require.Zero(t, tr.opened[0].ContextTokens)
	require.Contains(t, tr.stderr.String(), "note: not planned: plan: does not fit")
}

// TestLessen: what others map, and loads that found no room, leave less of a machine, and never
// nothing.
func TestLessen(t *testing.T) {
	t.Parallel()
	m := device.Machine{
		Memory:       device.RAM{AvailableBytes: 900},
		Accelerators: []device.Accelerator{{FreeBytes: 80}},
	}
	before := m
	lessen(&m, 100, 2)
	require.EqualValues(t, 600, m.Memory.AvailableBytes)
	require.EqualValues(t, 60, m.Accelerators[0].FreeBytes)
	require.EqualValues(t, 80, before.Accelerators[0].FreeBytes, "a copy")
	lessen(&m, 1000, 0)
	require.EqualValues(t, 1, m.Memory.AvailableBytes)
}
