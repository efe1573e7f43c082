/* Dropout, reference: one draw for each value. */
#include "base/random.h"
#include "kernels/kernels_ref.h"

static void dropout(int64_t n, int64_t count, float rate, uint64_t seed, uint32_t epoch, uint32_t key,
                    const int64_t *samples, const float *x, float *y, bool accumulate) {
    for (int64_t image = 0; image < n; image++)
        for (int64_t e = 0; e < count; e++, x++, y++) {
            thaw_draw draw =
                thaw_philox(seed, THAW_DRAW_DROPOUT, epoch, (uint64_t)samples[image], key + (uint32_t)(e / 4));
            float kept = thaw_uniform(draw.word[e % 4]) >= rate ? *x * (1 / (1 - rate)) : 0;
            *y = (accumulate ? *y : 0) + kept;
        }
}

void thaw_ref_dropout(thaw_kernels *table) { table->dropout = dropout; }
