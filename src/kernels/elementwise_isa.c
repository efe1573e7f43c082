/* Operations on values one by one that the compiler would not vectorise: in place, and with a choice in each. */
#include "kernels/isa.h"
#include "kernels/simd.h"

THAW_ISA_DECLARE(THAW_ISA);

void THAW_NAMED(thaw_relu_gradient)(int64_t count, const float *y, const float *dy, float *dx, bool accumulate) {
    int64_t i = 0;
    for (; i + THAW_LANES <= count; i += THAW_LANES) {
        vec gradient = vec_where_positive(vec_load(y + i), vec_load(dy + i));
        vec_store(dx + i, accumulate ? vec_add(vec_load(dx + i), gradient) : gradient);
    }
    for (; i < count; i++) {
        float gradient = y[i] > 0.0f ? dy[i] : 0.0f;
        dx[i] = accumulate ? dx[i] + gradient : gradient;
    }
}

void THAW_NAMED(thaw_fence)(void) { vec_fence(); }
