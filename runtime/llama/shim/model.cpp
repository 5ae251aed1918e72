// model.cpp loads models and adapters and answers for the vocabulary.
#include "internal.h"

#include <climits>
#include <stdexcept>

// Implemented in Go: false stops the load.
extern "C" bool norionProgress(uintptr_t handle, float done);

namespace {

bool on_progress(float done, void * data) {
    return norionProgress(reinterpret_cast<uintptr_t>(data), done);
}

ggml_backend_buffer_type_t buffer_type(const std::string & name) {
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        auto * type = ggml_backend_dev_buffer_type(ggml_backend_dev_get(i));
        if (type != nullptr && name == ggml_backend_buft_name(type)) {
            return type;
        }
    }
    throw std::invalid_argument("no buffer type is named " + name);
}

// load_lists holds the NULL-ended arrays that upstream's parameters point into during a load.
struct load_lists {
    std::vector<ggml_backend_dev_t> devices;
    std::vector<llama_model_tensor_buft_override> overrides;
    std::vector<float> split;
};

llama_model_params convert(const nr_model_params & p, load_lists & lists) {
    llama_model_params out = llama_model_default_params();
    for (int32_t i = 0; i < p.n_devices; i++) {
        auto * device = ggml_backend_dev_by_name(p.devices[i]);
        if (device == nullptr) {
            throw std::invalid_argument(std::string("no device is named ") + p.devices[i]);
        }
        lists.devices.push_back(device);
    }
    if (!lists.devices.empty() || p.n_devices < 0) {
        lists.devices.push_back(nullptr);
        out.devices = lists.devices.data();
    }
    for (int32_t i = 0; i < p.n_overrides; i++) {
        lists.overrides.push_back({p.override_patterns[i], buffer_type(p.override_buffers[i])});
    }
    if (!lists.overrides.empty()) {
        lists.overrides.push_back({nullptr, nullptr});
        out.tensor_buft_overrides = lists.overrides.data();
    }
    if (p.n_tensor_split > 0) {
        lists.split.assign(llama_max_devices(), 0.0f);
        for (size_t i = 0; i < lists.split.size() && i < size_t(p.n_tensor_split); i++) {
            lists.split[i] = p.tensor_split[i];
        }
        out.tensor_split = lists.split.data();
    }
    out.n_gpu_layers = p.gpu_layers;
    out.split_mode = static_cast<llama_split_mode>(p.split_mode);
    out.load_mode = static_cast<llama_load_mode>(p.load_mode);
    out.main_gpu = p.main_gpu;
    out.vocab_only = p.vocab_only;
    out.check_tensors = p.check_tensors;
    out.use_extra_bufts = !p.no_extra_buffers;
    out.no_alloc = p.dry;
    if (p.dry) {
        out.load_mode = LLAMA_LOAD_MODE_NONE; // upstream asserts on a map of nothing
        out.check_tensors = false;
    }
    if (p.progress != 0) {
        out.progress_callback = on_progress;
        out.progress_callback_user_data = reinterpret_cast<void *>(p.progress);
    }
    return out;
}

} // namespace

nr_model * nr_model_load(const nr_model_params * params, nr_error * err) {
    return nr_guard<nr_model *>(err, NR_LOAD, nullptr, [&]() -> nr_model * {
        auto out = std::make_unique<nr_model>();
        load_lists lists;
        llama_model_params p = convert(*params, lists);
        llama_model * model = nullptr;
        const nr_huge_pages huge;
        if (params->n_paths == 1) {
            model = llama_model_load_from_file(params->paths[0], p);
        } else {
            std::vector<const char *> paths(params->paths, params->paths + params->n_paths);
            model = llama_model_load_from_splits(paths.data(), paths.size(), p);
        }
        if (model == nullptr) {
            nr_fail(err, NR_LOAD, "llama.cpp could not load the file");
            return nullptr;
        }
        out->model = model;
        out->vocab = llama_model_get_vocab(model);
        out->n_vocab = llama_vocab_n_tokens(out->vocab);
        return out.release();
    });
}

void nr_model_free(nr_model * model) {
    if (model != nullptr) {
        llama_model_free(model->model);
        delete model;
    }
}

void nr_model_get_info(const nr_model * model, nr_model_info * out) {
    const llama_model * m = model->model;
    const llama_vocab * v = model->vocab;
    *out = {};
    out->n_vocab = model->n_vocab;
    out->n_ctx_train = llama_model_n_ctx_train(m);
    out->n_embd = llama_model_n_embd(m);
    out->n_embd_out = llama_model_n_embd_out(m);
    out->n_layer = llama_model_n_layer(m);
    if (out->n_layer > 0) { // upstream aborts for a model of vocabulary only
        out->n_head = llama_model_n_head(m);
        out->n_head_kv = llama_model_n_head_kv(m);
    }
    out->n_swa = llama_model_n_swa(m);
    out->rope_type = llama_model_rope_type(m);
    out->bos = llama_vocab_bos(v);
    out->eos = llama_vocab_eos(v);
    out->eot = llama_vocab_eot(v);
    out->sep = llama_vocab_sep(v);
    out->nl = llama_vocab_nl(v);
    out->pad = llama_vocab_pad(v);
    out->mask = llama_vocab_mask(v);
    out->n_params = llama_model_n_params(m);
    out->size = llama_model_size(m);
    out->add_bos = llama_vocab_get_add_bos(v);
    out->add_eos = llama_vocab_get_add_eos(v);
    out->has_encoder = llama_model_has_encoder(m);
    out->has_decoder = llama_model_has_decoder(m);
    out->recurrent = llama_model_is_recurrent(m);
    out->hybrid = llama_model_is_hybrid(m);
    out->diffusion = llama_model_is_diffusion(m);
    llama_model_desc(m, out->description, sizeof(out->description));
}

int32_t nr_model_meta(const nr_model * model, const char * key, char * buf, size_t size) {
    return llama_model_meta_val_str(model->model, key, buf, size);
}

int32_t nr_tokenize(const nr_model * model, const char * text, int32_t size, int32_t * tokens,
                    int32_t capacity, bool add_special, bool parse_special) {
    return nr_guard<int32_t>(nullptr, NR_INTERNAL, INT32_MIN, [&] {
        return llama_tokenize(model->vocab, text, size, tokens, capacity, add_special,
                              parse_special);
    });
}

int32_t nr_piece(const nr_model * model, int32_t token, char * buf, int32_t size, bool special) {
    return nr_guard<int32_t>(nullptr, NR_INTERNAL, 0, [&] {
        return llama_token_to_piece(model->vocab, token, buf, size, 0, special);
    });
}

int32_t nr_detokenize(const nr_model * model, const int32_t * tokens, int32_t n_tokens,
                      char * buf, int32_t size, bool remove_special, bool special) {
    return nr_guard<int32_t>(nullptr, NR_INTERNAL, 0, [&] {
        return llama_detokenize(model->vocab, tokens, n_tokens, buf, size, remove_special,
                                special);
    });
}

int32_t nr_token_attr(const nr_model * model, int32_t token) {
    return llama_vocab_get_attr(model->vocab, token);
}

bool nr_token_eog(const nr_model * model, int32_t token) {
    return llama_vocab_is_eog(model->vocab, token);
}

struct nr_lora {
    llama_adapter_lora * adapter = nullptr;
};

nr_lora * nr_lora_load(nr_model * model, const char * path, nr_error * err) {
    return nr_guard<nr_lora *>(err, NR_LOAD, nullptr, [&]() -> nr_lora * {
        auto out = std::make_unique<nr_lora>();
        out->adapter = llama_adapter_lora_init(model->model, path);
        if (out->adapter == nullptr) {
            nr_fail(err, NR_LOAD, "llama.cpp could not load the adapter");
            return nullptr;
        }
        return out.release();
    });
}

void nr_lora_free(nr_lora * lora) {
    if (lora != nullptr) {
        llama_adapter_lora_free(lora->adapter);
        delete lora;
    }
}

bool nr_context_set_loras(nr_context * ctx, nr_lora ** loras, float * scales, size_t n) {
    std::vector<llama_adapter_lora *> adapters;
    for (size_t i = 0; i < n; i++) {
        adapters.push_back(loras[i]->adapter);
    }
    return llama_set_adapters_lora(ctx->ctx, adapters.data(), n, scales) == 0;
}
