package httpapi

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// bucket is an allowance for each minute that refills steadily and holds one minute's worth. It
// may be drawn below zero; then it must refill first.
type bucket struct {
	perMinute float64
	level     float64
	at        time.Time // of the level
}

// refill brings the level up to a time. A change of the allowance applies from then on; a clock
// that was set back refills nothing.
func (b *bucket) refill(perMinute int, now time.Time) {
	most := float64(perMinute)
	if b.at.IsZero() {
		b.level = most
	} else if d := now.Sub(b.at); d > 0 {
		b.level += d.Minutes() * b.perMinute
	}
	b.perMinute, b.level, b.at = most, min(b.level, most), now
}

// until is how long it takes until the level is at least n.
func (b *bucket) until(n float64) time.Duration {
	if b.level >= n {
		return 0
	}
	return time.Duration(math.Ceil((n - b.level) / b.perMinute * float64(time.Minute)))
}

// budgets are what keys have left. They outlive a reload of the keys.
type budgets struct {
	mu  sync.Mutex
	all map[string]*budget // by the key's id
}

type budget struct{ requests, tokens bucket }

// of gives a key's budget, refilled. The caller holds mu.
func (b *budgets) of(k *Key, now time.Time) *budget {
	own := b.all[k.ID]
	if own == nil {
		if b.all == nil {
			b.all = map[string]*budget{}
		}
		own = &budget{}
		b.all[k.ID] = own
	}
	own.requests.refill(k.RequestsPerMinute, now)
	own.tokens.refill(k.TokensPerMinute, now)
	return own
}

// admit takes one request off a key's budget, and says in h what is left; or refuses. Tokens are
// known only afterwards: a key in debt is refused until it is out of it.
func (b *budgets) admit(k *Key, now time.Time, h http.Header) error {
	if k == nil || k.RequestsPerMinute == 0 && k.TokensPerMinute == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.of(k, now)
	var wait time.Duration
	if k.RequestsPerMinute > 0 {
		if wait = own.requests.until(1); wait == 0 {
			own.requests.level--
		}
		tell(h, "Requests", k.RequestsPerMinute, &own.requests)
	}
	if k.TokensPerMinute > 0 {
		wait = max(wait, own.tokens.until(1))
		tell(h, "Tokens", k.TokensPerMinute, &own.tokens)
	}
	if wait == 0 {
		return nil
	}
	return &fault{
		status: http.StatusTooManyRequests, code: "rate_limit_exceeded", retry: wait,
		message: "the key's budget for this minute is used up; Retry-After says when to try again",
	}
}

// tell writes the headers of one bucket as OpenAI does.
func tell(h http.Header, what string, limit int, b *bucket) {
	h.Set("X-Ratelimit-Limit-"+what, strconv.Itoa(limit))
	h.Set("X-Ratelimit-Remaining-"+what, strconv.Itoa(int(max(b.level, 0))))
	h.Set("X-Ratelimit-Reset-"+what,
		b.until(b.perMinute).Round(time.Millisecond).String())
}

// charge takes tokens off a key's budget.
func (b *budgets) charge(k *Key, now time.Time, tokens int) {
	if k == nil || k.TokensPerMinute == 0 || tokens == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.of(k, now).tokens.level -= float64(tokens)
}
