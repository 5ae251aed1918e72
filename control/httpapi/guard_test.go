package httpapi_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/httpapi"
)

// TestN1Host: a Host outside the list is refused on every path, public ones too.
func TestN1Host(t *testing.T) {
	t.Parallel()
	h := serve(t, func(o *httpapi.Options, _ *fake) { o.Hosts = append(o.Hosts, "::1", "Box.lan") })
	for host, want := range map[string]int{
		"localhost": 200, "localhost:8080": 200, "LOCALHOST:1": 200, "127.0.0.1:9": 200,
		"[::1]:8080": 200, "[::1]": 200, "box.lan": 200,
		"evil.example": 403, "localhost.evil.example": 403, "localhost.": 403, "127.0.0.2": 403,
		"": 403, "169.254.169.254": 403, "localhost@evil.example": 403, "10.0.0.1:80": 403,
	} {
		for _, path := range []string{"/health", "/v1/models", "/nothing"} {
			w := h.ask(t, "GET", path, "", "Host", host)
			if want == 403 || path != "/nothing" {
				require.Equal(t, want, w.Code, "%q %s", host, path)
			}
		}
	}
}

// TestN2Origin: pages of listed origins may call, no others; nothing is reflected, and there are no
// credentials.
func TestN2Origin(t *testing.T) {
	t.Parallel()
	h := serve(t, func(o *httpapi.Options, _ *fake) { o.Origins = []string{"https://chat.example"} })
	for _, origin := range []string{
		"https://evil.example", "null", "https://chat.example.evil", "https://xchat.example",
		"http://chat.example", "https://chat.example:8443", "HTTPS://CHAT.EXAMPLE", "", "*",
	} {
		for _, method := range []string{"GET", "OPTIONS"} {
			w := h.ask(t, method, "/v1/models", "", "Origin", origin,
				"Access-Control-Request-Method", "POST")
			require.Equal(t, 403, w.Code, "%q", origin)
			require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
		}
	}
	w := h.ask(t, "OPTIONS", "/v1/chat/completions", "", "Origin", "https://chat.example",
		"Access-Control-Request-Method", "POST")
	require.Equal(t, 204, w.Code)
	require.Equal(t, "https://chat.example", w.Header().Get("Access-Control-Allow-Origin"))
	require.Empty(t, w.Header().Get("Access-Control-Allow-Credentials"))
	require.Contains(t, w.Header().Values("Vary"), "Origin")
	require.Equal(t, 200, h.chat(t, "", "Origin", "https://chat.example").Code)
	require.Equal(t, 403, h.chat(t, "", "Origin", "https://chat.example", "Origin", "x").Code)
	for site, want := range map[string]int{
		"cross-site": 403, "same-site": 403, "same-origin": 200, "none": 200,
	} {
		require.Equal(t, want, h.ask(t, "GET", "/v1/models", "", "Sec-Fetch-Site", site).Code, site)
	}
}

// ring makes keys.
func ring(t *testing.T, keys ...httpapi.Key) (*httpapi.Keyring, []string) {
	t.Helper()
	var texts []string
	for i := range keys {
		var err error
		var text string
		keys[i], text, err = httpapi.NewKey(keys[i])
		require.NoError(t, err)
		texts = append(texts, text)
	}
	r, err := httpapi.NewKeyring(keys)
	require.NoError(t, err)
	return r, texts
}

// TestN3Keys: one right key, in one place, opens the door.
func TestN3Keys(t *testing.T) {
	t.Parallel()
	keys, text := ring(t, httpapi.Key{Role: httpapi.RoleUser},
		httpapi.Key{Role: httpapi.RoleUser, Revoked: epoch},
		httpapi.Key{Role: httpapi.RoleUser, Expires: epoch},
		httpapi.Key{Role: httpapi.RoleUser, Expires: epoch.Add(time.Second)})
	h := serve(t, func(o *httpapi.Options, _ *fake) {
		o.Keys = func() *httpapi.Keyring { return keys }
	})
	good := text[0]
	for _, c := range []struct {
		want   int
		header []string
	}{
		{200, []string{"Authorization", "Bearer " + good}},
		{200, []string{"Authorization", "bearer " + good}},
		{200, []string{"X-Api-Key", good}},
		{200, []string{"Authorization", "Bearer " + text[3]}},
		{401, nil},
		{401, []string{"Authorization", ""}},
		{401, []string{"Authorization", "Bearer "}},
		{401, []string{"Authorization", "Bearer"}},
		{401, []string{"Authorization", good}},
		{401, []string{"Authorization", "Basic " + good}},
		{401, []string{"Authorization", "Bearer " + good[:len(good)-1]}},
		{401, []string{"Authorization", "Bearer " + good + "0"}},
		{401, []string{"Authorization", "Bearer " + strings.ToUpper(good)}},
		{401, []string{"Authorization", "Bearer " + good[:15]}},
		{401, []string{"Authorization", "Bearer  " + good}},
		{401, []string{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}},
		{401, []string{"Authorization", "Bearer " + good, "X-Api-Key", good}},
		{401, []string{"X-Api-Key", ""}},
		{401, []string{"Authorization", "Bearer " + text[1]}},
		{401, []string{"Authorization", "Bearer " + text[2]}},
		{401, []string{"Authorization", "Bearer norion__"}},
		{401, []string{"Authorization", "Bearer norion_00000000_" + strings.Repeat("0", 64)}},
	} {
		w := h.chat(t, "", c.header...)
		require.Equal(t, c.want, w.Code, "%v", c.header)
		require.Equal(t, c.want == 401, w.Header().Get("WWW-Authenticate") != "")
	}
	w := h.ask(t, "GET", "/v1/models?key="+good+"&api_key="+good, "")
	require.Equal(t, 401, w.Code, "a key in the URL is not looked at")
	for _, text := range text {
		require.NotContains(t, h.logs.String(), text, "N8: no secret in the log")
		require.NotContains(t, w.Body.String(), text)
	}
	none, err := httpapi.NewKeyring(nil)
	require.NoError(t, err)
	require.False(t, none.Usable(epoch))
	require.True(t, keys.Usable(epoch))
}

// TestN4Rules asks every route of the table without a key, as a user and as an operator. A route
// without a rule does not pass.
func TestN4Rules(t *testing.T) {
	t.Parallel()
	keys, text := ring(t, httpapi.Key{Role: httpapi.RoleUser}, httpapi.Key{Role: httpapi.RoleOperator})
	h := serve(t, func(o *httpapi.Options, _ *fake) {
		o.Keys = func() *httpapi.Keyring { return keys }
	})
	want := map[string][3]bool{ // who gets in: nobody's key, a user's, an operator's
		"public": {true, true, true}, "user": {false, true, true}, "operator": {false, false, true},
	}
	for _, rt := range h.Routes() {
		open, ok := want[rt.Rule]
		require.True(t, ok, "%s %s has no rule", rt.Method, rt.Path)
		for i, key := range []string{"", text[0], text[1]} {
			var header []string
			if key != "" {
				header = []string{"Authorization", "Bearer " + key}
			}
			path := strings.Replace(rt.Path, "{model...}", "m", 1)
			w := h.ask(t, rt.Method, path, "", header...)
			in := w.Code != 401 && w.Code != 403
			require.Equal(t, open[i], in, "%s %s as %d: %d", rt.Method, rt.Path, i, w.Code)
		}
	}
}

// TestR4Tenants: what the cache may share follows the key, whatever the request says.
func TestR4Tenants(t *testing.T) {
	t.Parallel()
	keys, text := ring(t,
		httpapi.Key{Role: httpapi.RoleUser, Tenant: "a", Workspace: "w"},
		httpapi.Key{Role: httpapi.RoleUser, Tenant: "a", Workspace: "w"},
		httpapi.Key{Role: httpapi.RoleUser, Tenant: "a", Workspace: "v"},
		httpapi.Key{Role: httpapi.RoleUser, Tenant: "aw", Workspace: ""},
		httpapi.Key{Role: httpapi.RoleUser})
	h := serve(t, func(o *httpapi.Options, _ *fake) {
		o.Keys = func() *httpapi.Keyring { return keys }
	})
	var salts []string
	for i, key := range text {
		require.Equal(t, 200, h.chat(t, `,"kv":{"no_reuse":true}`, "X-Api-Key", key).Code)
		salts = append(salts, h.models.b.asked[i].KV.Salt)
	}
	require.Equal(t, salts[0], salts[1])
	distinct := map[string]bool{}
	for _, s := range salts {
		require.NotEmpty(t, s)
		distinct[s] = true
	}
	require.Len(t, distinct, 4)
	// An answer is not replayed to another tenant.
	h.chat(t, "", "X-Api-Key", text[0], "Idempotency-Key", "k")
	w := h.chat(t, "", "X-Api-Key", text[2], "Idempotency-Key", "k")
	require.Empty(t, w.Header().Get("Idempotent-Replayed"))
	w = h.chat(t, "", "X-Api-Key", text[1], "Idempotency-Key", "k")
	require.NotEmpty(t, w.Header().Get("Idempotent-Replayed"))
}

// TestBudgets: requests and tokens of a minute, then refusal until enough has refilled. A clock
// that is set back gives nothing away.
func TestBudgets(t *testing.T) {
	t.Parallel()
	keys, text := ring(t, httpapi.Key{Role: httpapi.RoleUser, RequestsPerMinute: 2},
		httpapi.Key{Role: httpapi.RoleUser, TokensPerMinute: 10})
	now := epoch
	h := serve(t, func(o *httpapi.Options, _ *fake) {
		o.Keys, o.Now = func() *httpapi.Keyring { return keys }, func() time.Time { return now }
	})
	ask := func(key string) int { return h.chat(t, "", "X-Api-Key", key).Code }
	require.Equal(t, []int{200, 200, 429}, []int{ask(text[0]), ask(text[0]), ask(text[0])})
	w := h.chat(t, "", "X-Api-Key", text[0])
	require.Equal(t, "30", w.Header().Get("Retry-After"))
	require.Equal(t, "2", w.Header().Get("X-Ratelimit-Limit-Requests"))
	require.Equal(t, "0", w.Header().Get("X-Ratelimit-Remaining-Requests"))
	now = now.Add(-time.Hour) // C1
	require.Equal(t, 429, ask(text[0]))
	now = now.Add(30 * time.Second)
	require.Equal(t, []int{200, 429}, []int{ask(text[0]), ask(text[0])})
	now = now.Add(time.Hour)
	require.Equal(t, []int{200, 200, 429}, []int{ask(text[0]), ask(text[0]), ask(text[0])})

	// An answer costs 7: the second one is begun with 3 left and goes into debt.
	require.Equal(t, []int{200, 200, 429}, []int{ask(text[1]), ask(text[1]), ask(text[1])})
	now = now.Add(29 * time.Second) // 4.8 came back: 0.8 are there, 1 is needed
	require.Equal(t, 429, ask(text[1]))
	now = now.Add(2 * time.Second)
	require.Equal(t, 200, ask(text[1]))
}

// TestKeysRefused: what cannot be a key is not taken for one.
func TestKeysRefused(t *testing.T) {
	t.Parallel()
	good, text, err := httpapi.NewKey(httpapi.Key{Role: httpapi.RoleUser, Name: "n"})
	require.NoError(t, err)
	require.Regexp(t, `^norion_[0-9a-f]{8}_[0-9a-f]{64}$`, text)
	require.NotContains(t, fmt.Sprintf("%+v", good), text[16:], "the secret is not kept")
	for name, change := range map[string]func(*httpapi.Key){
		"role":   func(k *httpapi.Key) { k.Role = "root" },
		"digest": func(k *httpapi.Key) { k.SHA256 = "00" },
		"empty":  func(k *httpapi.Key) { k.SHA256 = "" },
		"id":     func(k *httpapi.Key) { k.ID = "x" },
		"limit":  func(k *httpapi.Key) { k.TokensPerMinute = -1 },
		"name":   func(k *httpapi.Key) { k.Name = "a\nb" },
		"tenant": func(k *httpapi.Key) { k.Tenant = strings.Repeat("a", 129) },
	} {
		k := good
		change(&k)
		_, err := httpapi.NewKeyring([]httpapi.Key{k})
		require.Error(t, err, name)
	}
	_, err = httpapi.NewKeyring([]httpapi.Key{good, good})
	require.Error(t, err)
}

// TestN7Headers: headers up to the limit pass, more are refused; smuggled requests are not read as
// two.
func TestN7Headers(t *testing.T) {
	t.Parallel()
	h := serve(t, func(o *httpapi.Options, _ *fake) { o.Now = time.Now })
	address := strings.TrimPrefix(h.listen(t), "http://")
	ask := func(text string) string {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte(text))
		require.NoError(t, err)
		line, err := bufio.NewReader(c).ReadString('\n')
		require.NoError(t, err)
		return strings.TrimSpace(line)
	}
	head := "GET /health HTTP/1.1\r\nHost: localhost\r\nX: "
	room := httpapi.HeaderBytesMax - len(head) - len("\r\n\r\n")
	require.Contains(t, ask(head+strings.Repeat("a", room)+"\r\n\r\n"), " 200 ")
	require.Contains(t, ask(head+strings.Repeat("a", room+1)+"\r\n\r\n"), " 431 ")
	for _, bad := range []string{
		"Content-Length: 1\r\nContent-Length: 2\r\n", "Content-Length: -1\r\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
		"Transfer-Encoding : chunked\r\n", "Host: evil.example\r\n",
	} {
		require.Regexp(t, " (400|501) ", ask("POST /tokenize HTTP/1.1\r\nHost: localhost\r\n"+bad+"\r\n"))
	}
}

// TestOptions: what cannot be served is refused at the start.
func TestOptions(t *testing.T) {
	t.Parallel()
	good := serve(t, nil)
	for name, change := range map[string]func(*httpapi.Options){
		"no models":   func(o *httpapi.Options) { o.Models = nil },
		"no clock":    func(o *httpapi.Options) { o.Now = nil },
		"wildcard":    func(o *httpapi.Options) { o.Hosts = []string{"*"} },
		"empty host":  func(o *httpapi.Options) { o.Hosts = []string{""} },
		"any origin":  func(o *httpapi.Options) { o.Origins = []string{"*"} },
		"origin path": func(o *httpapi.Options) { o.Origins = []string{"https://a.example/"} },
		"file origin": func(o *httpapi.Options) { o.Origins = []string{"file://x"} },
		"body":        func(o *httpapi.Options) { o.BodyBytes = -1 },
		"time":        func(o *httpapi.Options) { o.KeepAlive = -1 },
		"room":        func(o *httpapi.Options) { o.InFlight = 1 << 30 },
	} {
		o := httpapi.Options{Models: good.models, Now: time.Now, Logger: discard}
		change(&o)
		_, err := httpapi.New(o)
		require.Error(t, err, name)
	}
}
