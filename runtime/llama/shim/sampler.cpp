// sampler.cpp chooses tokens. It wraps upstream's common sampler, which checks a grammar against
// the chosen token first and against the whole vocabulary only on a miss. It takes the greedy
// choice in one pass over the logits where nothing else is asked for, and gives the chain a short
// list instead of the vocabulary where it chooses the same from it.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // in <regex>, with the address sanitizer
#endif

#include "internal.h"
#include "shortlist.h"

#include "common.h"
#include "llama-grammar.h"
#include "sampling.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <regex>
#include <stdexcept>

struct nr_sampler {
    const nr_model * model;
    common_sampler * chain;              // NULL when greedy and the first of the largest is it
    bool greedy;                         // the largest logit is the choice
    std::vector<llama_token> suppressed; // never chosen when greedy
    std::vector<float> kept;             // their logits, while the others are compared
    bool left;                           // a token left the grammar: nothing can follow it
    llama_sampler * grammar;             // when brief: the chain has none then
    bool brief;                          // the short list is all that the chain needs
    nr_shortlist shortlist;
};

namespace {

// check_grammar parses a grammar the way upstream does, but keeps the reason: upstream prints it
// to the terminal and forgets it. prefill are the tokens that the grammar will be shown.
void check_grammar(const llama_vocab * vocab, const char * text, const llama_tokens & prefill) {
    llama_grammar_parser parser(vocab);
    const char * pos = text;
    while (*pos != '\0' && std::strchr(" \t\r\n#", *pos) != nullptr) {
        pos += *pos == '#' ? std::strcspn(pos, "\r\n") : 1;
    }
    while (*pos != '\0') {
        pos = parser.parse_rule(pos);
    }
    for (const auto & [name, id] : parser.symbol_ids) {
        if (id >= parser.rules.size() || parser.rules[id].empty()) {
            throw std::runtime_error("rule '" + name + "' is used but not defined");
        }
    }
    if (parser.symbol_ids.count("root") == 0) {
        throw std::runtime_error("there is no rule named 'root'");
    }
    std::unique_ptr<llama_sampler, void (*)(llama_sampler *)> grammar(
        llama_sampler_init_grammar(vocab, text, "root"), llama_sampler_free);
    if (grammar == nullptr) {
        throw std::runtime_error("a rule calls itself before it reads anything (left recursion)");
    }
    for (llama_token id : prefill) {
        if (llama_vocab_is_eog(vocab, id)) { // upstream aborts where it comes too early
            throw std::runtime_error("the generation prompt holds an end token");
        }
        llama_sampler_accept(grammar.get(), id);
    }
}

// prefill_of is what upstream shows the grammar of a generation prompt.
llama_tokens prefill_of(const llama_vocab * vocab, const nr_sampler_params & p) {
    if (p.generation_prompt == nullptr || !p.grammar_prefill || p.grammar_lazy) {
        return {};
    }
    llama_tokens tokens = common_tokenize(vocab, p.generation_prompt, false, true);
    auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
    if (!tokens.empty() && space(common_token_to_piece(vocab, tokens[0], true)[0]) &&
        !space(p.generation_prompt[0])) {
        tokens.erase(tokens.begin());
    }
    return tokens;
}

// check_trigger compiles a pattern as upstream will: it throws where that would.
void check_trigger(const common_grammar_trigger & trigger) {
    if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN ||
        trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL) {
        std::regex compiled(trigger.value);
    }
}

// set_grammar checks everything first, since upstream leaks what it has built when it throws.
void set_grammar(const nr_model * model, const nr_sampler_params & p,
                 common_params_sampling & out) {
    check_grammar(model->vocab, p.grammar, prefill_of(model->vocab, p));
    out.grammar = common_grammar(
        p.grammar_prefill ? COMMON_GRAMMAR_TYPE_TOOL_CALLS : COMMON_GRAMMAR_TYPE_USER, p.grammar);
    out.grammar_lazy = p.grammar_lazy;
    for (int32_t i = 0; i < p.n_triggers; i++) {
        common_grammar_trigger trigger;
        trigger.type = static_cast<common_grammar_trigger_type>(p.trigger_types[i]);
        trigger.value = p.trigger_values[i];
        trigger.token = p.trigger_tokens[i];
        check_trigger(trigger);
        out.grammar_triggers.push_back(trigger);
    }
    for (int32_t i = 0; i < p.n_preserved; i++) {
        out.preserved_tokens.insert(p.preserved[i]);
    }
}

// pattern_of is the expression that upstream makes of a trigger.
std::string pattern_of(const common_grammar_trigger & trigger) {
    const std::string & text = trigger.value;
    if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD) {
        return regex_escape(text);
    }
    if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL) {
        return text.empty() ? "^$"
                            : (text.front() != '^' ? "^" : "") + text +
                                  (text.back() != '$' ? "$" : "");
    }
    return text;
}

// make_grammar is the grammar as upstream's chain would hold it, already checked.
llama_sampler * make_grammar(const llama_vocab * vocab, const common_params_sampling & p,
                             const llama_tokens & prefill) {
    std::vector<std::string> patterns;
    std::vector<llama_token> tokens;
    for (const auto & trigger : p.grammar_triggers) {
        if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN) {
            tokens.push_back(trigger.token);
        } else {
            patterns.push_back(pattern_of(trigger));
        }
    }
    std::vector<const char *> texts;
    for (const std::string & pattern : patterns) {
        texts.push_back(pattern.c_str());
    }
    const char * text = p.grammar.grammar.c_str();
    std::unique_ptr<llama_sampler, void (*)(llama_sampler *)> out(
        p.grammar_lazy
            ? llama_sampler_init_grammar_lazy_patterns(vocab, text, "root", texts.data(),
                                                       texts.size(), tokens.data(), tokens.size())
            : llama_sampler_init_grammar(vocab, text, "root"),
        llama_sampler_free);
    if (out == nullptr) {
        throw std::runtime_error("the grammar cannot be used");
    }
    for (llama_token id : prefill) {
        llama_sampler_accept(out.get(), id);
    }
    return out.release();
}

common_params_sampling convert(const nr_model * model, const nr_sampler_params & p) {
    common_params_sampling out;
    out.seed = p.seed;
    out.temp = p.temperature;
    out.dynatemp_range = p.dynatemp_range;
    out.dynatemp_exponent = p.dynatemp_exponent;
    out.top_k = p.top_k;
    out.top_p = p.top_p;
    out.min_p = p.min_p;
    out.typ_p = p.typical_p;
    out.top_n_sigma = p.top_n_sigma;
    out.xtc_probability = p.xtc_probability;
    out.xtc_threshold = p.xtc_threshold;
    out.penalty_last_n = p.penalty_last_n;
    out.penalty_repeat = p.penalty_repeat;
    out.penalty_freq = p.penalty_frequency;
    out.penalty_present = p.penalty_presence;
    out.dry_multiplier = p.dry_multiplier;
    out.dry_base = p.dry_base;
    out.dry_allowed_length = p.dry_allowed_length;
    out.dry_penalty_last_n = p.dry_last_n;
    if (p.n_dry_breakers > 0) {
        out.dry_sequence_breakers.assign(p.dry_breakers, p.dry_breakers + p.n_dry_breakers);
    }
    out.mirostat = p.mirostat;
    out.mirostat_tau = p.mirostat_tau;
    out.mirostat_eta = p.mirostat_eta;
    out.no_perf = true;
    for (int32_t i = 0; i < p.n_bias; i++) {
        out.logit_bias.push_back({p.bias[i].token, p.bias[i].bias});
    }
    for (llama_token id = 0; p.ignore_eos && id < model->n_vocab; id++) {
        if (llama_vocab_is_eog(model->vocab, id)) {
            out.logit_bias.push_back({id, -INFINITY});
        }
    }
    if (p.generation_prompt != nullptr) {
        out.generation_prompt = p.generation_prompt;
    }
    if (p.grammar != nullptr) {
        set_grammar(model, p, out);
    }
    return out;
}

// plain says that the largest logit is the choice, whatever else the chain cuts off.
bool plain(const common_params_sampling & p) {
    return p.temp <= 0.0f && p.dynatemp_range <= 0.0f && p.mirostat == 0 && p.grammar.empty() &&
           p.penalty_repeat == 1.0f && p.penalty_freq == 0.0f && p.penalty_present == 0.0f &&
           p.dry_multiplier == 0.0f && p.xtc_probability == 0.0f && p.typ_p >= 1.0f;
}

// sorts says that of several largest logits the chain need not take the first.
bool sorts(const common_params_sampling & p) { return p.top_k > 0 || p.top_p < 1.0f; }

// suppressible collects the banned tokens, and says whether bans are all the biases there are.
bool suppressible(const nr_model * model, const common_params_sampling & p,
                  std::vector<llama_token> & out) {
    for (const auto & bias : p.logit_bias) {
        if (bias.bias != -INFINITY) {
            return false;
        }
        out.push_back(bias.token);
    }
    int32_t n = 0;
    const llama_token * tokens = llama_vocab_get_suppress_tokens(model->vocab, &n);
    out.insert(out.end(), tokens, tokens + n);
    return true;
}

constexpr int lanes = 32; // numbers looked at together, to keep the vector units busy

// first returns the place of the first of the numbers that equals v, or end.
const float * first(const float * begin, const float * end, float v) {
    for (; end - begin >= lanes; begin += lanes) {
        int any = 0;
        for (int j = 0; j < lanes; j++) {
            any |= begin[j] == v ? 1 : 0;
        }
        if (any != 0) {
            break;
        }
    }
    return std::find(begin, end, v);
}

// largest returns the first place of the largest of the numbers, or end where there is none.
const float * largest(const float * begin, const float * end) {
    float max[lanes];
    std::fill(max, max + lanes, -INFINITY);
    const float * at = begin;
    for (; end - at >= lanes; at += lanes) {
        for (int j = 0; j < lanes; j++) {
            max[j] = at[j] > max[j] ? at[j] : max[j];
        }
    }
    float most = *std::max_element(max, max + lanes);
    for (; at < end; at++) {
        most = *at > most ? *at : most;
    }
    return most == -INFINITY ? end : first(begin, end, most);
}

// greedy takes the banned tokens out, chooses, and puts them back: others read the logits too.
// It is -1 where the chain must choose between several that are largest.
llama_token greedy(nr_sampler * s, float * logits) {
    s->kept.clear();
    for (llama_token id : s->suppressed) {
        s->kept.push_back(logits[id]);
        logits[id] = -INFINITY;
    }
    const float * end = logits + s->model->n_vocab;
    const float * best = largest(logits, end);
    const bool tied = best != end && s->chain != nullptr && first(best + 1, end, *best) != end;
    for (size_t i = s->kept.size(); i-- > 0;) { // a token may be named twice: the first is true
        logits[s->suppressed[i]] = s->kept[i];
    }
    if (best == end) {
        throw std::runtime_error("every token is banned");
    }
    return tied ? -1 : static_cast<llama_token>(best - logits);
}

// check_left keeps upstream from asserting on a grammar that has nowhere to go.
void check_left(const nr_sampler * s) {
    if (s->left) {
        throw std::runtime_error("an earlier token left the grammar");
    }
}

// accept tells the chain. A grammar need not see the end, and upstream aborts where it sees it
// too early.
void accept(nr_sampler * s, llama_token id, bool generated) {
    check_left(s);
    s->left = true; // unless the next lines return
    const bool output = generated && !llama_vocab_is_eog(s->model->vocab, id);
    if (s->grammar != nullptr && output) {
        llama_sampler_accept(s->grammar, id);
    }
    common_sampler_accept(s->chain, id, output);
    s->left = false;
    if (s->brief) {
        s->shortlist.accept(id);
    }
}

// fits says whether a grammar allows what was chosen, if anything was.
bool fits(llama_sampler * grammar, const llama_token_data_array & list) {
    if (list.selected < 0) {
        return true;
    }
    llama_token_data one = {list.data[list.selected].id, 1.0f, 0.0f};
    llama_token_data_array only = {&one, 1, -1, false};
    llama_sampler_apply(grammar, &only);
    return one.logit != -INFINITY;
}

// run lets the chain choose, as upstream's sampler does: with the grammar only when what it chose
// without does not fit. It returns what it chose from.
llama_token_data_array run(nr_sampler * s, nr_context * ctx, int32_t place, float * logits) {
    if (!s->brief) {
        common_sampler_sample(s->chain, ctx->ctx, place);
        return *common_sampler_get_candidates(s->chain, false);
    }
    llama_sampler * chain = common_sampler_get(s->chain);
    llama_token_data_array list = s->shortlist.collect(logits);
    if (list.size > 0) {
        llama_sampler_apply(chain, &list);
    }
    if (s->grammar == nullptr || fits(s->grammar, list)) {
        return list;
    }
    list = s->shortlist.all(logits);
    llama_sampler_apply(s->grammar, &list);
    llama_sampler_apply(chain, &list);
    return list;
}

llama_token choose(nr_sampler * s, nr_context * ctx, int32_t place) {
    float * logits = llama_get_logits_ith(ctx->ctx, place); // the chain would assert on NULL
    if (logits == nullptr) {
        throw std::runtime_error("there are no logits at this place");
    }
    if (s->greedy) {
        const llama_token id = greedy(s, logits);
        if (id >= 0) {
            return id; // a chain that is greedy has no history
        }
    }
    check_left(s);
    const llama_token_data_array cur = run(s, ctx, place, logits);
    if (cur.selected < 0 || !(cur.data[cur.selected].logit > -INFINITY)) {
        throw std::runtime_error("every token is banned"); // the chain takes one all the same
    }
    const llama_token id = cur.data[cur.selected].id;
    accept(s, id, true);
    return id;
}

} // namespace

nr_sampler * nr_sampler_new(const nr_model * model, const nr_sampler_params * params,
                            nr_error * err) {
    int32_t code = params->grammar != nullptr ? NR_GRAMMAR : NR_INVALID;
    return nr_guard<nr_sampler *>(err, code, nullptr, [&] {
        common_params_sampling p = convert(model, *params);
        nr_sampler s = {};
        s.model = model;
        s.greedy = !params->whole && plain(p) && suppressible(model, p, s.suppressed);
        s.kept.reserve(s.suppressed.size());
        const bool chained = !s.greedy || sorts(p);
        s.brief = chained && !params->whole && s.shortlist.set(p, model->vocab, model->n_vocab);
        std::unique_ptr<nr_sampler, void (*)(nr_sampler *)> out(new nr_sampler(std::move(s)),
                                                                nr_sampler_free);
        if (out->brief && !p.grammar.empty()) {
            out->grammar = make_grammar(model->vocab, p, prefill_of(model->vocab, *params));
            p.grammar = common_grammar();
            p.grammar_triggers.clear();
        }
        if (chained) {
            out->chain = common_sampler_init(model->model, p);
        }
        return out.release();
    });
}

void nr_sampler_free(nr_sampler * sampler) {
    if (sampler != nullptr) {
        common_sampler_free(sampler->chain);
        llama_sampler_free(sampler->grammar);
        delete sampler;
    }
}

int32_t nr_sampler_sample(nr_sampler * sampler, nr_context * ctx, int32_t place,
                          nr_error * err) {
    return nr_guard<int32_t>(err, NR_GRAMMAR, -1, [&] {
        return choose(sampler, ctx, place);
    });
}

int32_t nr_sampler_accept(nr_sampler * sampler, int32_t token, bool generated, nr_error * err) {
    return nr_guard<int32_t>(err, NR_GRAMMAR, NR_GRAMMAR, [&] {
        if (sampler->chain != nullptr) {
            accept(sampler, token, generated);
        }
        return static_cast<int32_t>(NR_OK);
    });
}

uint32_t nr_sampler_seed(const nr_sampler * sampler) {
    return sampler->greedy ? 0 : common_sampler_get_seed(sampler->chain);
}

bool nr_sampler_brief(const nr_sampler * sampler) {
    return sampler->greedy || sampler->brief;
}
