/* Operations on values one by one that the compiler would not vectorise: in place, with a choice in each, or with a sum that
 * should stay in a register. */
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

void THAW_NAMED(thaw_window_average)(int64_t c, const float *x, int64_t rows, int64_t columns, int64_t row, int64_t column,
                                     float *y) {
    const float cells = (float)(rows * columns);
    int64_t i = 0;
    for (; i + THAW_LANES <= c; i += THAW_LANES) {
        vec sum = vec_all(0.0f);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < columns; j++)
                sum = vec_add(sum, vec_load(x + r * row + j * column + i));
        vec_store(y + i, vec_divide(sum, vec_all(cells)));
    }
    for (; i < c; i++) {
        float sum = 0.0f;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < columns; j++)
                sum += x[r * row + j * column + i];
        y[i] = sum / cells;
    }
}

void THAW_NAMED(thaw_window_maximum)(int64_t c, const float *x, int64_t rows, int64_t columns, int64_t row, int64_t column,
                                     float *y) {
    int64_t i = 0;
    for (; i + THAW_LANES <= c; i += THAW_LANES) {
        vec most = vec_load(x + i);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < columns; j++)
                most = vec_larger(most, vec_load(x + r * row + j * column + i));
        vec_store(y + i, most);
    }
    for (; i < c; i++) {
        float most = x[i];
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < columns; j++) {
                float other = x[r * row + j * column + i];
                most = other > most || other != other ? other : most;
            }
        y[i] = most;
    }
}

void THAW_NAMED(thaw_fence)(void) { vec_fence(); }
