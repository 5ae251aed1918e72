// context.cpp decodes: contexts, batches, steps and what comes out of them.
#include "internal.h"

#include "llama-context.h"
#include "llama-ext.h"
#include "llama-kv-cache-iswa.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>

namespace {

// The output buffer is private upstream and missing from its own count. An explicit instantiation
// may name a private member ([temp.spec.general]), so a renamed one is an error of compilation.
struct output_member {
    using type = ggml_backend_buffer_ptr llama_context::*;
    friend type member(output_member);
};

template <typename Tag, typename Tag::type M>
struct expose {
    friend typename Tag::type member(Tag) { return M; }
};

template struct expose<output_member, &llama_context::buf_output>;

bool on_abort(void * data) {
    auto * ctx = static_cast<nr_context *>(data);
    return !ctx->settling && ctx->abort.load(std::memory_order_relaxed);
}

llama_context_params convert(const nr_context_params & p) {
    llama_context_params out = llama_context_default_params();
    out.n_ctx = p.n_ctx;
    out.n_batch = p.n_batch;
    out.n_ubatch = p.n_ubatch;
    out.n_seq_max = p.n_seq_max;
    out.n_outputs_max = p.n_outputs_max;
    out.n_threads = p.n_threads;
    out.n_threads_batch = p.n_threads_batch;
    out.flash_attn_type = static_cast<llama_flash_attn_type>(p.flash_attn);
    out.type_k = static_cast<ggml_type>(p.type_k);
    out.type_v = static_cast<ggml_type>(p.type_v);
    out.pooling_type = static_cast<enum llama_pooling_type>(p.pooling);
    out.attention_type = static_cast<llama_attention_type>(p.attention);
    out.rope_scaling_type = static_cast<llama_rope_scaling_type>(p.rope_scaling);
    out.rope_freq_base = p.rope_freq_base;
    out.rope_freq_scale = p.rope_freq_scale;
    out.yarn_ext_factor = p.yarn_ext_factor;
    out.yarn_attn_factor = p.yarn_attn_factor;
    out.yarn_beta_fast = p.yarn_beta_fast;
    out.yarn_beta_slow = p.yarn_beta_slow;
    out.yarn_orig_ctx = p.yarn_orig_ctx;
    out.embeddings = p.embeddings;
    out.offload_kqv = p.offload_kqv;
    out.op_offload = p.op_offload;
    out.swa_full = p.swa_full;
    out.kv_unified = p.kv_unified;
    out.no_perf = !p.perf;
    return out;
}

// set_batch gives the context its batch: flat arrays whose sequence pointers never move.
void set_batch(nr_context & c, int32_t capacity) {
    c.batch = llama_batch_init(capacity, 0, 1);
    c.seq.assign(capacity, 0);
    for (int32_t i = 0; i < capacity; i++) {
        c.seq_ids.push_back(&c.seq[i]);
        c.batch.n_seq_id[i] = 1;
    }
}

// view is the first n places as upstream wants them, pointing into our own sequence array.
llama_batch view(nr_context * c, int32_t n) {
    llama_batch out = c->batch;
    out.n_tokens = n;
    out.seq_id = c->seq_ids.data();
    return out;
}

int32_t decode_error(int32_t code, nr_error * err) {
    switch (code) {
    case 0:
        return NR_OK;
    case 1:
        nr_fail(err, NR_FULL, "no room for the batch in the KV cache");
        return NR_FULL;
    case 2:
        nr_fail(err, NR_CANCELED, "aborted");
        return NR_CANCELED;
    case -1:
        nr_fail(err, NR_INVALID, "llama.cpp refused the batch");
        return NR_INVALID;
    default:
        nr_fail(err, NR_DECODE, ("llama.cpp answered " + std::to_string(code)).c_str());
        return NR_DECODE;
    }
}

// confirms says whether a pick chose the token that the next one stands on: a draft came true.
bool confirms(const nr_context * ctx, const nr_pick & pick, const nr_pick & next) {
    return pick.made != 0 && pick.eog == 0 && pick.token == ctx->batch.token[next.place];
}

void make(nr_context * ctx, nr_pick & pick) {
    nr_error err;
    pick.token = nr_sampler_sample(pick.sampler, ctx, pick.place, &err);
    if (pick.token < 0) {
        pick.code = err.code;
        std::snprintf(pick.piece, sizeof(pick.piece), "%.*s",
                      static_cast<int>(sizeof(pick.piece)) - 1, err.text);
        return;
    }
    pick.made = 1;
    pick.eog = llama_vocab_is_eog(ctx->model->vocab, pick.token) ? 1 : 0;
    pick.size = nr_piece(ctx->model, pick.token, pick.piece, sizeof(pick.piece),
                         pick.special != 0);
}

} // namespace

nr_context_params nr_context_defaults(void) {
    const llama_context_params d = llama_context_default_params();
    nr_context_params p = {};
    p.n_ctx = d.n_ctx;
    p.n_batch = d.n_batch;
    p.n_ubatch = d.n_ubatch;
    p.n_seq_max = d.n_seq_max;
    p.n_outputs_max = d.n_outputs_max;
    p.n_threads = d.n_threads;
    p.n_threads_batch = d.n_threads_batch;
    p.flash_attn = d.flash_attn_type;
    p.type_k = d.type_k;
    p.type_v = d.type_v;
    p.pooling = d.pooling_type;
    p.attention = d.attention_type;
    p.rope_scaling = d.rope_scaling_type;
    p.rope_freq_base = d.rope_freq_base;
    p.rope_freq_scale = d.rope_freq_scale;
    p.yarn_ext_factor = d.yarn_ext_factor;
    p.yarn_attn_factor = d.yarn_attn_factor;
    p.yarn_beta_fast = d.yarn_beta_fast;
    p.yarn_beta_slow = d.yarn_beta_slow;
    p.yarn_orig_ctx = d.yarn_orig_ctx;
    p.embeddings = d.embeddings;
    p.offload_kqv = d.offload_kqv;
    p.op_offload = d.op_offload;
    p.swa_full = d.swa_full;
    p.kv_unified = d.kv_unified;
    p.perf = !d.no_perf;
    return p;
}

nr_context * nr_context_new(nr_model * model, const nr_context_params * params, nr_error * err) {
    return nr_guard<nr_context *>(err, NR_MEMORY, nullptr, [&]() -> nr_context * {
        std::unique_ptr<nr_context, void (*)(nr_context *)> out(new nr_context, nr_context_free);
        out->ctx = llama_init_from_model(model->model, convert(*params));
        if (out->ctx == nullptr) {
            nr_fail(err, NR_MEMORY, "llama.cpp could not create the context");
            return nullptr;
        }
        out->model = model;
        set_batch(*out, static_cast<int32_t>(llama_n_batch(out->ctx)));
        llama_set_abort_callback(out->ctx, on_abort, out.get());
        return out.release();
    });
}

void nr_context_free(nr_context * ctx) {
    if (ctx != nullptr) {
        llama_free(ctx->ctx);
        llama_batch_free(ctx->batch);
        delete ctx;
    }
}

int32_t nr_positions(const nr_model * model) {
    const ggml_tensor * table = model->model->get_tensor("position_embd.weight");
    return table == nullptr ? 0 : static_cast<int32_t>(table->ne[1]);
}

void nr_context_get_info(const nr_context * ctx, nr_context_info * out) {
    auto * memory = llama_get_memory(ctx->ctx);
    *out = {};
    out->n_ctx = llama_n_ctx(ctx->ctx);
    out->n_ctx_seq = llama_n_ctx_seq(ctx->ctx);
    out->n_batch = llama_n_batch(ctx->ctx);
    out->n_ubatch = llama_n_ubatch(ctx->ctx);
    out->n_seq_max = llama_n_seq_max(ctx->ctx);
    out->n_threads = llama_n_threads(ctx->ctx);
    out->n_threads_batch = llama_n_threads_batch(ctx->ctx);
    out->pooling = llama_pooling_type(ctx->ctx);
    const llama_model * model = ctx->model->model;
    out->n_vector = out->pooling == LLAMA_POOLING_TYPE_RANK
        ? static_cast<int32_t>(llama_model_n_cls_out(model))
        : llama_model_n_embd_out(model);
    out->has_memory = memory != nullptr;
    const auto * windowed = dynamic_cast<const llama_kv_cache_iswa *>(memory);
    out->n_window = windowed == nullptr ? 0 : windowed->get_swa()->get_size();
    out->causal = llama_get_causal_attn(ctx->ctx);
    out->can_shift = memory != nullptr && llama_memory_can_shift(memory);
}

void nr_context_set_threads(nr_context * ctx, int32_t n, int32_t n_batch) {
    llama_set_n_threads(ctx->ctx, n, n_batch);
}

void nr_context_set_embeddings(nr_context * ctx, bool on) { llama_set_embeddings(ctx->ctx, on); }

void nr_context_set_causal(nr_context * ctx, bool on) { llama_set_causal_attn(ctx->ctx, on); }

void nr_abort(nr_context * ctx, bool on) { ctx->abort.store(on, std::memory_order_relaxed); }

nr_batch nr_context_batch(nr_context * ctx) {
    return {ctx->batch.token, ctx->batch.pos, ctx->seq.data(), ctx->batch.logits,
            static_cast<int32_t>(ctx->seq.size())};
}

nr_pick * nr_context_picks(nr_context * ctx, int32_t n) {
    return nr_guard<nr_pick *>(nullptr, NR_MEMORY, nullptr, [&] {
        if (ctx->picks.size() < static_cast<size_t>(n)) {
            ctx->picks.resize(static_cast<size_t>(n));
        }
        return ctx->picks.data();
    });
}

int32_t nr_decode(nr_context * ctx, int32_t n, nr_error * err) {
    return nr_guard<int32_t>(err, NR_DECODE, NR_DECODE, [&] {
        nr_settle(ctx);
        return decode_error(llama_decode(ctx->ctx, view(ctx, n)), err);
    });
}

int32_t nr_encode(nr_context * ctx, int32_t n, nr_error * err) {
    return nr_guard<int32_t>(err, NR_DECODE, NR_DECODE, [&] {
        return decode_error(llama_encode(ctx->ctx, view(ctx, n)), err);
    });
}

void nr_sync(nr_context * ctx) { llama_synchronize(ctx->ctx); }

int32_t nr_step(nr_context * ctx, int32_t n, int32_t n_picks, nr_error * err) {
    int32_t code = nr_decode(ctx, n, err);
    if (code != NR_OK) {
        return code;
    }
    llama_synchronize(ctx->ctx);
    for (int32_t i = 0; i < n_picks; i++) {
        nr_pick & pick = ctx->picks[i];
        pick.made = pick.code = 0;
        if (pick.follows == 0 || (i > 0 && confirms(ctx, ctx->picks[i - 1], pick))) {
            make(ctx, pick);
        }
    }
    return NR_OK;
}

float * nr_logits(nr_context * ctx, int32_t place) {
    return llama_get_logits_ith(ctx->ctx, place);
}

float * nr_embeddings(nr_context * ctx, int32_t place) {
    return llama_get_embeddings_ith(ctx->ctx, place);
}

float * nr_embeddings_seq(nr_context * ctx, int32_t seq) {
    return llama_get_embeddings_seq(ctx->ctx, seq);
}

bool nr_logprobs(nr_context * ctx, int32_t place, int32_t token, float * logprob, int32_t n_top,
                 int32_t * top_tokens, float * top_logprobs) {
    return nr_guard<bool>(nullptr, NR_INTERNAL, false, [&] {
        const float * logits = llama_get_logits_ith(ctx->ctx, place);
        const int32_t n = ctx->model->n_vocab;
        if (logits == nullptr || token < 0 || token >= n || n_top > n) {
            return false;
        }
        const float max = *std::max_element(logits, logits + n);
        double sum = 0.0;
        for (int32_t i = 0; i < n; i++) {
            sum += std::exp(static_cast<double>(logits[i] - max));
        }
        const double norm = max + std::log(sum);
        *logprob = static_cast<float>(logits[token] - norm);
        if (n_top <= 0) {
            return true;
        }
        std::vector<int32_t> order(static_cast<size_t>(n));
        for (int32_t i = 0; i < n; i++) {
            order[i] = i;
        }
        // Equal logits are ordered by token so that the result is one.
        auto before = [logits](int32_t a, int32_t b) {
            return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
        };
        std::partial_sort(order.begin(), order.begin() + n_top, order.end(), before);
        for (int32_t i = 0; i < n_top; i++) {
            top_tokens[i] = order[i];
            top_logprobs[i] = static_cast<float>(logits[order[i]] - norm);
        }
        return true;
    });
}

int32_t nr_memory_breakdown(const nr_context * ctx, nr_memory * out, int32_t capacity) {
    int32_t n = 0;
    auto all = llama_get_memory_breakdown(ctx->ctx);
    ggml_backend_buffer_t output = (ctx->ctx->*member(output_member())).get();
    ggml_backend_buffer_type_t output_type = nullptr;
    if (output != nullptr) {
        output_type = ggml_backend_buffer_get_type(output);
        all[output_type];
    }
    for (const auto & [type, bytes] : all) {
        if (n < capacity) {
            nr_memory & m = out[n];
            ggml_backend_dev_t device = ggml_backend_buft_get_device(type);
            const char * name = device == nullptr ? "" : ggml_backend_dev_name(device);
            std::snprintf(m.buffer, sizeof(m.buffer), "%s", ggml_backend_buft_name(type));
            std::snprintf(m.device, sizeof(m.device), "%s", name);
            m.host = ggml_backend_buft_is_host(type);
            m.model = bytes.model;
            m.context = bytes.context;
            m.compute = bytes.compute;
            m.output = type == output_type ? ggml_backend_buffer_get_size(output) : 0;
        }
        n++;
    }
    return n;
}
