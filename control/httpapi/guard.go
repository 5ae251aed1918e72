package httpapi

import (
	"net"
	"net/http"
	"slices"
	"strings"
)

// checkHost refuses a Host that is not in the list, whatever the listener: a page whose name was
// bound anew to this machine's address (DNS rebinding) has a name of its own.
func (x *exchange) checkHost() error {
	host := x.r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if x.s.hosts[strings.ToLower(strings.Trim(host, "[]"))] {
		return nil
	}
	return &fault{
		status: http.StatusForbidden, code: "host_not_allowed",
		message: "this Host is not allowed; add it with --allow-host",
	}
}

// crossOrigin applies the rules for web pages and answers preflights; true means that the request
// is done. Pages of no other origin than the listed ones may call; credentials are never allowed.
func (x *exchange) crossOrigin() (done bool) {
	h := x.w.Header()
	h.Add("Vary", "Origin")
	origins := x.r.Header.Values("Origin")
	if len(origins) == 0 {
		switch x.r.Header.Get("Sec-Fetch-Site") {
		case "", "none", "same-origin":
			return false
		}
	} else if len(origins) == 1 && slices.Contains(x.s.o.Origins, origins[0]) {
		h.Set("Access-Control-Allow-Origin", origins[0])
		h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")
		if x.r.Method == http.MethodOptions &&
			x.r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key, "+
				"X-Request-Id, Idempotency-Key, Anthropic-Version, Anthropic-Beta")
			h.Set("Access-Control-Max-Age", "600")
			x.w.WriteHeader(http.StatusNoContent)
			return true
		}
		return false
	}
	x.fail(&fault{
		status: http.StatusForbidden, code: "origin_not_allowed",
		message: "this Origin is not allowed; add it with --allow-origin",
	})
	return true
}

// admit lets a caller in by its key, as far as the route's rule and the key's budget go.
func (x *exchange) admit() error {
	if x.s.draining.Load() {
		x.w.Header().Set("Connection", "close")
		return &fault{
			status: http.StatusServiceUnavailable, code: "shutting_down", retry: retryAfter,
			message: "this server is shutting down",
		}
	}
	if x.s.o.Keys == nil {
		return nil
	}
	text, ok := credential(x.r.Header)
	if !ok {
		return unauthorized("send one key, as Authorization: Bearer KEY or as X-Api-Key: KEY")
	}
	k, err := x.s.o.Keys().find(text, x.s.o.Now())
	if err != nil {
		return unauthorized("this key is unknown, revoked or expired")
	}
	x.key = k
	if x.route.rule == operator && k.Role != RoleOperator {
		return &fault{
			status: http.StatusForbidden, code: "forbidden",
			message: "this path needs a key of role operator",
		}
	}
	return x.s.budgets.admit(k, x.s.o.Now(), x.w.Header())
}

func unauthorized(message string) error {
	return &fault{status: http.StatusUnauthorized, code: "invalid_api_key", message: message}
}

// credential is the one key that a request carries. Keys in the URL are not looked at.
func credential(h http.Header) (string, bool) {
	bearer, plain := h.Values("Authorization"), h.Values("X-Api-Key")
	if len(bearer)+len(plain) != 1 {
		return "", false
	}
	if len(plain) == 1 {
		return plain[0], plain[0] != ""
	}
	scheme, text, ok := strings.Cut(bearer[0], " ")
	return text, ok && strings.EqualFold(scheme, "Bearer") && text != ""
}
