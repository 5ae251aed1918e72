// norion.h is the whole C face of the shim: plain C over llama.cpp's C and C++ API, so that cgo
// sees neither C++ nor a struct that upstream may reorder.
//
// Conventions
//   - Every function that can fail says so by its result and fills *err; no C++ exception leaves.
//   - A handle is freed by the function named beside it; a child is freed before its parent.
//   - One context, sampler or chat handle is used by one thread at a time. A model may be shared.
//   - Text going in is a pointer and a length, or NUL-ended where it says so. Text coming out is
//     either copied into the caller's buffer or an nr_text that the caller frees.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef NR_API
#define NR_API __attribute__((visibility("default")))
#endif

// Codes of nr_error. They are mirrored in error.go.
enum nr_code {
    NR_OK = 0,
    NR_INVALID,     // an argument that cannot be used
    NR_LOAD,        // the model or adapter could not be loaded
    NR_MEMORY,      // an allocation failed
    NR_CANCELED,    // a callback or the abort flag said stop
    NR_FULL,        // no room in the KV cache; the state is unchanged
    NR_DECODE,      // the engine failed to compute
    NR_UNSUPPORTED, // the model or build cannot do this
    NR_GRAMMAR,     // a grammar or schema that cannot be used
    NR_TEMPLATE,    // a chat template that cannot be used
    NR_PARSE,       // generated text that does not parse
    NR_STATE,       // a saved state that does not fit
    NR_INTERNAL,    // an unexpected exception
};

typedef struct nr_error {
    int32_t code;
    char text[1024]; // NUL-ended, UTF-8 as upstream wrote it
} nr_error;

// Text owned by the shim until nr_text_free.
typedef struct nr_text {
    char * data; // NUL-ended; NULL on failure
    size_t size; // bytes without the NUL
} nr_text;
NR_API void nr_text_free(nr_text text);

// ---- process ------------------------------------------------------------------------------

// Starts the back-ends once. Lines of at least min_level (ggml's levels: 1 debug, 2 info, 3 warn,
// 4 error) are handed, whole, to norionLog, from any thread.
NR_API void nr_start(int32_t min_level);
NR_API void nr_log_level(int32_t min_level);
// Spreads what is loaded and computed from now on over all memory nodes, for good.
NR_API void nr_distribute(void);
NR_API const char * nr_version(void);     // llama.cpp's version
NR_API const char * nr_commit(void);      // the commit it was built from
NR_API const char * nr_system_info(void); // CPU features compiled in and used

// Bytes of weights that the system was asked, since the start, to keep in huge pages.
NR_API uint64_t nr_huge_bytes(void);

// For tests: lets the allocation of this thread after the next n fail, once. Negative ends it.
NR_API void nr_test_fail_alloc(int64_t n);

typedef struct nr_device {
    char name[64];
    char description[128];
    char id[64];   // PCI bus id, or empty
    int32_t type;  // ggml_backend_dev_type: 0 CPU, 1 GPU, 2 IGPU, 3 ACCEL
    uint64_t free; // bytes
    uint64_t total;
} nr_device;
NR_API int32_t nr_device_count(void);
NR_API bool nr_device_get(int32_t i, nr_device * out);

// ggml's number for a type name such as "f16" or "q8_0", or -1.
NR_API int32_t nr_type_from_name(const char * name);

// ---- model --------------------------------------------------------------------------------

typedef struct nr_model nr_model;

typedef struct nr_model_params {
    const char * const * paths; // the shards in order
    int32_t n_paths;
    int32_t gpu_layers; // negative: all
    int32_t split_mode; // 0 none, 1 layer, 2 row, 3 tensor
    int32_t load_mode;  // llama_load_mode; -1 auto
    int32_t main_gpu;
    const char * const * devices; // names, n_devices of them; none means all, -1 not any
    int32_t n_devices;
    const float * tensor_split; // n_tensor_split values, or NULL
    int32_t n_tensor_split;
    const char * const * override_patterns; // regular expressions over tensor names ...
    const char * const * override_buffers;  // ... and the buffer type each goes to
    int32_t n_overrides;
    bool vocab_only;
    bool check_tensors;
    bool no_extra_buffers; // no repacking of weights
    bool dry;              // read metadata only and count bytes
    uintptr_t progress;    // handed to norionProgress; 0 for none
} nr_model_params;

// nr_model_free frees it, after its contexts, samplers, adapters and chats.
NR_API nr_model * nr_model_load(const nr_model_params * params, nr_error * err);
NR_API void nr_model_free(nr_model * model);

typedef struct nr_model_info {
    int32_t n_vocab, n_ctx_train, n_embd, n_embd_out, n_layer, n_head, n_head_kv, n_swa;
    int32_t rope_type; // llama_rope_type
    int32_t bos, eos, eot, sep, nl, pad, mask; // token ids, or -1
    uint64_t n_params, size;
    bool add_bos, add_eos, has_encoder, has_decoder, recurrent, hybrid, diffusion;
    char description[128];
} nr_model_info;
NR_API void nr_model_get_info(const nr_model * model, nr_model_info * out);

// Copies a metadata value as text; the result is its length, or -1 where the key is absent.
NR_API int32_t nr_model_meta(const nr_model * model, const char * key, char * buf, size_t size);

// Fills tokens and returns their number; a negative result is the number of places needed.
// INT32_MIN means the text cannot be tokenised.
NR_API int32_t nr_tokenize(const nr_model * model, const char * text, int32_t size,
                           int32_t * tokens, int32_t capacity, bool add_special,
                           bool parse_special);
// Copies the bytes of one token; a negative result is the number of bytes needed.
NR_API int32_t nr_piece(const nr_model * model, int32_t token, char * buf, int32_t size,
                        bool special);
NR_API int32_t nr_detokenize(const nr_model * model, const int32_t * tokens, int32_t n_tokens,
                             char * buf, int32_t size, bool remove_special, bool special);
NR_API int32_t nr_token_attr(const nr_model * model, int32_t token); // llama_token_attr bits
NR_API bool nr_token_eog(const nr_model * model, int32_t token);

// ---- adapters -----------------------------------------------------------------------------

typedef struct nr_lora nr_lora;
NR_API nr_lora * nr_lora_load(nr_model * model, const char * path, nr_error * err);
NR_API void nr_lora_free(nr_lora * lora);

// ---- threads ------------------------------------------------------------------------------

typedef struct nr_threads nr_threads;
// poll: 0 sleeps between graphs, 100 spins. nr_threads_free frees it, after its contexts.
NR_API nr_threads * nr_threads_new(int32_t n, int32_t poll, int32_t priority, nr_error * err);
NR_API void nr_threads_free(nr_threads * threads);

// ---- context ------------------------------------------------------------------------------

typedef struct nr_context nr_context;
typedef struct nr_sampler nr_sampler;

typedef struct nr_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max, n_outputs_max;
    int32_t n_threads, n_threads_batch;
    int32_t flash_attn; // -1 auto, 0 off, 1 on
    int32_t type_k, type_v;
    int32_t pooling;   // llama_pooling_type; -1 as the model says
    int32_t attention; // llama_attention_type; -1 as the model says
    int32_t rope_scaling; // llama_rope_scaling_type; -1 as the model says
    float rope_freq_base, rope_freq_scale; // 0 as the model says
    float yarn_ext_factor; // negative as the model says
    float yarn_attn_factor, yarn_beta_fast, yarn_beta_slow;
    uint32_t yarn_orig_ctx;
    bool embeddings, offload_kqv, op_offload, swa_full, kv_unified, perf;
} nr_context_params;

// Upstream's defaults, for the fields that a caller does not set.
NR_API nr_context_params nr_context_defaults(void);
NR_API nr_context * nr_context_new(nr_model * model, const nr_context_params * params,
                                   nr_error * err);
NR_API void nr_context_free(nr_context * ctx);
// Rows of the table that the model looks positions up in, or 0. It aborts beyond them.
NR_API int32_t nr_positions(const nr_model * model);

typedef struct nr_context_info {
    uint32_t n_ctx, n_ctx_seq, n_batch, n_ubatch, n_seq_max;
    int32_t n_threads, n_threads_batch, pooling;
    int32_t n_vector; // values of the vector of a sequence
    uint32_t n_window; // cells of the window cache of a stream; 0 where there is none
    bool can_shift, has_memory, causal;
} nr_context_info;
NR_API void nr_context_get_info(const nr_context * ctx, nr_context_info * out);
NR_API void nr_context_set_threads(nr_context * ctx, int32_t n, int32_t n_batch);
// Either may be NULL; both NULL detaches.
NR_API void nr_context_attach(nr_context * ctx, nr_threads * decode, nr_threads * batch);
NR_API void nr_context_set_embeddings(nr_context * ctx, bool on);
NR_API void nr_context_set_causal(nr_context * ctx, bool on);
NR_API bool nr_context_set_loras(nr_context * ctx, nr_lora ** loras, float * scales, size_t n);

// The abort flag: any thread may raise it; a decode that runs ends with NR_CANCELED.
NR_API void nr_abort(nr_context * ctx, bool on);

// The batch lives in C memory: arrays of n_batch places owned by the context, valid until it is
// freed. Place i holds one token of one sequence; output asks for its logits or embedding.
typedef struct nr_batch {
    int32_t * token;
    int32_t * pos;
    int32_t * seq;
    int8_t * output;
    int32_t capacity;
} nr_batch;
NR_API nr_batch nr_context_batch(nr_context * ctx);

// One choice of a step: the sampler takes a token from the logits of batch place `place`.
typedef struct nr_pick {
    nr_sampler * sampler;
    int32_t place;
    int32_t special;   // in: 1 shows control tokens as text
    int32_t follows;   // in: 1 makes it only when the pick before it chose the token at `place`
    int32_t token;     // out
    int32_t eog;       // out: 1 when it ends the generation
    int32_t made;      // out: 1 when a token was chosen and accepted
    int32_t code;      // out: an nr_code; piece then holds the NUL-ended reason
    int32_t size;      // out: bytes in piece; negative: bytes needed, ask nr_piece
    char piece[240];   // out
} nr_pick;
// n places for picks, owned by the context and valid until they are asked for again; NULL when
// there is no memory.
NR_API nr_pick * nr_context_picks(nr_context * ctx, int32_t n);

// Decodes the first n places, then makes the first n_picks picks, in order. The result is that of
// the decode; without it no pick is made. A pick that fails says so itself and stops no other.
// Waits for the result.
NR_API int32_t nr_step(nr_context * ctx, int32_t n, int32_t n_picks, nr_error * err);
// Decodes without waiting for the device: what llama-bench times.
NR_API int32_t nr_decode(nr_context * ctx, int32_t n, nr_error * err);
NR_API int32_t nr_encode(nr_context * ctx, int32_t n, nr_error * err);
NR_API void nr_sync(nr_context * ctx);
NR_API float * nr_logits(nr_context * ctx, int32_t place);        // [n_vocab] or NULL
NR_API float * nr_embeddings(nr_context * ctx, int32_t place);    // [n_embd_out] or NULL
NR_API float * nr_embeddings_seq(nr_context * ctx, int32_t seq);  // [n_embd_out] or NULL

// Natural log-probabilities at a place: of token, and of the n_top most probable, best first.
NR_API bool nr_logprobs(nr_context * ctx, int32_t place, int32_t token, float * logprob,
                        int32_t n_top, int32_t * top_tokens, float * top_logprobs);

// ---- memory -------------------------------------------------------------------------------

NR_API void nr_memory_clear(nr_context * ctx, bool data);
NR_API bool nr_seq_rm(nr_context * ctx, int32_t seq, int32_t p0, int32_t p1);
NR_API void nr_seq_cp(nr_context * ctx, int32_t from, int32_t to, int32_t p0, int32_t p1);
NR_API void nr_seq_keep(nr_context * ctx, int32_t seq);
NR_API void nr_seq_add(nr_context * ctx, int32_t seq, int32_t p0, int32_t p1, int32_t delta);
NR_API void nr_seq_div(nr_context * ctx, int32_t seq, int32_t p0, int32_t p1, int32_t d);
NR_API int32_t nr_seq_pos_min(const nr_context * ctx, int32_t seq);
NR_API int32_t nr_seq_pos_max(const nr_context * ctx, int32_t seq);

// State of one sequence. flags: 1 partial (window or recurrent part only), 2 on device.
NR_API size_t nr_seq_state_size(nr_context * ctx, int32_t seq, uint32_t flags);
NR_API size_t nr_seq_state_get(nr_context * ctx, int32_t seq, uint8_t * buf, size_t size,
                               uint32_t flags);
NR_API size_t nr_seq_state_set(nr_context * ctx, int32_t seq, const uint8_t * buf, size_t size,
                               uint32_t flags);

// Bytes by buffer type, as the library counts them, and the buffer of logits, which it does not.
typedef struct nr_memory {
    char buffer[64]; // such as CPU, CPU_REPACK, CUDA0
    char device[64];
    bool host;
    uint64_t model, context, compute, output;
} nr_memory;
// Fills at most capacity entries and returns how many there are.
NR_API int32_t nr_memory_breakdown(const nr_context * ctx, nr_memory * out, int32_t capacity);

// ---- sampler ------------------------------------------------------------------------------

typedef struct nr_bias {
    int32_t token;
    float bias;
} nr_bias;

typedef struct nr_sampler_params {
    uint32_t seed;
    float temperature, dynatemp_range, dynatemp_exponent;
    int32_t top_k;
    float top_p, min_p, typical_p, top_n_sigma;
    float xtc_probability, xtc_threshold;
    int32_t penalty_last_n;
    float penalty_repeat, penalty_frequency, penalty_presence;
    float dry_multiplier, dry_base;
    int32_t dry_allowed_length, dry_last_n;
    const char * const * dry_breakers; // NUL-ended; n_dry_breakers of them
    int32_t n_dry_breakers;
    int32_t mirostat;
    float mirostat_tau, mirostat_eta;
    const nr_bias * bias;
    int32_t n_bias;
    bool ignore_eos;
    const char * grammar; // GBNF, NUL-ended, or NULL
    bool grammar_lazy;    // applies from the first trigger on
    bool grammar_prefill; // the grammar also covers generation_prompt
    const char * generation_prompt; // NUL-ended, or NULL
    const int32_t * trigger_types;  // common_grammar_trigger_type
    const char * const * trigger_values;
    const int32_t * trigger_tokens;
    int32_t n_triggers;
    const int32_t * preserved; // token ids that are not split
    int32_t n_preserved;
    bool whole; // for tests: upstream's chain sees the whole vocabulary, and nothing is shorter
} nr_sampler_params;

NR_API nr_sampler * nr_sampler_new(const nr_model * model, const nr_sampler_params * params,
                                   nr_error * err);
NR_API void nr_sampler_free(nr_sampler * sampler);
// Takes a token from the logits at a place and accepts it.
NR_API int32_t nr_sampler_sample(nr_sampler * sampler, nr_context * ctx, int32_t place,
                                 nr_error * err);
// Accepts a token that was not sampled; generated says whether grammars should see it.
NR_API int32_t nr_sampler_accept(nr_sampler * sampler, int32_t token, bool generated,
                                 nr_error * err);
NR_API uint32_t nr_sampler_seed(const nr_sampler * sampler);
// For tests: whether it never looks at the whole vocabulary as candidates.
NR_API bool nr_sampler_brief(const nr_sampler * sampler);

#ifdef __cplusplus
}
#endif
