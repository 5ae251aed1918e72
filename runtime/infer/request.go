package infer

import (
	"encoding/json"
	"time"
)

// Role says who speaks a message.
type Role string

const (
	RoleSystem    Role = "system"
	RoleUser      Role = "user"
	RoleAssistant Role = "assistant"
	RoleTool      Role = "tool"
)

// Message is one turn of a conversation.
type Message struct {
	Role       Role       `json:"role"`
	Content    string     `json:"content"`
	Reasoning  string     `json:"reasoning_content,omitempty"`
	Name       string     `json:"name,omitempty"`         // of the tool, when Role is tool
	ToolCalls  []ToolCall `json:"tool_calls,omitempty"`   // made by the assistant
	ToolCallID string     `json:"tool_call_id,omitempty"` // answered by a tool message
}

// Tool is a function that the model may call.
type Tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"` // a JSON schema of an object
}

// ToolCall is a call that the model made. Arguments is the JSON text as it was generated.
type ToolCall struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// ToolChoice says whether the model may, must or must not call a tool.
type ToolChoice string

const (
	ToolAuto     ToolChoice = "auto" // the default
	ToolRequired ToolChoice = "required"
	ToolNone     ToolChoice = "none"
)

// Speculation says whether an answer's next tokens are guessed from what stood in the text before
// and several of them verified in one step. Sampled answers keep their distribution; the order of
// rounding can differ from that of single steps, as in any batch.
type Speculation string

const (
	SpeculateOff Speculation = "off"
	SpeculateOn  Speculation = "on" // whenever there is a guess, whatever it costs
	// SpeculateAdaptive guesses only as far as right guesses have paid for wrong ones, and not
	// where the model or the request does not allow it.
	SpeculateAdaptive Speculation = "adaptive"
)

// Request is one generation. Exactly one of Messages, Prompt and Tokens is set.
type Request struct {
	ID       string    // carried into logs and answers; never interpreted
	Messages []Message // rendered by the model's chat template
	Prompt   string    // raw text; special tokens are added as the model expects them
	Tokens   []TokenID // taken as they are

	// ParseSpecial lets the spelling of a control token in Prompt become that token. Messages
	// never do: only their template writes control tokens.
	ParseSpecial bool

	Tools         []Tool     // only with Messages
	ToolChoice    ToolChoice // "" means auto
	ParallelTools bool       // allow several calls in one answer
	NoReasoning   bool       // ask the template to leave reasoning out, where it can
	// TemplateArgs are extra variables of the chat template, each a JSON value.
	TemplateArgs map[string]json.RawMessage

	MaxTokens   int      // answer tokens; 0 means whatever the context has room for
	Stop        []string // texts that end the answer and are not part of it
	IgnoreEOS   bool     // go on past the end-of-generation token; a grammar still ends
	Sampling    Sampling
	Constraint  Constraint
	Logprobs    bool // report the log-probability of each answer token
	TopLogprobs int  // and of that many alternatives
	SpecialText bool // show control tokens in the answer's text

	Speculate Speculation // "" leaves it to the engine
	// Adapters apply to this request, in any order and at most AdaptersMax, on top of those that the
	// backend applies to all. Prefixes are shared only between requests with the same ones.
	Adapters []Adapter

	KV       KVPolicy
	Priority int // higher first; 0 is normal
	// Deadline ends the request; zero means none. Of one tenant's requests that wait with equal
	// priority, the earliest is first.
	Deadline time.Time
}

// Adapter is one of those in Info.Adapters, and how strongly it applies.
type Adapter struct {
	Name  string  `json:"name"`
	Scale float32 `json:"scale,omitempty"` // 0 means the backend's default for it, which is mostly 1
}

// Constraint restricts the answer. At most one field is set.
type Constraint struct {
	Grammar string          // GBNF
	Schema  json.RawMessage // JSON schema
}

// KVPolicy says how the request's cached keys and values are kept and given up. The zero value
// reuses whatever prefix is at hand and refuses what does not fit the context.
type KVPolicy struct {
	NoReuse bool   `json:"no_reuse,omitempty"` // compute the whole prompt
	Scope   string `json:"scope,omitempty"`    // requests reuse prefixes only within one scope
	// Salt separates tenants: prefixes are reused only between equal salts, but for what is public.
	Salt string `json:"salt,omitempty"`
	// PublicTokens is how many tokens at the start of the prompt are no secret: requests of one
	// scope share them whatever their salts, where each declares its own as public.
	PublicTokens int `json:"public_tokens,omitempty"`
	// PublicSystem says so of the system prompt, as the chat template writes it: of what comes
	// before the first word of another message, the definitions of tools included.
	PublicSystem bool `json:"public_system,omitempty"`
	// Deterministic gives the same tokens whatever else runs and whatever was cached. It costs
	// speed: such a request is computed in steps of its own.
	Deterministic bool `json:"deterministic,omitempty"`

	// Evict names what gives up tokens when the context is full: "" or "refuse" ends the answer
	// there, "sink-window", "keep-system", "middle-out", or a policy that the engine was given.
	Evict     string `json:"evict,omitempty"`
	Sinks     int    `json:"sinks,omitempty"`     // sink-window: first tokens that are kept
	Window    int    `json:"window,omitempty"`    // sink-window: last tokens that are kept
	Block     int    `json:"block,omitempty"`     // tokens given up at a time; 0: an eighth
	Recompute bool   `json:"recompute,omitempty"` // evict also where positions cannot be moved
	// ReuseChunks moves runs of at least so many equal tokens to a new place. Their values were
	// computed behind other tokens, so the answer is approximate; 0 moves nothing.
	ReuseChunks int `json:"reuse_chunks,omitempty"`
}

// Finish says why an answer ended.
type Finish string

const (
	FinishStop   Finish = "stop"       // the model ended its answer, or a stop text was met
	FinishLength Finish = "length"     // MaxTokens or the context was reached
	FinishTools  Finish = "tool_calls" // the answer is one or more tool calls
)

// Chunk is a piece of an answer. Strings may be kept.
type Chunk struct {
	Text      string // valid UTF-8 unless the model's own bytes are not
	Reasoning string // text that the model marked as reasoning
	Tokens    int    // answer tokens behind this chunk
	ToolCalls []ToolCallDelta
	Logprobs  []Logprob // one per token, when asked for
	Final     *Final    // set on the last chunk only
}

// ToolCallDelta extends the tool call at Index. Name and ID come once, Arguments grow.
type ToolCallDelta struct {
	Index     int    `json:"index"`
	ID        string `json:"id,omitempty"`
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments,omitempty"`
}

// Logprob is the natural logarithm of the probability that the model gave to a token, before
// temperature and truncation.
type Logprob struct {
	Token   Token     `json:"token"`
	Logprob float32   `json:"logprob"`
	Top     []Logprob `json:"top,omitempty"` // most probable first
}

// Final closes an answer.
type Final struct {
	Reason Finish  `json:"finish_reason"`
	Stop   string  `json:"stop,omitempty"` // the stop text that was met
	Seed   uint32  `json:"seed"`           // repeats this answer in a deterministic engine
	Answer Message `json:"answer"`         // the whole answer, tool calls parsed
	// Notes name, a line each, where the answer may fall short of the request.
	Notes []string `json:"notes,omitempty"`
	Usage Usage    `json:"usage"`
}

// Usage counts what a request cost.
type Usage struct {
	PromptTokens     int    `json:"prompt_tokens"`
	CompletionTokens int    `json:"completion_tokens"`
	Cached           Cached `json:"cached"` // prompt tokens that were not computed
	// Computed counts the tokens of the prompt that were computed, those that an eviction had
	// computed again included.
	Computed int     `json:"computed"`
	Evicted  int     `json:"evicted,omitempty"`  // tokens that the policy gave up for good
	Cells    int     `json:"cells"`              // of the cache that the request held at its end
	Parked   int     `json:"parked,omitempty"`   // times that it made room for others
	Drafted  int     `json:"drafted,omitempty"`  // tokens guessed ahead
	Accepted int     `json:"accepted,omitempty"` // of them, those that were right
	Timings  Timings `json:"timings"`
}

// Cached counts reused prompt tokens by where they lay.
type Cached struct {
	Live  int `json:"live"`
	RAM   int `json:"ram"`
	Disk  int `json:"disk"`
	Moved int `json:"moved,omitempty"` // of these, those that were moved: approximate
}

// Timings are durations of one request on the monotonic clock.
type Timings struct {
	Queue   time.Duration `json:"queue_ns"`   // from submission to the first step
	Prefill time.Duration `json:"prefill_ns"` // computing the prompt
	TTFT    time.Duration `json:"ttft_ns"`    // from submission to the first token
	Decode  time.Duration `json:"decode_ns"`  // from the first token to the last
	ITLMax  time.Duration `json:"itl_max_ns"` // longest wait between two tokens
}

// DecodeRate returns tokens per second after the first token, or 0 when there is only one.
func (u Usage) DecodeRate() float64 {
	if u.CompletionTokens < 2 || u.Timings.Decode <= 0 {
		return 0
	}
	return float64(u.CompletionTokens-1) / u.Timings.Decode.Seconds()
}

// PrefillRate returns computed prompt tokens per second, or 0.
func (u Usage) PrefillRate() float64 {
	n := u.PromptTokens - u.Cached.Live - u.Cached.RAM - u.Cached.Disk
	if n <= 0 || u.Timings.Prefill <= 0 {
		return 0
	}
	return float64(n) / u.Timings.Prefill.Seconds()
}

// ScoreRequest asks how probable Text is after Context.
type ScoreRequest struct {
	Context     string // may be empty: then the first token of Text has no score
	Text        string
	TopLogprobs int
	Deadline    time.Time
}

// Scores are the log-probabilities of a text, token by token.
type Scores struct {
	Tokens []Logprob `json:"tokens"`
	Sum    float64   `json:"sum"`   // of all Logprob values
	Usage  Usage     `json:"usage"` // PromptTokens is context and text; the last one is not computed
}
