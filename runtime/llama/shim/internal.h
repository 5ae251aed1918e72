// internal.h is shared by the shim's C++ files and by nothing else.
#pragma once

#include "norion.h"

#include "llama.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

struct nr_model {
    llama_model * model = nullptr;
    const llama_vocab * vocab = nullptr;
    int32_t n_vocab = 0;
};

struct nr_context {
    llama_context * ctx = nullptr;
    const nr_model * model = nullptr;
    llama_batch batch = {};
    std::vector<int32_t> seq;              // [n_batch], what batch.seq_id points into
    std::vector<llama_seq_id *> seq_ids;   // [n_batch]
    std::vector<int32_t> n_seq_ids;        // [n_batch], all 1
    std::vector<nr_pick> picks;            // as many as were asked for at once
    std::atomic<bool> abort{false};
    bool moved = false;   // cells were copied or moved, but not yet what they hold
    bool settling = false; // the abort flag waits meanwhile
};

// nr_settle does the copies and moves that upstream puts off until the next decode. Upstream
// forgets them when it reads or writes the state of a sequence, and does a half of a move twice
// when it is aborted in one. It throws what upstream throws.
void nr_settle(nr_context * ctx);

// While one lives, large buffers that its thread allocates lie in huge pages where there are any.
struct nr_huge_pages {
    nr_huge_pages();
    ~nr_huge_pages();
    nr_huge_pages(const nr_huge_pages &) = delete;
    nr_huge_pages & operator=(const nr_huge_pages &) = delete;
};

inline void nr_fail(nr_error * err, int32_t code, const char * text) {
    if (err != nullptr) {
        err->code = code;
        std::snprintf(err->text, sizeof(err->text), "%s", text);
    }
}

inline void nr_clear(nr_error * err) {
    if (err != nullptr) {
        err->code = NR_OK;
        err->text[0] = '\0';
    }
}

// nr_guard runs fn and turns every exception into an error of the given code.
template <typename T, typename F>
T nr_guard(nr_error * err, int32_t code, T failed, F && fn) {
    nr_clear(err);
    try {
        return fn();
    } catch (const std::bad_alloc &) {
        nr_fail(err, NR_MEMORY, "out of memory");
    } catch (const std::exception & e) {
        nr_fail(err, code, e.what());
    } catch (...) {
        nr_fail(err, code, "unknown exception");
    }
    return failed;
}

// nr_make_text copies s into memory that nr_text_free frees.
inline nr_text nr_make_text(const std::string & s) {
    nr_text text = {static_cast<char *>(std::malloc(s.size() + 1)), s.size()};
    if (text.data == nullptr) {
        throw std::bad_alloc();
    }
    std::memcpy(text.data, s.c_str(), s.size() + 1);
    return text;
}
