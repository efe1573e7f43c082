/* Counter-based draws: Philox4x32-10 (Salmon et al., SC'11; Random123). A draw is a function of (seed, purpose, counter),
 * never of a state, so any rank, thread or prefetch depth sees the same. */
#ifndef THAW_BASE_RANDOM_H
#define THAW_BASE_RANDOM_H

#include <stdint.h>

typedef enum thaw_purpose {
    THAW_DRAW_SHUFFLE = 1, /* a = epoch, b = position */
    THAW_DRAW_SPLIT,       /* a = 0, b = position */
    THAW_DRAW_AUGMENT,     /* a = epoch, b = sample, draw = which */
    THAW_DRAW_DROPOUT,     /* a = epoch, b = sample, draw = layer hash + element/4 */
    THAW_DRAW_INIT,        /* a = hash of the tensor's name, b = element/4 */
    THAW_DRAW_FIXED,       /* augmentation of a limited number of draws: a = which of them, b = sample, draw = which */
    THAW_DRAW_CHOICE       /* which of them an epoch takes: a = epoch, b = sample */
} thaw_purpose;

typedef struct thaw_draw {
    uint32_t word[4];
} thaw_draw;

/* Four random words of the counter (a, b, draw): key = (seed, purpose). a and draw enter with 32 bits, b with 64. */
thaw_draw thaw_philox(uint64_t seed, thaw_purpose purpose, uint32_t a, uint64_t b, uint32_t draw);
static inline float thaw_uniform(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; } /* [0,1) */
uint64_t thaw_bounded(thaw_draw draw, uint64_t n); /* uniform in [0,n) from words 0,1 (multiply-shift of 64 bits) */
#endif
