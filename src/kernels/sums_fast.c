/* Sums over rows. */
#include "kernels/kernels_fast.h"

enum { PIECE_VALUES = 32 * 1024, MOST_PIECES = 64 };

int64_t thaw_fast_sum_pieces(int64_t rows, int64_t c) {
    int64_t pieces = thaw_least(rows * c / PIECE_VALUES, MOST_PIECES);
    return thaw_most(thaw_least(pieces, rows), 1);
}

void thaw_fast_sum_merge(int64_t n, int64_t width, const double *partial, double *out) {
    for (int64_t i = 0; i < width; i++)
        out[i] = partial[i];
    for (int64_t piece = 1; piece < n; piece++)
        for (int64_t i = 0; i < width; i++)
            out[i] += partial[piece * width + i];
}

void thaw_fast_column_sums(int64_t rows, int64_t c, const float *x, double *partial, float *out) {
    int64_t pieces = thaw_fast_sum_pieces(rows, c);
#pragma omp parallel for num_threads(thaw_threads()) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++) {
        double *sum = partial + piece * c;
        for (int64_t i = 0; i < c; i++)
            sum[i] = 0.0;
        for (int64_t row = piece * rows / pieces; row < (piece + 1) * rows / pieces; row++)
            for (int64_t i = 0; i < c; i++)
                sum[i] += (double)x[row * c + i];
    }
    for (int64_t i = 0; i < c; i++) {
        double sum = partial[i];
        for (int64_t piece = 1; piece < pieces; piece++)
            sum += partial[piece * c + i];
        out[i] = (float)sum;
    }
}
