/* Dropout, fast: one draw for four values. */
#include "base/random.h"
#include "kernels/kernels_fast.h"

static void dropout(int64_t n, int64_t count, float rate, uint64_t seed, uint32_t epoch, uint32_t key,
                    const int64_t *samples, const float *x, float *y, bool accumulate) {
    int64_t draws = thaw_ceil_div(count, 4);
    float scale = 1.0f / (1.0f - rate);
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t item = 0; item < n * draws; item++) {
        int64_t image = item / draws, e = item % draws * 4;
        thaw_draw draw =
            thaw_philox(seed, THAW_DRAW_DROPOUT, epoch, (uint64_t)samples[image], key + (uint32_t)(item % draws));
        for (int64_t i = 0; i < thaw_least(4, count - e); i++) {
            int64_t at = image * count + e + i;
            float kept = thaw_uniform(draw.word[i]) >= rate ? x[at] * scale : 0.0f;
            y[at] = accumulate ? y[at] + kept : kept;
        }
    }
}

void thaw_fast_dropout(thaw_kernels *table) { table->dropout = dropout; }
