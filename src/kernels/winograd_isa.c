/* Transforms of Winograd's minimal filtering (Lavin and Gray 2016) with the points {0, a, -a, b, -b, infinity}, a = 5/8,
 * b = 3/2: of the sets of six points, the one with the least rounding error. For a point p with N(p) = the product of its
 * distances to the others: G has the rows (1, p, p^2)/N(p), B^T the coefficients of the product of (x - q) over the other
 * points q, A^T the powers of the points. All constants but those of N are exact. */
#include "kernels/isa.h"
#include "kernels/simd.h"

THAW_ISA_DECLARE(THAW_ISA);

#define A1 0.625
#define A2 0.390625
#define A3 0.244140625
#define B1 1.5
#define B2 2.25
#define B3 3.375
#define N0 (1.0 / (A2 * B2))
#define NA (1.0 / (2.0 * A2 * (A2 - B2)))
#define NB (1.0 / (2.0 * B2 * (B2 - A2)))

/* t = B^T d, 6 to 6. */
static inline void input6(const vec *d, int step, vec *t, int to) {
    const vec a1 = vec_all((float)A1), b1 = vec_all((float)B1), minus_a2 = vec_all((float)-A2), minus_b2 = vec_all((float)-B2);
    const vec product = vec_all((float)(A2 * B2)), minus_sum = vec_all((float)-(A2 + B2));
    const vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const vec even_a = vec_fma(minus_b2, d2, d4), odd_a = vec_multiply(a1, vec_fma(minus_b2, d1, d3));
    const vec even_b = vec_fma(minus_a2, d2, d4), odd_b = vec_multiply(b1, vec_fma(minus_a2, d1, d3));
    t[0] = vec_fma(product, d0, vec_fma(minus_sum, d2, d4));
    t[to] = vec_add(even_a, odd_a);
    t[2 * to] = vec_subtract(even_a, odd_a);
    t[3 * to] = vec_add(even_b, odd_b);
    t[4 * to] = vec_subtract(even_b, odd_b);
    t[5 * to] = vec_fma(product, d1, vec_fma(minus_sum, d3, d5));
}

void THAW_NAMED(thaw_winograd_input)(const float *x, int64_t row, int64_t column, int64_t c, float *v, int64_t point) {
    for (int64_t i = 0; i < c; i += THAW_LANES) {
        vec d[6], half[THAW_POINTS], t[6];
        for (int j = 0; j < 6; j++) {
            for (int r = 0; r < 6; r++)
                d[r] = vec_load(x + r * row + j * column + i);
            for (int r = 0; r < 6 && j >= 2; r++) /* the next tile's */
                __builtin_prefetch(x + r * row + (j + 4) * column + i);
            input6(d, 1, half + j, 6);
        }
        for (int r = 0; r < 6; r++) {
            input6(half + 6 * r, 1, t, 1);
            for (int j = 0; j < 6; j++)
                vec_store(v + (6 * r + j) * point + i, t[j]);
        }
    }
}

/* y = A^T m, 6 to 4. */
static inline void output4(const vec *m, vec *y, int to) {
    const vec a1 = vec_all((float)A1), a2 = vec_all((float)A2), a3 = vec_all((float)A3);
    const vec b1 = vec_all((float)B1), b2 = vec_all((float)B2), b3 = vec_all((float)B3);
    const vec sum_a = vec_add(m[1], m[2]), difference_a = vec_subtract(m[1], m[2]);
    const vec sum_b = vec_add(m[3], m[4]), difference_b = vec_subtract(m[3], m[4]);
    y[0] = vec_add(vec_add(m[0], sum_a), sum_b);
    y[to] = vec_fma(b1, difference_b, vec_multiply(a1, difference_a));
    y[2 * to] = vec_fma(b2, sum_b, vec_multiply(a2, sum_a));
    y[3 * to] = vec_fma(b3, difference_b, vec_fma(a3, difference_a, m[5]));
}

void THAW_NAMED(thaw_winograd_output)(const float *m, int64_t point, int64_t w, const float *bias, bool relu,
                                      thaw_store store, float *y, int64_t row, int64_t column, int rows, int columns) {
    for (int64_t i = 0; i < w; i += THAW_LANES) {
        vec from[6], half[24], t[4];
        for (int j = 0; j < 6; j++) {
            for (int r = 0; r < 6; r++)
                from[r] = vec_load(m + (6 * r + j) * point + i);
            output4(from, half + j, 6);
        }
        const vec shift = bias ? vec_load(bias + i) : vec_all(0.0f);
        for (int r = 0; r < 4; r++) {
            output4(half + 6 * r, t, 1);
            if (r >= rows)
                break;
            float *to = y + r * row + i;
            for (int j = 0; j < 4; j++) {
                if (j >= columns)
                    break;
                vec sum = vec_add(t[j], store == THAW_STORE_ADD ? vec_load(to + j * column) : shift);
                sum = relu ? vec_relu(sum) : sum;
                if (store == THAW_STORE_STREAM)
                    vec_stream(to + j * column, sum);
                else
                    vec_store(to + j * column, sum);
            }
        }
    }
}

/* t = G g, 3 to 6, on rows of w numbers. */
static inline void filter6(const double *g0, const double *g1, const double *g2, int w, double *t, int to) {
    for (int i = 0; i < w; i++) {
        const double even_a = NA * (g0[i] + A2 * g2[i]), odd_a = NA * A1 * g1[i];
        const double even_b = NB * (g0[i] + B2 * g2[i]), odd_b = NB * B1 * g1[i];
        t[i] = N0 * g0[i];
        t[to + i] = even_a + odd_a;
        t[2 * to + i] = even_a - odd_a;
        t[3 * to + i] = even_b + odd_b;
        t[4 * to + i] = even_b - odd_b;
        t[5 * to + i] = g2[i];
    }
}

/* Sixteen filters. Results lie far apart in a form larger than any cache: they are streamed. */
static void filter16(const float *g, int64_t tap, const double *scale, float *u, int64_t point) {
    enum { W = 16 };
    double taps[9 * W], half[18 * W], t[6 * W];
    float row[W];
    for (int k = 0; k < 9; k++)
        for (int i = 0; i < W; i++)
            taps[k * W + i] = (double)g[k * tap + i];
    for (int k = 0; k < 9 && scale; k++)
        for (int i = 0; i < W; i++)
            taps[k * W + i] *= scale[i];
    for (int j = 0; j < 3; j++)
        filter6(taps + j * W, taps + (3 + j) * W, taps + (6 + j) * W, W, half + j * W, 3 * W);
    for (int r = 0; r < 6; r++) {
        filter6(half + 3 * r * W, half + (3 * r + 1) * W, half + (3 * r + 2) * W, W, t, W);
        for (int j = 0; j < 6; j++) {
            for (int i = 0; i < W; i++)
                row[i] = (float)t[j * W + i];
            for (int i = 0; i < W; i += THAW_LANES)
                vec_stream(u + (6 * r + j) * point + i, vec_load(row + i));
        }
    }
}

void THAW_NAMED(thaw_winograd_filter)(const float *g, int64_t tap, int64_t w, const double *scale, float *u, int64_t point) {
    for (int64_t i = 0; i < w; i += 16)
        filter16(g + i, tap, scale ? scale + i : scale, u + i, point);
}

/* t = D d, 4 to 6: a polynomial with the coefficients d at the points. */
static inline void gradient6(const vec *d, vec *t, int to) {
    const vec a1 = vec_all((float)A1), a2 = vec_all((float)A2), b1 = vec_all((float)B1), b2 = vec_all((float)B2);
    const vec even_a = vec_fma(a2, d[2], d[0]), odd_a = vec_multiply(a1, vec_fma(a2, d[3], d[1]));
    const vec even_b = vec_fma(b2, d[2], d[0]), odd_b = vec_multiply(b1, vec_fma(b2, d[3], d[1]));
    t[0] = d[0];
    t[to] = vec_add(even_a, odd_a);
    t[2 * to] = vec_subtract(even_a, odd_a);
    t[3 * to] = vec_add(even_b, odd_b);
    t[4 * to] = vec_subtract(even_b, odd_b);
    t[5 * to] = d[3];
}

void THAW_NAMED(thaw_winograd_gradient)(const float *dy, int64_t row, int64_t column, int64_t c, float *m, int64_t point) {
    for (int64_t i = 0; i < c; i += THAW_LANES) {
        vec d[4], half[24], t[6];
        for (int j = 0; j < 4; j++) {
            for (int r = 0; r < 4; r++)
                d[r] = vec_load(dy + r * row + j * column + i);
            gradient6(d, half + j, 4);
        }
        for (int r = 0; r < 6; r++) {
            gradient6(half + 4 * r, t, 1);
            for (int j = 0; j < 6; j++)
                vec_store(m + (6 * r + j) * point + i, t[j]);
        }
    }
}

/* g = A^T u with the first three powers, each point divided by its N: 6 to 3, on rows of w numbers `step` apart. */
static void taps3(const double *u, int64_t step, int64_t w, double *g, int64_t to) {
    for (int64_t i = 0; i < w; i++) {
        const double u1 = u[step + i], u2 = u[2 * step + i], u3 = u[3 * step + i], u4 = u[4 * step + i];
        g[i] = N0 * u[i] + NA * (u1 + u2) + NB * (u3 + u4);
        g[to + i] = NA * A1 * (u1 - u2) + NB * B1 * (u3 - u4);
        g[2 * to + i] = NA * A2 * (u1 + u2) + NB * B2 * (u3 + u4) + u[5 * step + i];
    }
}

void THAW_NAMED(thaw_winograd_taps)(const float *u, int64_t point, int64_t w, float *dkernel, int64_t tap) {
    enum { W = THAW_PANEL };
    double sums[THAW_POINTS * W], half[18 * W], t[3 * W];
    for (int k = 0; k < THAW_POINTS; k++)
        for (int64_t i = 0; i < w; i++)
            sums[k * W + i] = (double)u[k * point + i];
    for (int j = 0; j < 6; j++)
        taps3(sums + j * W, 6 * W, w, half + j * W, 6 * W);
    for (int r = 0; r < 3; r++) {
        taps3(half + 6 * r * W, W, w, t, W);
        for (int j = 0; j < 3; j++)
            for (int64_t i = 0; i < w; i++)
                dkernel[(3 * r + j) * tap + i] = (float)t[j * W + i];
    }
}
