// budget.h bounds a call into code that works on untrusted text: llama.cpp's template engine,
// parsers and schema converter have no limit of their own on time, memory or recursion.
//
// A bounded call runs on a thread of its own. While it runs, every allocation of that thread is
// counted, and one that goes over a limit throws. The template engine allocates at each step, so
// an endless loop, a huge string and endless recursion all end there. Recursion that allocates
// nothing, as of destructors over a deep value, is as deep as the value, whose levels take memory:
// so the stack is as large as the memory that a call may use. It is address space, not memory.
//
// What no limit here sees: a template that puts a value into itself and asks for its JSON makes
// upstream recurse without end while it looks for the template's abilities. That ends the process.
#pragma once

#include "internal.h"

#include <chrono>
#include <functional>
#include <stdexcept>

constexpr int64_t nr_memory_bytes = int64_t{256} << 20;
constexpr size_t nr_stack_bytes = size_t{256} << 20;
constexpr size_t nr_recursion_bytes = size_t{8} << 20; // of the stack, while allocating
constexpr std::chrono::seconds nr_time_limit{10};

// An error that names its own code.
struct nr_coded : std::runtime_error {
    int32_t code;
    nr_coded(int32_t c, const std::string & text) : std::runtime_error(text), code(c) {}
};

// nr_bounded runs fn within the limits and turns every exception into an error; code is that of
// an exception which names none. The result says whether fn returned.
bool nr_bounded(nr_error * err, int32_t code, const std::function<void()> & fn);
