package pool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker/pool"
)

// made is a made-up model, and what was done with it.
type made struct {
	infer.Backend
	name string
	mu   sync.Mutex
	open bool
	log  []string
	err  error         // of opening
	hold chan struct{} // closed to let Open go on; nil: it does
	slow time.Duration // that a load and an unload take
}

func (m *made) Close() error { return nil }

func (m *made) isOpen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open
}

// model makes an entry of a pool.
func (m *made) model(bytes int64) pool.Model {
	return pool.Model{Name: m.name, Bytes: bytes, Open: m.load}
}

func (m *made) load(ctx context.Context) (infer.Backend, func() error, error) {
	if m.hold != nil {
		select {
		case <-m.hold:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, nil, m.err
	}
	if m.open {
		return nil, nil, errors.New("it is loaded twice")
	}
	m.open = true
	m.log = append(m.log, "load")
	return m, func() error {
		time.Sleep(m.slow)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.open = false
		m.log = append(m.log, "unload")
		return nil
	}, nil
}

// some makes a pool of models a, b, c of one byte each.
func some(t *testing.T, budget int64, idle time.Duration) (*pool.Pool, map[string]*made) {
	t.Helper()
	all := map[string]*made{}
	o := pool.Options{BudgetBytes: budget, Idle: idle}
	for _, name := range []string{"a", "b", "c"} {
		all[name] = &made{name: name}
		o.Models = append(o.Models, all[name].model(1))
	}
	p, err := pool.New(o)
	require.NoError(t, err)
	return p, all
}

// touch uses a model for a moment.
func touch(t *testing.T, p *pool.Pool, name string) {
	t.Helper()
	b, release, err := p.Acquire(t.Context(), name)
	require.NoError(t, err)
	require.Equal(t, name, b.(*made).name)
	release()
	release() // a second call does nothing
}

// TestBudget: the least recently used model makes room; one in use does not.
func TestBudget(t *testing.T) {
	t.Parallel()
	p, all := some(t, 2, 0)
	touch(t, p, "a")
	touch(t, p, "b")
	touch(t, p, "a")
	touch(t, p, "c")
	require.Nil(t, p.Peek("b"))
	require.NotNil(t, p.Peek("a"))
	require.NotNil(t, p.Peek("c"))
	_, release, err := p.Acquire(t.Context(), "a") // the least recently used, but in use
	require.NoError(t, err)
	touch(t, p, "c")
	touch(t, p, "b")
	require.NotNil(t, p.Peek("a"))
	require.Nil(t, p.Peek("c"))
	release()
	require.NoError(t, p.Close())
	require.Equal(t, []string{"load", "unload"}, all["a"].log)
	require.Equal(t, []string{"load", "unload", "load", "unload"}, all["b"].log)
}

// TestNoRoom: who finds no room waits until somebody lets go, or for the end of ctx.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, _ := some(t, 1, 0)
		_, release, err := p.Acquire(t.Context(), "a")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err = p.Acquire(ctx, "b")
		require.ErrorIs(t, err, infer.KindDeadline)
		got := make(chan error)
		go func() {
			_, release, err := p.Acquire(t.Context(), "b")
			if err == nil {
				release()
			}
			got <- err
		}()
		synctest.Wait()
		require.Nil(t, p.Peek("b"))
		release()
		require.NoError(t, <-got)
		require.Nil(t, p.Peek("a"))
		require.NoError(t, p.Close())
	})
}

// TestIdle: a model is unloaded when nobody used it for so long, and loaded again on demand.
func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, all := some(t, 0, time.Minute)
		_, release, err := p.Acquire(t.Context(), "a")
		require.NoError(t, err)
		after := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		after(time.Hour)
		require.NotNil(t, p.Peek("a"), "it is in use")
		release()
		after(59 * time.Second)
		touch(t, p, "a")
		after(59 * time.Second)
		require.NotNil(t, p.Peek("a"))
		after(time.Second)
		require.Nil(t, p.Peek("a"))
		touch(t, p, "a")
		require.NoError(t, p.Close())
		require.Equal(t, []string{"load", "unload", "load", "unload"}, all["a"].log)
	})
}

// TestOneLoad: those who ask for a model while it is loaded get that one; when its load is given
// up, the next one loads it.
func TestOneLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, all := some(t, 0, 0)
		all["a"].hold = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 3)
		ask := func(ctx context.Context) {
			_, _, err := p.Acquire(ctx, "a")
			got <- err
		}
		go ask(ctx)
		synctest.Wait()
		go ask(t.Context())
		go ask(t.Context())
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-got, context.Canceled)
		close(all["a"].hold)
		require.NoError(t, <-got)
		require.NoError(t, <-got)
		require.Equal(t, []string{"load"}, all["a"].log)
		require.NoError(t, p.Close())
		_, _, err := p.Acquire(t.Context(), "a")
		require.ErrorIs(t, err, infer.KindClosed)
	})
}

// TestErrors: what cannot be loaded says why each time; bounds and names are checked.
func TestErrors(t *testing.T) {
	t.Parallel()
	p, all := some(t, 0, 0)
	all["a"].err = &infer.Error{Op: "open", Kind: infer.KindModel}
	for range 2 {
		_, _, err := p.Acquire(t.Context(), "a")
		require.ErrorIs(t, err, infer.KindModel)
	}
	_, _, err := p.Acquire(t.Context(), "other")
	require.ErrorIs(t, err, pool.ErrNoModel)
	require.NoError(t, p.Close())
	m := &made{name: "a"}
	for want, o := range map[infer.Kind]pool.Options{
		infer.KindNoMemory: {BudgetBytes: 1, Models: []pool.Model{m.model(2)}},
		infer.KindInvalid:  {Models: []pool.Model{m.model(1), m.model(1)}},
	} {
		_, err := pool.New(o)
		require.ErrorIs(t, err, want)
	}
	for _, o := range []pool.Options{{BudgetBytes: -1}, {Idle: -1}, {Turn: -1}} {
		_, err = pool.New(o)
		require.ErrorIs(t, err, infer.KindInvalid)
	}
}

// TestCloseWhileLoading: Close waits for a model that is being loaded, also when that is done while
// another one is unloaded.
func TestCloseWhileLoading(t *testing.T) {
	t.Parallel()
	for range 20 { // the order of unloading is random
		synctest.Test(t, func(t *testing.T) {
			p, all := some(t, 0, 0)
			touch(t, p, "a")
			all["a"].slow, all["b"].hold = 2*time.Second, make(chan struct{})
			got := make(chan error)
			go func() {
				_, _, err := p.Acquire(t.Context(), "b")
				got <- err
			}()
			synctest.Wait()
			time.AfterFunc(time.Second, func() { close(all["b"].hold) })
			ended := make(chan error)
			go func() { ended <- p.Close() }()
			require.ErrorIs(t, <-got, infer.KindClosed)
			require.NoError(t, <-ended)
			require.Equal(t, []string{"load", "unload"}, all["b"].log)
		})
	}
}

// opening is Model.Open.
type opening = func(context.Context) (infer.Backend, func() error, error)

// counting counts what is loaded, of which there must be no more than most.
func counting(t *testing.T, open opening, loaded *atomic.Int64, most int64) opening {
	return func(ctx context.Context) (infer.Backend, func() error, error) {
		b, unload, err := open(ctx)
		if err != nil {
			return nil, nil, err
		}
		assert.LessOrEqual(t, loaded.Add(1), most)
		return b, func() error {
			defer loaded.Add(-1)
			return unload()
		}, nil
	}
}

// TestR1Schedule: at random, many ask for, use and leave models within a budget, while the pool is
// closed. None is used unloaded, loaded twice, or beyond the budget.
func TestR1Schedule(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			all := map[string]*made{}
			var loaded atomic.Int64
			o := pool.Options{
				BudgetBytes: 2, Idle: 3 * time.Millisecond, Turn: time.Duration(seed) * time.Millisecond / 8,
			}
			for _, name := range []string{"a", "b", "c"} {
				all[name] = &made{name: name}
				entry := all[name].model(1)
				entry.Open = counting(t, entry.Open, &loaded, o.BudgetBytes)
				o.Models = append(o.Models, entry)
			}
			p, err := pool.New(o)
			require.NoError(t, err)
			closes := seed%2 == 0 // while it is used
			var users sync.WaitGroup
			for i := range uint64(6) {
				users.Go(func() {
					d := rand.New(rand.NewPCG(seed, i))
					for range 30 {
						wait := time.Duration(1+d.IntN(9)) * time.Millisecond
						ctx, cancel := context.WithTimeout(t.Context(), wait)
						b, release, err := p.Acquire(ctx, string(rune('a'+d.IntN(3))))
						cancel()
						if err != nil {
							assert.Contains(t, []infer.Kind{
								infer.KindDeadline, infer.KindClosed,
							}, infer.KindOf(err))
							continue
						}
						time.Sleep(time.Duration(d.IntN(4)) * time.Millisecond)
						assert.True(t, b.(*made).isOpen() || closes, "seed %d", seed)
						release()
					}
				})
			}
			if closes {
				time.Sleep(time.Duration(seed) * time.Millisecond)
			} else {
				users.Wait()
			}
			require.NoError(t, p.Close())
			users.Wait()
			for _, m := range all {
				require.False(t, m.open)
			}
		})
	}
}
