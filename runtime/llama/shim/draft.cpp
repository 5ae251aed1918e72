// draft.cpp drafts what may come next from what a sequence has said before, with upstream's table
// from n-grams to the token that followed. The rules around the table are those of upstream's
// own use of it, for one sequence: no draft shorter than a bound, and a new start when a quarter
// of the table is full or when five drafts in a row came true by less than a quarter.
#include "internal.h"
#include "norion_draft.h"

#include "ngram-mod.h"

#include <algorithm>

struct nr_drafter {
    common_ngram_mod table;
    size_t match, min, max;
    std::vector<int32_t> tail; // the last tokens: at least match + 1 once there are so many
    std::vector<int32_t> work; // [match + max], what was seen last and the draft after it
    size_t drafted = 0;        // tokens of the last draft
    int low = 0;               // drafts in a row that hardly came true
};

namespace {

constexpr size_t tail_room = 1024;
constexpr size_t full_part = 4; // a table with more than one of so many places used is full
constexpr size_t low_part = 4;  // a draft is low below one of so many tokens
constexpr int low_max = 5;

// push keeps enough of the tail for one n-gram and never allocates: it has room from the start.
void push(nr_drafter * d, int32_t token) {
    if (d->tail.size() == d->tail.capacity()) {
        d->tail.erase(d->tail.begin(), d->tail.end() - static_cast<ptrdiff_t>(d->match));
    }
    d->tail.push_back(token);
    if (d->tail.size() > d->match) {
        d->table.add(d->tail.data() + d->tail.size() - d->match - 1);
    }
}

} // namespace

nr_drafter * nr_drafter_new(int32_t match, int32_t min, int32_t max, int32_t entries,
                            nr_error * err) {
    return nr_guard<nr_drafter *>(err, NR_MEMORY, nullptr, [&] {
        auto size = [](int32_t n) { return static_cast<size_t>(n); };
        std::unique_ptr<nr_drafter> d(
            new nr_drafter{{static_cast<uint16_t>(match), size(entries)}, size(match), size(min),
                           size(max), {}, {}});
        d->tail.reserve(d->match + tail_room);
        d->work.resize(d->match + d->max);
        return d.release();
    });
}

void nr_drafter_free(nr_drafter * drafter) { delete drafter; }

void nr_drafter_reset(nr_drafter * d) {
    d->table.reset();
    d->tail.clear();
    d->drafted = 0;
    d->low = 0;
}

void nr_drafter_feed(nr_drafter * d, const int32_t * tokens, size_t n) {
    for (size_t i = 0; i < n; i++) {
        push(d, tokens[i]);
    }
    if (d->table.get_used() > d->table.size() / full_part) {
        d->table.reset();
    }
}

int32_t nr_drafter_draft(nr_drafter * d, int32_t * out, size_t n) {
    d->drafted = 0;
    n = std::min(n, d->max);
    if (d->tail.size() < d->match) {
        return 0;
    }
    std::copy(d->tail.end() - static_cast<ptrdiff_t>(d->match), d->tail.end(), d->work.begin());
    size_t got = 0;
    for (; got < n; got++) {
        const int32_t token = d->table.get(d->work.data() + got);
        if (token == common_ngram_mod::EMPTY) {
            break;
        }
        d->work[d->match + got] = token;
    }
    if (got < d->min) {
        return 0;
    }
    std::copy_n(d->work.begin() + static_cast<ptrdiff_t>(d->match), got, out);
    d->drafted = got;
    return static_cast<int32_t>(got);
}

void nr_drafter_accepted(nr_drafter * d, int32_t n) {
    if (d->drafted == 0) {
        return;
    }
    const bool low = static_cast<size_t>(n) * low_part < d->drafted;
    d->drafted = 0;
    d->low = low ? d->low + 1 : 0;
    if (d->low == low_max) {
        d->table.reset();
        d->low = 0;
    }
}
