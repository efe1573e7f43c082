/* Operations on values one by one that the compiler would not vectorise: in place, with a choice in each, or with a sum that
 * should stay in a register. */
#include <string.h>

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

void THAW_NAMED(thaw_add)(int64_t count, const float *a, const float *b, float *y) {
    int64_t i = 0;
    for (; i + THAW_LANES <= count; i += THAW_LANES)
        vec_store(y + i, vec_add(vec_load(a + i), vec_load(b + i)));
    for (; i < count; i++)
        y[i] = a[i] + b[i];
}

/* A square of vectors: interleaving rows i and i + LANES/2 is one of log2(LANES) equal steps. */
static inline __attribute__((always_inline)) void transpose_square(const float *from, int64_t from_row, float *to,
                                                                   int64_t to_row) {
    vec rows[THAW_LANES], next[THAW_LANES];
    for (int i = 0; i < THAW_LANES; i++)
        rows[i] = vec_load(from + i * from_row);
    for (int step = 1; step < THAW_LANES; step *= 2) {
        for (int i = 0; i < THAW_LANES / 2; i++)
            vec_interleave(rows[i], rows[i + THAW_LANES / 2], next + 2 * i, next + 2 * i + 1);
        memcpy(rows, next, sizeof rows);
    }
    for (int i = 0; i < THAW_LANES; i++)
        vec_store(to + i * to_row, rows[i]);
}

void THAW_NAMED(thaw_transpose)(int64_t rows, int64_t columns, const float *from, int64_t from_row, float *to, int64_t to_row) {
    for (int64_t r = 0; r < rows; r += THAW_LANES)
        for (int64_t c = 0; c < columns; c += THAW_LANES) {
            if (r + THAW_LANES <= rows && c + THAW_LANES <= columns) {
                transpose_square(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
                continue;
            }
            for (int64_t j = c; j < columns && j < c + THAW_LANES; j++)
                for (int64_t i = r; i < rows && i < r + THAW_LANES; i++)
                    to[j * to_row + i] = from[i * from_row + j];
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

/* As long as vec, and twice that. No function takes or gives the second: not every instruction set can pass it on. */
typedef float singles __attribute__((vector_size(4 * THAW_LANES)));
typedef double doubles __attribute__((vector_size(8 * THAW_LANES)));

#define WIDEN(a) __builtin_convertvector((singles)(a), doubles)
#define ADD_DOUBLES(to, a)                                                                                             \
    do {                                                                                                               \
        doubles sum_;                                                                                                  \
        memcpy(&sum_, to, sizeof sum_);                                                                                \
        sum_ += a;                                                                                                     \
        memcpy(to, &sum_, sizeof sum_);                                                                                \
    } while (0)

/* One vector of channels of one row. */
static inline void norm_row(const float *x, const float *y, const float *mean, const float *scale, const float *dy, float *dx,
                            bool accumulate, double *sums, int64_t c) {
    const vec d = y ? vec_where_positive(vec_load(y), vec_load(dy)) : vec_load(dy);
    if (sums) {
        ADD_DOUBLES(sums, WIDEN(d));
        if (x)
            ADD_DOUBLES(sums + c, WIDEN(d) * (WIDEN(vec_load(x)) - WIDEN(vec_load(mean))));
    }
    if (dx) {
        const vec gradient = vec_multiply(d, vec_load(scale));
        vec_store(dx, accumulate ? vec_add(vec_load(dx), gradient) : gradient);
    }
}

void THAW_NAMED(thaw_norm_gradient)(int64_t rows, int64_t c, const float *x, const float *y, const float *mean,
                                    const float *scale, const float *dy, float *dx, bool accumulate, double *sums) {
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * c;
        int64_t i = 0;
        for (; i + THAW_LANES <= c; i += THAW_LANES)
            norm_row(x ? x + at + i : x, y ? y + at + i : y, x ? mean + i : mean, dx ? scale + i : scale, dy + at + i,
                     dx ? dx + at + i : dx, accumulate, sums ? sums + i : sums, c);
        for (; i < c; i++) {
            const float d = y && !(y[at + i] > 0.0f) ? 0.0f : dy[at + i];
            if (sums)
                sums[i] += (double)d;
            if (sums && x)
                sums[c + i] += (double)d * ((double)x[at + i] - (double)mean[i]);
            if (dx)
                dx[at + i] = (accumulate ? dx[at + i] : 0.0f) + d * scale[i];
        }
    }
}

void THAW_NAMED(thaw_fence)(void) { vec_fence(); }
