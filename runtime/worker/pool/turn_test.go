package pool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker/pool"
)

const (
	term = 10 * time.Second
	hold = time.Second // that a request uses a model
	slow = hold / 4    // of a load and of an unload
)

// crowd is clients that use models without a pause between them.
type crowd struct {
	sync.WaitGroup
	p       *pool.Pool
	mu      sync.Mutex
	longest map[string]time.Duration // that a request waited
	served  map[string]int
}

func newCrowd(p *pool.Pool) *crowd {
	return &crowd{p: p, longest: map[string]time.Duration{}, served: map[string]int{}}
}

// use has n clients use one model until ctx ends, not all at the same moment.
func (c *crowd) use(ctx context.Context, t *testing.T, name string, n int) {
	for i := range n {
		c.Go(func() {
			time.Sleep(hold * time.Duration(i) / time.Duration(n))
			for ctx.Err() == nil {
				asked := time.Now()
				_, release, err := c.p.Acquire(ctx, name)
				if err != nil {
					assert.NotNil(t, ctx.Err())
					return
				}
				c.mu.Lock()
				c.longest[name] = max(c.longest[name], time.Since(asked))
				c.served[name]++
				c.mu.Unlock()
				time.Sleep(hold)
				release()
			}
		})
	}
}

// waited is how long a request for a model waited at most.
func (c *crowd) waited(name string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.longest[name]
}

// loads counts how often a model was loaded.
func (m *made) loads() (n int) {
	for _, did := range m.log {
		if did == "load" {
			n++
		}
	}
	return n
}

// TestTurn: a request for a model that has no room beside one that is always in use waits for one
// turn and the requests that run then, not for ever.
func TestTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, all := some(t, 1, 0)
		c := newCrowd(p)
		ctx, cancel := context.WithCancel(t.Context())
		c.use(ctx, t, "a", 3)
		time.Sleep(time.Minute + hold/7)
		asked := time.Now()
		touch(t, p, "b")
		require.GreaterOrEqual(t, time.Since(asked), term)
		require.LessOrEqual(t, time.Since(asked), term+hold)
		time.Sleep(time.Minute)
		cancel()
		c.Wait()
		require.Equal(t, 2, all["a"].loads(), "a got its room back at once")
		require.Less(t, c.waited("a"), 2*hold)
		require.NoError(t, p.Close())
	})
}

// TestTurns: models that are all in use without a pause, of which one has room at a time, are used
// alike, and loaded no more often than once for each turn.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, all := some(t, 1, 0)
		c := newCrowd(p)
		const lasts = 30 * time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), lasts)
		defer cancel()
		loads := 0
		for name := range all {
			c.use(ctx, t, name, 3)
		}
		c.Wait()
		for name, m := range all {
			require.LessOrEqual(t, c.waited(name), 2*(term+hold), name)
			require.Greater(t, c.served[name], 3*int(lasts/hold)/4, name)
			loads += m.loads()
		}
		require.LessOrEqual(t, loads, int(lasts/term)+3)
		require.NoError(t, p.Close())
	})
}

// TestTurnOfLarge: a model that needs the room of several is loaded though these are in use and
// others, which fit, come after it. A model that need not make room is used on.
func TestTurnOfLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := pool.Options{BudgetBytes: 4}
		for name, bytes := range map[string]int64{"a": 1, "b": 1, "c": 1, "late": 1, "large": 3} {
			o.Models = append(o.Models, (&made{name: name, slow: slow}).model(bytes))
		}
		p, err := pool.New(o)
		require.NoError(t, err)
		c := newCrowd(p)
		ctx, cancel := context.WithCancel(t.Context())
		for _, name := range []string{"a", "b", "c"} {
			c.use(ctx, t, name, 2)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		late := make(chan time.Duration)
		go func() {
			time.Sleep(term + hold/9) // there is room for it, but it is not its turn
			asked := time.Now()
			touch(t, p, "late")
			late <- time.Since(asked)
		}()
		asked := time.Now()
		_, release, err := p.Acquire(t.Context(), "large")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(asked), term+hold+3*slow)
		require.Nil(t, p.Peek("a"), "it was loaded first")
		require.Nil(t, p.Peek("b"))
		require.NotNil(t, p.Peek("c"))
		require.Equal(t, slow, c.waited("c"), "for its load")
		time.Sleep(hold)
		release()
		require.Positive(t, <-late)
		cancel()
		c.Wait()
		require.NoError(t, p.Close())
	})
}

// TestTurnGivenUp: those who made room go on when the request that they did it for is given up.
func TestTurnGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, all := some(t, 1, 0)
		_, release, err := p.Acquire(t.Context(), "a")
		require.NoError(t, err)
		time.Sleep(term)
		ctx, cancel := context.WithTimeout(t.Context(), 3*term)
		defer cancel()
		got := make(chan error)
		go func() {
			_, _, err := p.Acquire(ctx, "b")
			got <- err
		}()
		time.Sleep(2 * term)
		again := time.Now()
		_, leave, err := p.Acquire(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, term, time.Since(again), "until b's request was given up")
		require.ErrorIs(t, <-got, infer.KindDeadline)
		leave()
		release()
		require.Equal(t, []string{"load"}, all["a"].log)
		require.NoError(t, p.Close())
	})
}

// TestTurnOfEarlier: a request that came before those that wait for another model does not yield to
// it, though it had to wait for a third one.
func TestTurnOfEarlier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, _ := some(t, 1, 0)
		_, release, err := p.Acquire(t.Context(), "a")
		require.NoError(t, err)
		time.Sleep(term)
		served := make(chan string, 2)
		var all sync.WaitGroup
		ask := func(name string, most time.Duration) {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), most)
				defer cancel()
				if _, leave, err := p.Acquire(ctx, name); err == nil {
					served <- name
					leave()
				}
			})
			time.Sleep(hold)
		}
		ask("b", 3*term)
		time.Sleep(term)
		ask("a", time.Hour) // waits for b
		ask("c", time.Hour)
		time.Sleep(term)
		require.Empty(t, served)
		time.Sleep(term) // b's request is given up
		synctest.Wait()
		require.Len(t, served, 1)
		require.Equal(t, "a", <-served)
		release()
		all.Wait()
		require.Equal(t, "c", <-served)
		require.NoError(t, p.Close())
	})
}

// TestLoadedForAll: a model serves all requests that came for it before those for another one, and
// is unloaded for that one then.
func TestLoadedForAll(t *testing.T) {
	t.Parallel()
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			p, all := some(t, 1, 0)
			_, release, err := p.Acquire(t.Context(), "a")
			require.NoError(t, err)
			var users sync.WaitGroup
			for _, name := range []string{"b", "b", "b", "c"} {
				users.Go(func() {
					_, leave, err := p.Acquire(t.Context(), name)
					assert.NoError(t, err)
					leave()
				})
				synctest.Wait()
			}
			release()
			users.Wait()
			require.Equal(t, 1, all["b"].loads())
			require.NoError(t, p.Close())
		})
	}
}

// TestNoMemory: where a load finds no memory, the least recently used model that nobody uses is
// unloaded, which the log says, and it is tried once more.
func TestNoMemory(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	all := map[string]*made{}
	o := pool.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	most := 2 // that the memory holds
	tries := 0
	for _, name := range []string{"a", "b", "c"} {
		m := &made{name: name}
		all[name] = m
		entry := m.model(0)
		entry.Open = func(ctx context.Context) (infer.Backend, func() error, error) {
			tries++
			loaded := 0
			for _, other := range all {
				if other.open {
					loaded++
				}
			}
			if loaded >= most {
				return nil, nil, &infer.Error{
					Op: "open", Kind: infer.KindNoMemory, Err: errors.New("it is full"),
				}
			}
			return m.load(ctx)
		}
		o.Models = append(o.Models, entry)
	}
	p, err := pool.New(o)
	require.NoError(t, err)
	touch(t, p, "a")
	touch(t, p, "b")
	touch(t, p, "a")
	require.Empty(t, log.String())
	tries = 0
	touch(t, p, "c")
	require.Equal(t, 2, tries)
	require.Nil(t, p.Peek("b"), "it was not used for longest")
	require.NotNil(t, p.Peek("a"))
	require.Contains(t, log.String(), "model=c unloaded=b")
	require.Contains(t, log.String(), "it is full")

	_, release, err := p.Acquire(t.Context(), "a")
	require.NoError(t, err)
	_, leave, err := p.Acquire(t.Context(), "c")
	require.NoError(t, err)
	tries = 0
	_, _, err = p.Acquire(t.Context(), "b")
	require.ErrorIs(t, err, infer.KindNoMemory, "models in use stay")
	require.Equal(t, 1, tries)
	leave()
	release()

	most, tries = 0, 0
	_, _, err = p.Acquire(t.Context(), "b")
	require.ErrorIs(t, err, infer.KindNoMemory, "one model makes room, not all")
	require.Equal(t, 2, tries)
	require.Nil(t, p.Peek("c"), fmt.Sprint(all["c"].log))
	require.NotNil(t, p.Peek("a"))
	require.NoError(t, p.Close())
}
