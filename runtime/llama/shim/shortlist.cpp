#include "shortlist.h"

#include "common.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace {

constexpr size_t biased_max = 128;  // the chain searches the list for each
constexpr size_t history_max = 1024;
constexpr int32_t top_max = 1024;
constexpr int block = 32; // logits looked at together
constexpr float infinity = std::numeric_limits<float>::infinity();

// above says whether any of a block is larger; written so that it becomes vector instructions.
bool above(const float * at, float bar) {
    int any = 0;
    for (int j = 0; j < block; j++) {
        any |= at[j] > bar ? 1 : 0;
    }
    return any != 0;
}

// top_of is how many of the largest a chain looks at, 0 where that is not a number of them.
size_t top_of(const common_params_sampling & p) {
    if (p.top_k > 0) {
        return p.top_k <= top_max ? static_cast<size_t>(p.top_k) : 0;
    }
    bool xtc = p.xtc_probability > 0.0f && p.xtc_threshold <= 0.5f;
    bool cuts = p.typ_p < 1.0f || p.top_p < 1.0f || p.min_p > 0.0f;
    return p.temp <= 0.0f && p.dynatemp_range <= 0.0f && !xtc && !cuts ? 1 : 0;
}

} // namespace

bool nr_shortlist::set(const common_params_sampling & p, const llama_vocab * vocab,
                       int32_t n_vocab) {
    n_vocab_ = n_vocab;
    if (p.mirostat != 0 || p.top_n_sigma > 0.0f) {
        return false;
    }
    top_ = top_of(p);
    bool near = p.top_k <= 0 && p.typ_p >= 1.0f && p.top_p >= 1.0f && p.min_p > 0.0f &&
                p.min_p <= 1.0f;
    if (near) {
        top_ = 0;
        below_ = logf(p.min_p);
    } else if (top_ == 0 || top_ > static_cast<size_t>(n_vocab)) {
        return false;
    }
    return set_touched(p, vocab);
}

// set_touched notes whose logits the chain changes before it cuts.
bool nr_shortlist::set_touched(const common_params_sampling & p, const llama_vocab * vocab) {
    for (const auto & bias : p.logit_bias) {
        biased_.push_back(bias.token);
    }
    int32_t n = 0;
    const llama_token * suppressed = llama_vocab_get_suppress_tokens(vocab, &n);
    biased_.insert(biased_.end(), suppressed, suppressed + n);
    std::sort(biased_.begin(), biased_.end());
    if (biased_.size() > biased_max ||
        std::adjacent_find(biased_.begin(), biased_.end()) != biased_.end()) {
        return false; // a bias given twice is added twice only while the list is whole
    }
    if (p.penalty_repeat != 1.0f || p.penalty_freq != 0.0f || p.penalty_present != 0.0f) {
        history_max_ = static_cast<size_t>(std::max(p.penalty_last_n, 0));
    }
    if (p.dry_multiplier != 0.0f && p.dry_base >= 1.0f) {
        const int32_t last = std::max(p.dry_penalty_last_n, 0);
        history_max_ = std::max(history_max_, static_cast<size_t>(last));
    }
    if (history_max_ > history_max) {
        return false;
    }
    history_.reserve(history_max_);
    touched_.reserve(biased_.size() + history_max_);
    kept_.reserve(biased_.size() + history_max_);
    return true;
}

void nr_shortlist::accept(llama_token id) {
    if (history_.size() < history_max_) {
        history_.push_back(id);
    } else if (history_max_ > 0) {
        history_[history_next_] = id;
        history_next_ = (history_next_ + 1) % history_max_;
    }
}

void nr_shortlist::add(const float * logits, int32_t id) {
    list_.push_back({id, logits[id], 0.0f});
}

// mark lets a token pass every bar and be none itself.
void nr_shortlist::mark(float * logits, llama_token id) {
    touched_.push_back(id);
    kept_.push_back(logits[id]);
    logits[id] = infinity;
}

llama_token_data_array nr_shortlist::collect(float * logits) {
    list_.clear();
    touched_.clear();
    kept_.clear();
    for (llama_token id : biased_) {
        mark(logits, id);
    }
    for (llama_token id : history_) {
        mark(logits, id);
    }
    struct restore { // also when a list cannot grow
        nr_shortlist * s;
        float * logits;
        ~restore() {
            for (size_t i = s->kept_.size(); i-- > 0;) { // marked twice: the first was the true one
                logits[s->touched_[i]] = s->kept_[i];
            }
        }
    };
    {
        restore after{this, logits};
        top_ > 0 ? collect_top(logits) : collect_near(logits);
    }
    auto before = [](const llama_token_data & c, llama_token id) { return c.id < id; };
    for (llama_token id : touched_) {
        std::lower_bound(list_.begin(), list_.end(), id, before)->logit = logits[id];
    }
    return {list_.data(), list_.size(), -1, false};
}

llama_token_data_array nr_shortlist::all(const float * logits) {
    list_.clear();
    for (int32_t i = 0; i < n_vocab_; i++) {
        add(logits, i);
    }
    return {list_.data(), list_.size(), -1, false};
}

// collect_top keeps what is larger than the k-th largest so far. The bar lags behind, which lets
// more pass and changes nothing.
void nr_shortlist::collect_top(const float * logits) {
    best_.clear();
    int32_t i = 0;
    for (; i < n_vocab_ && best_.size() < top_; i++) {
        add(logits, i);
        if (logits[i] < infinity) {
            best_.push_back(logits[i]);
        }
    }
    if (best_.empty()) {
        return;
    }
    float bar = *std::min_element(best_.begin(), best_.end());
    auto look = [&](int32_t id) {
        if (!(logits[id] > bar)) {
            return;
        }
        add(logits, id);
        if (!(logits[id] < infinity)) {
            return;
        }
        best_.push_back(logits[id]);
        if (best_.size() >= 2 * top_) {
            auto last = best_.begin() + static_cast<ptrdiff_t>(top_) - 1;
            std::nth_element(best_.begin(), last, best_.end(), std::greater<float>());
            best_.resize(top_);
            bar = best_.back();
        }
    };
    for (; i + block <= n_vocab_; i += block) {
        if (above(logits + i, bar)) {
            for (int j = 0; j < block; j++) {
                look(i + j);
            }
        }
    }
    for (; i < n_vocab_; i++) {
        look(i);
    }
}

// collect_near keeps what is not too far below the largest that nothing touches.
void nr_shortlist::collect_near(const float * logits) {
    float lanes[block];
    std::fill(lanes, lanes + block, -infinity);
    int32_t i = 0;
    for (; i + block <= n_vocab_; i += block) {
        for (int j = 0; j < block; j++) {
            float v = logits[i + j] < infinity ? logits[i + j] : -infinity;
            lanes[j] = v > lanes[j] ? v : lanes[j];
        }
    }
    float largest = *std::max_element(lanes, lanes + block);
    for (; i < n_vocab_; i++) {
        largest = logits[i] < infinity && logits[i] > largest ? logits[i] : largest;
    }
    const float bar = std::nextafter(largest + below_, -infinity); // so that equal passes too
    for (i = 0; i + block <= n_vocab_; i += block) {
        if (above(logits + i, bar)) {
            for (int j = 0; j < block; j++) {
                if (logits[i + j] > bar) {
                    add(logits, i + j);
                }
            }
        }
    }
    for (; i < n_vocab_; i++) {
        if (logits[i] > bar) {
            add(logits, i);
        }
    }
}
