// budget.cpp counts what a bounded call uses. It replaces the global operator new and delete of
// the process; outside a bounded call they only look at one thread-local pointer.
#include "budget.h"

#include <pthread.h>

#if defined(__APPLE__)
#include <malloc/malloc.h>
#elif defined(__FreeBSD__)
#include <malloc_np.h>
#else
#include <malloc.h>
#endif

namespace {

struct over_budget : std::bad_alloc {
    const char * reason;
    explicit over_budget(const char * text) : reason(text) {}
    const char * what() const noexcept override { return reason; }
};

struct budget {
    const char * stack = nullptr; // where the thread's stack begins
    int64_t live = 0;             // bytes
    uint64_t count = 0;
    std::chrono::steady_clock::time_point deadline;
    const char * spent = nullptr; // the reason, once a limit was met
    int64_t left = INT64_MAX;     // allocations until one fails, for tests

    void charge(size_t size);
};

thread_local budget * active = nullptr;

size_t block_size(void * p) {
#if defined(__APPLE__)
    return malloc_size(p);
#elif defined(_WIN32)
    return _msize(p);
#else
    return malloc_usable_size(p);
#endif
}

void budget::charge(size_t size) {
    if (left-- == 0) {
        throw std::bad_alloc();
    }
    const char * here = static_cast<const char *>(__builtin_frame_address(0));
    size_t depth = here < stack ? static_cast<size_t>(stack - here) : 0;
    if (spent == nullptr) {
        if (depth > nr_recursion_bytes) {
            spent = "it recurses without end";
        } else if (live + static_cast<int64_t>(size) > nr_memory_bytes || size > nr_memory_bytes) {
            spent = "it uses too much memory";
        } else if (++count % 256 == 0 && std::chrono::steady_clock::now() > deadline) {
            spent = "it takes too long";
        }
    }
    // Destructors that run on the way out may allocate, as those of JSON values do: a second
    // exception there would end the process.
    if (spent != nullptr && std::uncaught_exceptions() == 0) {
        throw over_budget(spent);
    }
}

void * allocate(size_t size) {
    if (active != nullptr) {
        active->charge(size);
    }
    void * p = std::malloc(size == 0 ? 1 : size);
    while (p == nullptr) {
        std::new_handler handler = std::get_new_handler();
        if (handler == nullptr) {
            throw std::bad_alloc();
        }
        handler();
        p = std::malloc(size == 0 ? 1 : size);
    }
    if (active != nullptr) {
        active->live += static_cast<int64_t>(block_size(p));
    }
    return p;
}

void release(void * p) noexcept {
    if (p != nullptr && active != nullptr) {
        active->live -= static_cast<int64_t>(block_size(p));
    }
    std::free(p);
}

struct job {
    const std::function<void()> & fn;
    nr_error * err;
    int32_t code;
    budget limits;
    bool done = false;
};

void run(job & j) {
    j.done = nr_guard<bool>(j.err, j.code, false, [&] {
        try {
            j.fn();
        } catch (const nr_coded & e) {
            active = nullptr;
            nr_fail(j.err, e.code, e.what());
            return false;
        }
        return true;
    });
}

void * enter(void * arg) {
    job & j = *static_cast<job *>(arg);
    j.limits.stack = static_cast<const char *>(__builtin_frame_address(0));
    j.limits.deadline = std::chrono::steady_clock::now() + nr_time_limit;
    active = &j.limits;
    run(j);
    active = nullptr;
    if (!j.done && j.limits.spent != nullptr) {
        nr_fail(j.err, j.code, j.limits.spent);
    }
    return nullptr;
}

} // namespace

bool nr_bounded(nr_error * err, int32_t code, const std::function<void()> & fn) {
    job j = {fn, err, code, {}};
    nr_clear(err);
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, nr_stack_bytes);
    int rc = pthread_create(&thread, &attr, enter, &j);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        nr_fail(err, NR_MEMORY, "no thread to run on");
        return false;
    }
    pthread_join(thread, nullptr);
    return j.done;
}

void nr_test_fail_alloc(int64_t n) {
    static thread_local budget counted;
    counted = {};
    counted.deadline = std::chrono::steady_clock::time_point::max();
    counted.left = n;
    active = n < 0 ? nullptr : &counted;
}

// All forms are replaced, since the address sanitizer brings its own of each.
void * operator new(std::size_t size) { return allocate(size); }

void * operator new[](std::size_t size) { return allocate(size); }

void * operator new(std::size_t size, const std::nothrow_t &) noexcept {
    try {
        return allocate(size);
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

void * operator new[](std::size_t size, const std::nothrow_t & tag) noexcept {
    return operator new(size, tag);
}

void operator delete(void * p) noexcept { release(p); }

void operator delete[](void * p) noexcept { release(p); }

void operator delete(void * p, std::size_t) noexcept { release(p); }

void operator delete[](void * p, std::size_t) noexcept { release(p); }

void operator delete(void * p, const std::nothrow_t &) noexcept { release(p); }

void operator delete[](void * p, const std::nothrow_t &) noexcept { release(p); }
