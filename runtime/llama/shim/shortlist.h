// shortlist.h finds the few candidates of a vocabulary that a chain of samplers can still choose
// from, so that the chain never sees, copies or sorts the others.
#pragma once

#include "llama.h"

#include <cstdint>
#include <vector>

struct common_params_sampling;

// nr_shortlist leaves out only candidates that the chain would drop without any effect on the
// rest, and keeps the order of the vocabulary. So upstream's chain chooses from the short list
// what it would choose from the whole vocabulary, bit for bit: in top-k a candidate that is no
// larger than k earlier ones never enters the heap, and min-p on a list that is not sorted is
// itself one comparison. Tokens whose logit the chain changes first (bias, penalties, DRY) stay
// on the list, and no other is measured by them.
class nr_shortlist {
public:
    // Sets the rule for a chain over n_vocab tokens. False means that the chain needs them all.
    bool set(const common_params_sampling & p, const llama_vocab * vocab, int32_t n_vocab);
    void accept(llama_token id); // before a penalty looks back at it
    // The candidates of these logits; they are changed meanwhile and put back.
    llama_token_data_array collect(float * logits);
    llama_token_data_array all(const float * logits); // every token

private:
    bool set_touched(const common_params_sampling & p, const llama_vocab * vocab);
    void collect_top(const float * logits);
    void collect_near(const float * logits);
    void add(const float * logits, int32_t id);
    void mark(float * logits, llama_token id);

    int32_t n_vocab_ = 0;
    size_t top_ = 0;       // this many largest, or ...
    float below_ = 0.0f;   // ... what is at most so far below the largest (0 or less)
    std::vector<llama_token> biased_;
    std::vector<llama_token> history_; // a ring of the tokens that penalties look back at
    size_t history_max_ = 0, history_next_ = 0;
    std::vector<llama_token> touched_; // biased and history, while a list is collected ...
    std::vector<float> kept_;          // ... and their logits
    std::vector<float> best_;          // the largest so far that nothing touches
    std::vector<llama_token_data> list_;
};
