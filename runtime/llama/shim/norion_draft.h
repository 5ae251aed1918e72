// norion_draft.h is the C face of the shim for drafts from a sequence's own past. The conventions
// are those of norion.h.
#pragma once

#include "norion.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct nr_drafter nr_drafter;

// match: tokens that must have been seen together before. min: the shortest draft worth giving.
// entries: n-grams that the table has places for. nr_drafter_free frees it.
NR_API nr_drafter * nr_drafter_new(int32_t match, int32_t min, int32_t max, int32_t entries,
                                   nr_error * err);
NR_API void nr_drafter_free(nr_drafter * drafter);
NR_API void nr_drafter_reset(nr_drafter * drafter);
// Appends tokens to the sequence.
NR_API void nr_drafter_feed(nr_drafter * drafter, const int32_t * tokens, size_t n);
// Copies at most n tokens, and at most max, that may come next; returns how many.
NR_API int32_t nr_drafter_draft(nr_drafter * drafter, int32_t * out, size_t n);
// Says how many of the last draft came true.
NR_API void nr_drafter_accepted(nr_drafter * drafter, int32_t n);

#ifdef __cplusplus
}
#endif
