// budget.h bounds a call into code that works on untrusted text: llama.cpp's template engine,
// parsers and schema converter have no limit of their own on time, memory or recursion.
//
// A bounded call runs on a thread with a stack of known size. While it runs, every allocation of
// that thread is counted, and one that goes over a limit throws. The template engine allocates at
// each step, so an endless loop, a huge string and endless recursion all end there. A loop that
// neither allocates nor recurses is not seen; upstream has none whose length a text can choose
// freely, save searches in long strings, which the memory limit keeps short.
#pragma once

#include "internal.h"

#include <chrono>
#include <functional>
#include <stdexcept>

constexpr size_t nr_stack_bytes = size_t{64} << 20;
constexpr size_t nr_stack_spare = size_t{2} << 20;
constexpr int64_t nr_memory_bytes = int64_t{1} << 30;
constexpr std::chrono::seconds nr_time_limit{20};

// An error that names its own code.
struct nr_coded : std::runtime_error {
    int32_t code;
    nr_coded(int32_t c, const std::string & text) : std::runtime_error(text), code(c) {}
};

// nr_bounded runs fn within the limits and turns every exception into an error; code is that of
// an exception which names none. The result says whether fn returned.
bool nr_bounded(nr_error * err, int32_t code, const std::function<void()> & fn);
