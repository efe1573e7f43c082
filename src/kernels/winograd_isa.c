/* Transforms of Winograd's minimal filtering (Lavin and Gray 2016). For three taps the points are {0, a, -a, b, -b, infinity},
 * a = 5/8, b = 3/2: of the sets of six points, the one with the least rounding error; for seven taps {0, c, -c, 1, -1, d, -d,
 * infinity}, c = 1/2, d = 2, likewise of eight. For a point p with N(p) = the product of its
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

/* A tile with 3 outputs in a direction has the five points but 0. Its row p of B^T is multiplied by p, so that the same G
 * serves, whose N(p) has this factor; and 0 is the point whose absence costs least in rounding. */
enum { FIRST = 1 }; /* number of the first point without 0 */

/* t = B^T d, 6 to 6, or 5 to the last 5. */
static inline __attribute__((always_inline)) void input_points(int outputs, const vec *d, int step, vec *t, int to) {
    const vec a1 = vec_all((float)A1), b1 = vec_all((float)B1), minus_a2 = vec_all((float)-A2), minus_b2 = vec_all((float)-B2);
    const vec product = vec_all((float)(A2 * B2)), minus_sum = vec_all((float)-(A2 + B2));
    const vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    const vec odd_a = vec_multiply(a1, vec_fma(minus_b2, d1, d3)), odd_b = vec_multiply(b1, vec_fma(minus_a2, d1, d3));
    vec even_a, even_b;
    if (outputs == 4) {
        const vec d5 = d[5 * step];
        even_a = vec_fma(minus_b2, d2, d4);
        even_b = vec_fma(minus_a2, d2, d4);
        t[0] = vec_fma(product, d0, vec_fma(minus_sum, d2, d4));
        t[5 * to] = vec_fma(product, d1, vec_fma(minus_sum, d3, d5));
    } else {
        const vec a2 = vec_all((float)A2), b2 = vec_all((float)B2);
        even_a = vec_multiply(a2, vec_fma(minus_b2, d0, d2));
        even_b = vec_multiply(b2, vec_fma(minus_a2, d0, d2));
        t[5 * to] = vec_fma(product, d0, vec_fma(minus_sum, d2, d4));
    }
    t[to] = vec_add(even_a, odd_a);
    t[2 * to] = vec_subtract(even_a, odd_a);
    t[3 * to] = vec_add(even_b, odd_b);
    t[4 * to] = vec_subtract(even_b, odd_b);
}

/* Two rows of B^T d: the first and the last, or those of a point and its negative. d: vectors `step` floats apart. With so few at
 * a time the transform of a tile stays in registers. */
static inline __attribute__((always_inline)) void input_pair(int outputs, int pair, const float *d, int64_t step, vec *one,
                                                             vec *two) {
    const vec d1 = vec_load(d + step), d2 = vec_load(d + 2 * step), d3 = vec_load(d + 3 * step);
    if (pair == 0) {
        const vec product = vec_all((float)(A2 * B2)), minus_sum = vec_all((float)-(A2 + B2));
        const vec d4 = vec_load(d + 4 * step), first = vec_fma(product, vec_load(d), vec_fma(minus_sum, d2, d4));
        *one = outputs == 4 ? first : d1;
        *two = outputs == 4 ? vec_fma(product, d1, vec_fma(minus_sum, d3, vec_load(d + 5 * step))) : first;
        return;
    }
    const double point = pair == 1 ? A1 : B1, other = pair == 1 ? B2 : A2; /* the other's square */
    const vec minus_other = vec_all((float)-other);
    const vec odd = vec_multiply(vec_all((float)point), vec_fma(minus_other, d1, d3));
    const vec even = outputs == 4 ? vec_fma(minus_other, d2, vec_load(d + 4 * step))
                                  : vec_multiply(vec_all((float)(point * point)), vec_fma(minus_other, vec_load(d), d2));
    *one = vec_add(even, odd);
    *two = vec_subtract(even, odd);
}

/* The row of a tile in the matrix of point (p, q). */
#define AT(base, t, p, q) ((base) + (t)->row[((p) == 0) + 2 * ((q) == 0)] * (t)->stride + (6 * (p) + (q)) * (t)->point)

/* The points (p, q) of a tile, or those with q > 0, to their matrices. */
static inline __attribute__((always_inline)) void store_points(int wide, const thaw_tile_rows *at, int p,
                                                               const vec *t, float *to) {
    if (wide == 4)
        vec_store(AT(to, at, p, 0), t[0]);
    for (int q = 1; q < 6; q++)
        vec_store(AT(to, at, p, q), t[q]);
}

static inline __attribute__((always_inline)) void input_tile(int high, int wide, const float *x, int64_t row, int64_t column,
                                                             int64_t c, const thaw_tile_rows *at, float *v) {
    for (int64_t i = 0; i < c; i += THAW_LANES)
        for (int pair = 0; pair < 3; pair++) {
            vec half[2][6], t[6];
            for (int j = 0; j < wide + 2; j++) {
                input_pair(high, pair, x + j * column + i, row, half[0] + j, half[1] + j);
                for (int r = 0; r < high + 2 && pair == 0 && j >= 2; r++) /* the next tile's */
                    __builtin_prefetch(x + r * row + (j + wide) * column + i);
            }
            for (int k = high == 4 || pair ? 0 : 1; k < 2; k++) {
                input_points(wide, half[k], 1, t, 1);
                store_points(wide, at, pair ? 2 * pair - 1 + k : 5 * k, t, v + i);
            }
        }
}

/* Calls `tile` with the sizes of the tile as constants. */
#define BY_SIZE(tile, t, ...)                                                                                          \
    do {                                                                                                               \
        if ((t)->high == 4 && (t)->wide == 4)                                                                          \
            tile(4, 4, __VA_ARGS__);                                                                                   \
        else if ((t)->high == 4)                                                                                       \
            tile(4, 3, __VA_ARGS__);                                                                                   \
        else if ((t)->wide == 4)                                                                                       \
            tile(3, 4, __VA_ARGS__);                                                                                   \
        else                                                                                                           \
            tile(3, 3, __VA_ARGS__);                                                                                   \
    } while (0)

/* The same for the first points, as last arguments. */
#define BY_FIRST(call, first, ...)                                                                                     \
    do {                                                                                                               \
        if ((first).high && (first).wide)                                                                              \
            call(__VA_ARGS__, true, true);                                                                             \
        else if ((first).high)                                                                                         \
            call(__VA_ARGS__, true, false);                                                                            \
        else if ((first).wide)                                                                                         \
            call(__VA_ARGS__, false, true);                                                                            \
        else                                                                                                           \
            call(__VA_ARGS__, false, false);                                                                           \
    } while (0)

/* Where the tile of a line has its row of point p, which is in the first column or row of the points. */
static inline float *line_row(const thaw_tile_rows *t, bool down, int p, const float *base) {
    return (float *)(uintptr_t)base + t->row[p == 0 ? 3 : down ? 2 : 1] * t->stride + p * t->point;
}

/* t = B^T d, 8 to 8. With e1, e2, e3 the symmetric sums of c^2, 1, d^2, and for each pair of points those of the others. */
static inline void input8(const vec *d, vec *t) {
    const vec e = vec_all(-5.25f), e2 = vec_all(5.25f);
    t[0] = vec_subtract(vec_fma(e2, d[2], vec_fma(e, d[4], d[6])), d[0]);
    t[7] = vec_subtract(vec_fma(e2, d[3], vec_fma(e, d[5], d[7])), d[1]);
    const vec even_c = vec_fma(vec_all(4.0f), d[2], vec_fma(vec_all(-5.0f), d[4], d[6]));
    const vec odd_c = vec_multiply(vec_all(0.5f), vec_fma(vec_all(4.0f), d[1], vec_fma(vec_all(-5.0f), d[3], d[5])));
    const vec even_1 = vec_add(d[2], vec_fma(vec_all(-4.25f), d[4], d[6]));
    const vec odd_1 = vec_add(d[1], vec_fma(vec_all(-4.25f), d[3], d[5]));
    const vec even_d = vec_fma(vec_all(0.25f), d[2], vec_fma(vec_all(-1.25f), d[4], d[6]));
    const vec odd_d = vec_multiply(vec_all(2.0f), vec_fma(vec_all(0.25f), d[1], vec_fma(vec_all(-1.25f), d[3], d[5])));
    t[1] = vec_add(even_c, odd_c);
    t[2] = vec_subtract(even_c, odd_c);
    t[3] = vec_add(even_1, odd_1);
    t[4] = vec_subtract(even_1, odd_1);
    t[5] = vec_add(even_d, odd_d);
    t[6] = vec_subtract(even_d, odd_d);
}

/* t = D d, 4 to 6 or 3 to the last 5: a polynomial with the coefficients d at the points. */
static inline __attribute__((always_inline)) void gradient_points(int outputs, const vec *d, vec *t, int to) {
    const vec a1 = vec_all((float)A1), a2 = vec_all((float)A2), b1 = vec_all((float)B1), b2 = vec_all((float)B2);
    const vec even_a = vec_fma(a2, d[2], d[0]), even_b = vec_fma(b2, d[2], d[0]);
    const vec odd_a = vec_multiply(a1, outputs == 4 ? vec_fma(a2, d[3], d[1]) : d[1]);
    const vec odd_b = vec_multiply(b1, outputs == 4 ? vec_fma(b2, d[3], d[1]) : d[1]);
    if (outputs == 4)
        t[0] = d[0];
    t[to] = vec_add(even_a, odd_a);
    t[2 * to] = vec_subtract(even_a, odd_a);
    t[3 * to] = vec_add(even_b, odd_b);
    t[4 * to] = vec_subtract(even_b, odd_b);
    t[5 * to] = d[outputs - 1];
}

/* t = D d, 2 to 8. */
static inline void gradient8(const vec *d, vec *t) {
    const vec c = vec_multiply(vec_all(0.5f), d[1]), double_d = vec_add(d[1], d[1]);
    t[0] = d[0];
    t[1] = vec_add(d[0], c);
    t[2] = vec_subtract(d[0], c);
    t[3] = vec_add(d[0], d[1]);
    t[4] = vec_subtract(d[0], d[1]);
    t[5] = vec_add(d[0], double_d);
    t[6] = vec_subtract(d[0], double_d);
    t[7] = d[1];
}

/* A line of cells, inputs or a gradient's, to its points. */
static inline __attribute__((always_inline)) void tile_line(bool gradient, int taps, const float *from, int64_t step, int64_t c,
                                                            const thaw_tile_rows *place, bool down, float *to) {
    const int outputs = down ? place->high : place->wide, points = taps == 7 ? 8 : 6;
    for (int64_t i = 0; i < c; i += THAW_LANES) {
        vec d[8], t[8];
        for (int j = 0; j < (gradient ? outputs : outputs + taps - 1); j++)
            d[j] = vec_load(from + j * step + i);
        if (taps == 7)
            (gradient ? gradient8 : input8)(d, t);
        else if (outputs == 4)
            gradient ? gradient_points(4, d, t, 1) : input_points(4, d, 1, t, 1);
        else
            gradient ? gradient_points(3, d, t, 1) : input_points(3, d, 1, t, 1);
        for (int p = taps == 3 && outputs == 3 ? FIRST : 0; p < points; p++)
            vec_store(line_row(place, down, p, to) + i, t[p]);
    }
}

void THAW_NAMED(thaw_winograd_input)(int kh, int kw, const float *x, int64_t row, int64_t column, int64_t c,
                                     const thaw_tile_rows *t, float *v) {
    if (kh == kw)
        BY_SIZE(input_tile, t, x, row, column, c, t, v);
    else
        tile_line(false, kh > kw ? kh : kw, x, kh > kw ? row : column, c, t, kh > kw, v);
}

/* y = A^T m, 6 to 4, or 5 to 3. */
static inline __attribute__((always_inline)) void output_cells(int outputs, const vec *m, vec *y, int to) {
    const vec a1 = vec_all((float)A1), a2 = vec_all((float)A2), a3 = vec_all((float)A3);
    const vec b1 = vec_all((float)B1), b2 = vec_all((float)B2), b3 = vec_all((float)B3);
    const vec sum_a = vec_add(m[1], m[2]), difference_a = vec_subtract(m[1], m[2]);
    const vec sum_b = vec_add(m[3], m[4]), difference_b = vec_subtract(m[3], m[4]);
    y[0] = outputs == 4 ? vec_add(vec_add(m[0], sum_a), sum_b) : vec_add(sum_a, sum_b);
    y[to] = vec_fma(b1, difference_b, vec_multiply(a1, difference_a));
    y[2 * to] = vec_fma(b2, sum_b, outputs == 4 ? vec_multiply(a2, sum_a) : vec_fma(a2, sum_a, m[5]));
    if (outputs == 4)
        y[3 * to] = vec_fma(b3, difference_b, vec_fma(a3, difference_a, m[5]));
}

static inline void finish(vec sum, const float *add, bool relu, bool stream, float *y) {
    sum = add ? vec_add(sum, vec_load(add)) : sum;
    sum = relu ? vec_relu(sum) : sum;
    if (stream)
        vec_stream(y, sum);
    else
        vec_store(y, sum);
}

static inline __attribute__((always_inline)) void output_tile(int high, int wide, const float *m, const thaw_tile_rows *at,
                                                              int64_t w, const float *bias, const float *add, bool relu,
                                                              bool stream, float *y, int64_t row, int64_t column, int rows,
                                                              int columns) {
    for (int64_t i = 0; i < w; i += THAW_LANES) {
        vec from[6], half[24], t[4];
        for (int q = wide == 4 ? 0 : FIRST; q < 6; q++) {
            for (int p = high == 4 ? 0 : FIRST; p < 6; p++)
                from[p] = vec_load(AT(m, at, p, q) + i);
            output_cells(high, from, half + q, 6);
        }
        const vec shift = bias ? vec_load(bias + i) : vec_all(0.0f);
        for (int r = 0; r < high; r++) {
            output_cells(wide, half + 6 * r, t, 1);
            if (r >= rows)
                break;
            for (int j = 0; j < wide; j++) {
                if (j >= columns)
                    break;
                const int64_t cell = r * row + j * column + i;
                finish(vec_add(t[j], shift), add ? add + cell : NULL, relu, stream, y + cell);
            }
        }
    }
}

void THAW_NAMED(thaw_winograd_pooled)(const float *m, const thaw_tile_rows *t, int64_t w, const float *bias, bool relu,
                                      bool stream, float *y, int64_t row, int64_t column, int rows, int columns) {
    for (int64_t i = 0; i < w; i += THAW_LANES) {
        vec from[6], half[24], outputs[16];
        for (int q = 0; q < 6; q++) {
            for (int p = 0; p < 6; p++)
                from[p] = vec_load(AT(m, t, p, q) + i);
            output_cells(4, from, half + q, 6);
        }
        const vec shift = bias ? vec_load(bias + i) : vec_all(0.0f);
        for (int r = 0; r < 4; r++) {
            output_cells(4, half + 6 * r, outputs + 4 * r, 1);
            for (int j = 0; j < 4; j++) {
                const vec sum = vec_add(outputs[4 * r + j], shift);
                outputs[4 * r + j] = relu ? vec_relu(sum) : sum;
            }
        }
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < columns; j++) {
                const vec *cell = outputs + 8 * r + 2 * j;
                finish(vec_larger(vec_larger(vec_larger(cell[0], cell[1]), cell[4]), cell[5]), NULL, false, stream,
                       y + r * row + j * column + i);
            }
    }
}

/* y = A^T m, 8 to 2. */
static inline void output2(const vec *m, vec *y) {
    y[0] = vec_add(vec_add(m[0], vec_add(m[1], m[2])), vec_add(vec_add(m[3], m[4]), vec_add(m[5], m[6])));
    const vec far = vec_fma(vec_all(2.0f), vec_subtract(m[5], m[6]), m[7]);
    y[1] = vec_add(vec_fma(vec_all(0.5f), vec_subtract(m[1], m[2]), vec_subtract(m[3], m[4])), far);
}

static void output_line(int taps, const float *m, const thaw_tile_rows *place, bool down, int64_t w, const float *bias,
                        const float *add, bool relu, bool stream, float *y, int64_t step, int count) {
    const int outputs = down ? place->high : place->wide, points = taps == 7 ? 8 : 6;
    for (int64_t i = 0; i < w; i += THAW_LANES) {
        vec from[8], t[4];
        for (int p = taps == 3 && outputs == 3 ? FIRST : 0; p < points; p++)
            from[p] = vec_load(line_row(place, down, p, m) + i);
        if (taps == 7)
            output2(from, t);
        else if (outputs == 4)
            output_cells(4, from, t, 1);
        else
            output_cells(3, from, t, 1);
        const vec shift = bias ? vec_load(bias + i) : vec_all(0.0f);
        for (int j = 0; j < count; j++)
            finish(vec_add(t[j], shift), add ? add + j * step + i : NULL, relu, stream, y + j * step + i);
    }
}

void THAW_NAMED(thaw_winograd_output)(int kh, int kw, const float *m, const thaw_tile_rows *t, int64_t w, const float *bias,
                                      const float *add, bool relu, bool stream, float *y, int64_t row, int64_t column, int rows,
                                      int columns) {
    if (kh == kw)
        BY_SIZE(output_tile, t, m, t, w, bias, add, relu, stream, y, row, column, rows, columns);
    else
        output_line(kh > kw ? kh : kw, m, t, kh > kw, w, bias, add, relu, stream, y, kh > kw ? row : column,
                    kh > kw ? rows : columns);
}

/* t = G g, 3 to 6. */
static inline __attribute__((always_inline)) void filter6(const doubles8 *g, int from, doubles8 *t, int to) {
    doubles8 even_a = NA * g[0], even_b = NB * g[0];
    doubles8_fma(&even_a, NA * A2, g + 2 * from, &even_a);
    doubles8_fma(&even_b, NB * B2, g + 2 * from, &even_b);
    t[0] = N0 * g[0];
    doubles8_fma(t + to, NA * A1, g + from, &even_a);
    doubles8_fma(t + 2 * to, -NA * A1, g + from, &even_a);
    doubles8_fma(t + 3 * to, NB * B1, g + from, &even_b);
    doubles8_fma(t + 4 * to, -NB * B1, g + from, &even_b);
    t[5 * to] = g[2 * from];
}

/* t = G g, 7 to 8. N(0) = -1, N(+-c) = 45/32, N(+-1) = -9/2, N(+-d) = 90. */
static inline __attribute__((always_inline)) void filter8(const doubles8 *g, doubles8 *t) {
    static const double square[] = {0.25, 1.0, 4.0}, point[] = {0.5, 1.0, 2.0}, n[] = {45.0 / 32.0, -4.5, 90.0};
    for (int k = 0; k < 3; k++) { /* at c, 1, d */
        const double s = square[k];
        const doubles8 even = (g[0] + s * (g[2] + s * (g[4] + s * g[6]))) / n[k];
        const doubles8 odd = point[k] * (g[1] + s * (g[3] + s * g[5])) / n[k];
        t[2 * k + 1] = even + odd;
        t[2 * k + 2] = even - odd;
    }
    t[0] = -g[0];
    t[7] = g[6];
}

/* n taps of eight filters, from the one at g on, `step` apart. */
static inline __attribute__((always_inline)) void load_taps(int n, const float *g, int64_t step, const double *scale,
                                                            doubles8 *taps) {
    for (int k = 0; k < n; k++) {
        doubles8_load(taps + k, g + k * step);
        for (int i = 0; i < WIDE && scale; i++)
            taps[k][i] *= scale[i];
    }
}

/* Sixteen filters of 3x3. Results lie far apart in a form larger than any cache: they are streamed, a row of points at a time,
 * which the registers hold. */
static inline __attribute__((always_inline)) void filter_square(const float *g, int64_t tap, const double *scale, float *u,
                                                                int64_t point, bool high, bool wide) {
    doubles8 taps[3], half[2][18], t[2][6];
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++) {
            load_taps(3, g + i * WIDE + j * tap, 3 * tap, scale ? scale + i * WIDE : scale, taps);
            filter6(taps, 1, half[i] + j, 3);
        }
    for (int p = 0; p < 6; p++) {
        if (p < high) /* loops that the compiler unrolls */
            continue;
        for (int i = 0; i < 2; i++)
            filter6(half[i] + 3 * p, 1, t[i], 1);
        for (int q = 0; q < 6; q++)
            if (q >= wide)
                doubles8_stream(u + (6 * p + q) * point, t[0] + q, t[1] + q);
    }
}

/* The same of filters with so many taps in one direction. */
static inline __attribute__((always_inline)) void filter_line(int taps, const float *g, int64_t tap, const double *scale,
                                                              float *u, int64_t point, bool first) {
    doubles8 from[7], t[2][8];
    for (int i = 0; i < 2; i++) {
        load_taps(taps, g + i * WIDE, tap, scale ? scale + i * WIDE : scale, from);
        if (taps == 7)
            filter8(from, t[i]);
        else
            filter6(from, 1, t[i], 1);
    }
    for (int p = first; p < (taps == 7 ? 8 : 6); p++)
        doubles8_stream(u + p * point, t[0] + p, t[1] + p);
}

void THAW_NAMED(thaw_winograd_filter)(int kh, int kw, const float *g, int64_t tap, int64_t w, const double *scale, float *u,
                                      int64_t point, thaw_first_points first) {
    for (int64_t i = 0; i < w; i += 16)
        if (kh == kw)
            BY_FIRST(filter_square, first, g + i, tap, scale ? scale + i : scale, u + i, point);
        else
            filter_line(kh * kw, g + i, tap, scale ? scale + i : scale, u + i, point, kh > kw ? first.high : first.wide);
}

/* Two rows of D d, as input_pair. */
static inline __attribute__((always_inline)) void gradient_pair(int outputs, int pair, const float *d, int64_t step, vec *one,
                                                                vec *two) {
    const vec d0 = vec_load(d), d1 = vec_load(d + step), d2 = vec_load(d + 2 * step);
    const vec last = outputs == 4 ? vec_load(d + 3 * step) : d2;
    if (pair == 0) {
        *one = d0;
        *two = last;
        return;
    }
    const double point = pair == 1 ? A1 : B1;
    const vec square = vec_all((float)(point * point)), even = vec_fma(square, d2, d0);
    const vec odd = vec_multiply(vec_all((float)point), outputs == 4 ? vec_fma(square, last, d1) : d1);
    *one = vec_add(even, odd);
    *two = vec_subtract(even, odd);
}

static inline __attribute__((always_inline)) void gradient_tile(int high, int wide, const float *dy, int64_t row, int64_t column,
                                                                int64_t c, const thaw_tile_rows *at, float *m) {
    for (int64_t i = 0; i < c; i += THAW_LANES)
        for (int pair = 0; pair < 3; pair++) {
            vec half[2][4], t[6];
            for (int j = 0; j < wide; j++) {
                gradient_pair(high, pair, dy + j * column + i, row, half[0] + j, half[1] + j);
                for (int r = 0; r < high && pair == 0; r++) /* the next tile's */
                    __builtin_prefetch(dy + r * row + (j + wide) * column + i);
            }
            for (int k = high == 4 || pair ? 0 : 1; k < 2; k++) {
                gradient_points(wide, half[k], t, 1);
                store_points(wide, at, pair ? 2 * pair - 1 + k : 5 * k, t, m + i);
            }
        }
}

void THAW_NAMED(thaw_winograd_gradient)(int kh, int kw, const float *dy, int64_t row, int64_t column, int64_t c,
                                        const thaw_tile_rows *t, float *m) {
    if (kh == kw)
        BY_SIZE(gradient_tile, t, dy, row, column, c, t, m);
    else
        tile_line(true, kh > kw ? kh : kw, dy, kh > kw ? row : column, c, t, kh > kw, m);
}

/* g = A^T u with the first three powers, each point divided by its N: 6 to 3. */
static inline __attribute__((always_inline)) void taps3(const vec *u, int from, vec *g, int to) {
    const vec sum_a = vec_add(u[from], u[2 * from]), sum_b = vec_add(u[3 * from], u[4 * from]);
    const vec odd_a = vec_subtract(u[from], u[2 * from]), odd_b = vec_subtract(u[3 * from], u[4 * from]);
    g[0] = vec_fma(vec_all((float)NB), sum_b, vec_fma(vec_all((float)NA), sum_a, vec_multiply(vec_all((float)N0), u[0])));
    g[to] = vec_fma(vec_all((float)(NB * B1)), odd_b, vec_multiply(vec_all((float)(NA * A1)), odd_a));
    g[2 * to] = vec_fma(vec_all((float)(NB * B2)), sum_b, vec_fma(vec_all((float)(NA * A2)), sum_a, u[5 * from]));
}

/* The same, 8 to 7, with the N of filter8. */
static inline __attribute__((always_inline)) void taps7(const vec *u, vec *g) {
    static const double n[] = {45.0 / 32.0, -4.5, 90.0}, powers[3][7] = {{1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625},
                                                                         {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0},
                                                                         {1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0}};
    for (int t = 0; t < 7; t++) {
        vec sum = t == 0 ? vec_subtract(vec_all(0.0f), u[0]) : t == 6 ? u[7] : vec_all(0.0f);
        for (int k = 0; k < 3; k++)
            sum = vec_fma(vec_all((float)(powers[k][t] / n[k])),
                          t % 2 ? vec_subtract(u[2 * k + 1], u[2 * k + 2]) : vec_add(u[2 * k + 1], u[2 * k + 2]), sum);
        g[t] = sum;
    }
}

/* Filters of a vector. */
static inline __attribute__((always_inline)) void filter_taps(int kh, int kw, const float *u, int64_t point, bool high, bool wide,
                                                              vec *g) {
    const int lines = kh == kw ? 6 : 1, points = kh * kw == 7 ? 8 : 6;
    vec line[8], half[18];
    for (int j = 0; j < lines; j++) {
        for (int k = 0; k < points; k++)
            line[k] = k < high || (lines == 6 && j < wide) ? vec_all(0.0f) : vec_load(u + (lines * k + j) * point);
        if (points == 8)
            taps7(line, g);
        else
            taps3(line, 1, lines == 6 ? half + j : g, lines);
    }
    for (int r = 0; r < 3 && lines == 6; r++)
        taps3(half + 6 * r, 1, g + 3 * r, 1);
}

static inline __attribute__((always_inline)) void taps_of(int kh, int kw, const float *u, int64_t point, int64_t w,
                                                          float *dkernel, int64_t tap, bool high, bool wide) {
    for (int64_t i = 0; i < w; i += THAW_LANES) {
        vec g[9];
        filter_taps(kh, kw, u + i, point, high, wide, g);
        for (int k = 0; k < kh * kw; k++)
            vec_store(dkernel + k * tap + i, g[k]);
    }
}

void THAW_NAMED(thaw_winograd_taps)(int kh, int kw, const float *u, int64_t point, int64_t w, float *dkernel, int64_t tap,
                                    thaw_first_points first) {
    if (kh == kw) /* sizes that the compiler knows */
        BY_FIRST(taps_of, first, 3, 3, u, point, w, dkernel, tap);
    else if (kh * kw == 7)
        taps_of(1, 7, u, point, w, dkernel, tap, false, false);
    else
        taps_of(1, 3, u, point, w, dkernel, tap, kh > kw ? first.high : first.wide, false);
}
