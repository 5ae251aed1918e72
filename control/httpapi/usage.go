package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// usage counts tokens as OpenAI does.
type usage struct {
	Prompt     int           `json:"prompt_tokens"`
	Completion int           `json:"completion_tokens"`
	Total      int           `json:"total_tokens"`
	Details    promptDetails `json:"prompt_tokens_details"`
}

type promptDetails struct {
	Cached int `json:"cached_tokens"` // not computed again
}

func usageOf(u *infer.Usage) *usage {
	return &usage{
		Prompt: u.PromptTokens, Completion: u.CompletionTokens,
		Total: u.PromptTokens + u.CompletionTokens, Details: promptDetails{cachedTokens(u)},
	}
}

func cachedTokens(u *infer.Usage) int { return u.Cached.Live + u.Cached.RAM + u.Cached.Disk }

// timings are llama-server's. Of several choices they are the first one's.
type timings struct {
	CacheN         int     `json:"cache_n"`
	PromptN        int     `json:"prompt_n"` // computed
	PromptMs       float64 `json:"prompt_ms"`
	PromptRate     float64 `json:"prompt_per_second"`
	PredictedN     int     `json:"predicted_n"`
	PredictedMs    float64 `json:"predicted_ms"`
	PredictedRate  float64 `json:"predicted_per_second"`
	QueueMs        float64 `json:"queue_ms"`
	FirstTokenMs   float64 `json:"ttft_ms"`
	LongestTokenMs float64 `json:"itl_max_ms"`
}

func timingsOf(u *infer.Usage) timings {
	t := u.Timings
	return timings{
		CacheN: cachedTokens(u), PromptN: u.PromptTokens - cachedTokens(u),
		PromptMs: ms(t.Prefill), PromptRate: u.PrefillRate(),
		PredictedN: u.CompletionTokens, PredictedMs: ms(t.Decode), PredictedRate: u.DecodeRate(),
		QueueMs: ms(t.Queue), FirstTokenMs: ms(t.TTFT), LongestTokenMs: ms(t.ITLMax),
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// fingerprint names the model and the engine: the same seed gives the same answer only under one.
func fingerprint(info infer.Info) string {
	sum := sha256.Sum256([]byte(info.Digest + "\n" + info.Model + "\n" + info.Engine))
	return "fp_" + hex.EncodeToString(sum[:5])
}

// validText is the text of bytes that need not be UTF-8.
func validText(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }
