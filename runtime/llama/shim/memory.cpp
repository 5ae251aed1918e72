// memory.cpp edits the KV cache and copies the state of a sequence. The Go side checks every
// precondition first: upstream asserts on some of them.
#include "internal.h"

#include "llama-context.h"

void nr_settle(nr_context * ctx) {
    if (!ctx->moved) {
        return;
    }
    ctx->settling = true;
    try {
        ctx->ctx->memory_update(false);
    } catch (...) {
        ctx->settling = false;
        throw;
    }
    ctx->settling = false;
    ctx->moved = false;
}

void nr_memory_clear(nr_context * ctx, bool data) {
    llama_memory_clear(llama_get_memory(ctx->ctx), data);
}

bool nr_seq_rm(nr_context * ctx, int32_t seq, int32_t p0, int32_t p1) {
    return llama_memory_seq_rm(llama_get_memory(ctx->ctx), seq, p0, p1);
}

void nr_seq_cp(nr_context * ctx, int32_t from, int32_t to, int32_t p0, int32_t p1) {
    ctx->moved = true;
    llama_memory_seq_cp(llama_get_memory(ctx->ctx), from, to, p0, p1);
}

void nr_seq_keep(nr_context * ctx, int32_t seq) {
    llama_memory_seq_keep(llama_get_memory(ctx->ctx), seq);
}

void nr_seq_add(nr_context * ctx, int32_t seq, int32_t p0, int32_t p1, int32_t delta) {
    ctx->moved = true;
    llama_memory_seq_add(llama_get_memory(ctx->ctx), seq, p0, p1, delta);
}

void nr_seq_div(nr_context * ctx, int32_t seq, int32_t p0, int32_t p1, int32_t d) {
    ctx->moved = true;
    llama_memory_seq_div(llama_get_memory(ctx->ctx), seq, p0, p1, d);
}

int32_t nr_seq_pos_min(const nr_context * ctx, int32_t seq) {
    return llama_memory_seq_pos_min(llama_get_memory(ctx->ctx), seq);
}

int32_t nr_seq_pos_max(const nr_context * ctx, int32_t seq) {
    return llama_memory_seq_pos_max(llama_get_memory(ctx->ctx), seq);
}

size_t nr_seq_state_size(nr_context * ctx, int32_t seq, uint32_t flags) {
    return nr_guard<size_t>(nullptr, NR_STATE, 0, [&] {
        return llama_state_seq_get_size_ext(ctx->ctx, seq, flags);
    });
}

size_t nr_seq_state_get(nr_context * ctx, int32_t seq, uint8_t * buf, size_t size,
                        uint32_t flags) {
    return nr_guard<size_t>(nullptr, NR_STATE, 0, [&] {
        nr_settle(ctx);
        return llama_state_seq_get_data_ext(ctx->ctx, buf, size, seq, flags);
    });
}

size_t nr_seq_state_set(nr_context * ctx, int32_t seq, const uint8_t * buf, size_t size,
                        uint32_t flags) {
    return nr_guard<size_t>(nullptr, NR_STATE, 0, [&] {
        nr_settle(ctx);
        return llama_state_seq_set_data_ext(ctx->ctx, buf, size, seq, flags);
    });
}

// The thread pool lives in the CPU back-end, which may be a plug-in: ask it for the functions.
struct nr_threads {
    ggml_threadpool * pool = nullptr;
    void (*free)(ggml_threadpool *) = nullptr;
};

nr_threads * nr_threads_new(int32_t n, int32_t poll, int32_t priority, nr_error * err) {
    return nr_guard<nr_threads *>(err, NR_MEMORY, nullptr, [&]() -> nr_threads * {
        auto * cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        auto * reg = cpu == nullptr ? nullptr : ggml_backend_dev_backend_reg(cpu);
        auto find = [reg](const char * name) {
            return reg == nullptr ? nullptr : ggml_backend_reg_get_proc_address(reg, name);
        };
        using make_fn = ggml_threadpool * (*)(ggml_threadpool_params *);
        auto make = reinterpret_cast<make_fn>(find("ggml_threadpool_new"));
        auto free = reinterpret_cast<void (*)(ggml_threadpool *)>(find("ggml_threadpool_free"));
        if (make == nullptr || free == nullptr) {
            nr_fail(err, NR_UNSUPPORTED, "the CPU back-end has no thread pools");
            return nullptr;
        }
        auto out = std::make_unique<nr_threads>();
        ggml_threadpool_params params = ggml_threadpool_params_default(n);
        params.poll = static_cast<uint32_t>(poll);
        params.prio = static_cast<ggml_sched_priority>(priority);
        out->free = free;
        out->pool = make(&params);
        if (out->pool == nullptr) {
            nr_fail(err, NR_MEMORY, "the threads could not be started");
            return nullptr;
        }
        return out.release();
    });
}

void nr_threads_free(nr_threads * threads) {
    if (threads != nullptr) {
        threads->free(threads->pool);
        delete threads;
    }
}

void nr_context_attach(nr_context * ctx, nr_threads * decode, nr_threads * batch) {
    if (decode == nullptr && batch == nullptr) {
        llama_detach_threadpool(ctx->ctx);
        return;
    }
    llama_attach_threadpool(ctx->ctx, decode == nullptr ? nullptr : decode->pool,
                            batch == nullptr ? nullptr : batch->pool);
}
