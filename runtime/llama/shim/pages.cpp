// pages.cpp lets weights lie in huge pages. Decoding reads every weight for every token, and with
// pages of 4 KiB a good part of that time goes into address translation. Other buffers are left
// alone: of those for computing, only a part is ever touched.
#include "internal.h"

#include <cerrno>
#include <cstdlib>

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#include <sys/mman.h>

namespace {

constexpr size_t huge_page = size_t{2} << 20;
std::atomic<uint64_t> advised{0};
thread_local bool loading = false;

} // namespace

uint64_t nr_huge_bytes(void) { return advised.load(std::memory_order_relaxed); }

nr_huge_pages::nr_huge_pages() { loading = true; }

nr_huge_pages::~nr_huge_pages() { loading = false; }

// ggml takes the memory of all its buffers on the host from posix_memalign, and of its small ones.
// This definition stands in for that of the C library throughout the program. The advice comes
// before the memory is first touched: pages are then huge from the start, and nothing is copied. It
// has no effect where the system keeps huge pages off, or always on.
extern "C" __attribute__((visibility("default"))) int posix_memalign(void ** out, size_t alignment,
                                                                     size_t size) noexcept {
    if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) {
        return EINVAL;
    }
    const int before = errno; // posix_memalign leaves it alone
    const bool large = loading && size >= 2 * huge_page;
    if (large && alignment < huge_page) {
        alignment = huge_page;
    }
    void * memory = aligned_alloc(alignment, size);
    if (memory == nullptr) {
        errno = before;
        return ENOMEM;
    }
    if (large && madvise(memory, size / huge_page * huge_page, MADV_HUGEPAGE) == 0) {
        advised.fetch_add(size, std::memory_order_relaxed);
    }
    errno = before;
    *out = memory;
    return 0;
}

#else

uint64_t nr_huge_bytes(void) { return 0; }

nr_huge_pages::nr_huge_pages() = default;

nr_huge_pages::~nr_huge_pages() = default;

#endif
