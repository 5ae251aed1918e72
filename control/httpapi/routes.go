package httpapi

import "net/http"

// rule says who may call a route. Its zero value is none, which a test refuses.
type rule int

const (
	public   rule = iota + 1 // everyone
	user                     // whoever has a key
	operator                 // whoever has a key of that role
)

// String gives the name of a rule.
func (r rule) String() string { return [...]string{"none", "public", "user", "operator"}[r] }

// route is one line of the table: what can be called, by whom, and what it takes and gives.
type route struct {
	method, path string
	rule         rule
	anthropic    bool // errors have Anthropic's shape
	summary      string
	takes        any // a value of the type of the body, or nil
	handle       func(*exchange) error
}

// table lists all routes. Nothing else is served.
func (s *Server) table() []route {
	return []route{
		{
			method: "POST", path: "/v1/chat/completions", rule: user, takes: chatRequest{},
			summary: "Answer a conversation", handle: (*exchange).chat,
		},
		{
			method: "POST", path: "/v1/completions", rule: user, takes: completionRequest{},
			summary: "Continue a text", handle: (*exchange).completion,
		},
		{
			method: "POST", path: "/v1/responses", rule: user, takes: responseRequest{},
			summary: "Answer a conversation, as items", handle: (*exchange).responses,
		},
		{
			method: "POST", path: "/v1/messages", rule: user, takes: anthropicRequest{},
			anthropic: true, summary: "Answer a conversation, as Anthropic does",
			handle: (*exchange).anthropicMessages,
		},
		{
			method: "POST", path: "/v1/messages/count_tokens", rule: user, takes: anthropicRequest{},
			anthropic: true, summary: "Count the tokens of a conversation",
			handle: (*exchange).countTokens,
		},
		{
			method: "POST", path: "/v1/embeddings", rule: user, takes: embeddingRequest{},
			summary: "Give the vectors of texts", handle: (*exchange).embeddings,
		},
		{
			method: "GET", path: "/v1/models", rule: user,
			summary: "List the models", handle: (*exchange).listModels,
		},
		{
			method: "GET", path: "/v1/models/{model...}", rule: user,
			summary: "Describe one model", handle: (*exchange).oneModel,
		},
		{
			method: "POST", path: "/tokenize", rule: user, takes: tokenizeRequest{},
			summary: "Split a text into tokens", handle: (*exchange).tokenize,
		},
		{
			method: "POST", path: "/detokenize", rule: user, takes: detokenizeRequest{},
			summary: "Spell tokens", handle: (*exchange).detokenize,
		},
		{
			method: "GET", path: "/health", rule: public,
			summary: "Say that the process lives", handle: (*exchange).health,
		},
		{
			method: "GET", path: "/ready", rule: public,
			summary: "Say whether new requests are taken", handle: (*exchange).ready,
		},
		{
			method: "GET", path: "/metrics", rule: operator,
			summary: "Give Prometheus' figures", handle: (*exchange).showMetrics,
		},
		{
			method: "GET", path: "/openapi.json", rule: public,
			summary: "Describe these routes", handle: (*exchange).describe,
		},
	}
}

// health says that the process answers.
func (x *exchange) health() error {
	x.writeJSON(http.StatusOK, map[string]string{"status": "ok"})
	return nil
}

// ready says whether new requests are taken.
func (x *exchange) ready() error {
	if x.s.draining.Load() {
		x.writeJSON(http.StatusServiceUnavailable, map[string]string{"status": "shutting down"})
		return nil
	}
	x.writeJSON(http.StatusOK, map[string]string{"status": "ready"})
	return nil
}

// describe gives the OpenAPI document.
func (x *exchange) describe() error {
	x.w.Header().Set("Content-Type", "application/json")
	_, _ = x.w.Write(x.s.openAPI) // whether the client takes it is its own affair
	return nil
}
