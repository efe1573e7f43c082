/* Matrix products on panels. Sums are named variables made by macros: arrays of vectors would live in memory. */
#include "kernels/isa.h"
#include "kernels/simd.h"

THAW_ISA_DECLARE(THAW_ISA);

#if THAW_LANES == 16
enum { MOST_ROWS = 12 }; /* 24 sums of 32 registers */
#else
enum { MOST_ROWS = 6 }; /* 12 sums of 16 registers */
#endif

enum { LINE = 16 }; /* floats that are fetched at once */
enum { FIRST = 3, SECOND = 2 }; /* levels of caches to fetch to */

/* Rows r of a product, in groups of four that share a pointer. */
#define ROWS_1(X) X(0, 0, 0)
#define ROWS_2(X) ROWS_1(X) X(1, 0, 1)
#define ROWS_3(X) ROWS_2(X) X(2, 0, 2)
#define ROWS_4(X) ROWS_3(X) X(3, 0, 3)
#define ROWS_5(X) ROWS_4(X) X(4, 1, 0)
#define ROWS_6(X) ROWS_5(X) X(5, 1, 1)
#define ROWS_7(X) ROWS_6(X) X(6, 1, 2)
#define ROWS_8(X) ROWS_7(X) X(7, 1, 3)
#define ROWS_9(X) ROWS_8(X) X(8, 2, 0)
#define ROWS_10(X) ROWS_9(X) X(9, 2, 1)
#define ROWS_11(X) ROWS_10(X) X(10, 2, 2)
#define ROWS_12(X) ROWS_11(X) X(11, 2, 3)

#define OFFSET_0 0
#define OFFSET_1 lda
#define OFFSET_2 2 * lda
#define OFFSET_3 lda3

#define STORE(to, from)                                                                                                \
    do {                                                                                                               \
        if (stream)                                                                                                    \
            vec_stream(to, from);                                                                                      \
        else                                                                                                           \
            vec_store(to, from);                                                                                       \
    } while (0)

#define CLEAR2(r, g, o) vec s##r = vec_all(0.0f), t##r = vec_all(0.0f);
#define STEP2(r, g, o)                                                                                                 \
    {                                                                                                                  \
        vec e = vec_all(a##g[OFFSET_##o]);                                                                             \
        s##r = vec_fma(e, b0, s##r);                                                                                   \
        t##r = vec_fma(e, b1, t##r);                                                                                   \
    }
#define TURNED2(r, g, o)                                                                                               \
    {                                                                                                                  \
        vec e = vec_all(a[r]);                                                                                         \
        s##r = vec_fma(e, b0, s##r);                                                                                   \
        t##r = vec_fma(e, b1, t##r);                                                                                   \
    }
#define FINISH2(r, g, o)                                                                                               \
    {                                                                                                                  \
        float *row = c + r * ldc;                                                                                      \
        s##r = vec_add(start ? first : vec_load(from + r * ldf), s##r);                                                \
        t##r = vec_add(start ? second : vec_load(from + r * ldf + THAW_LANES), t##r);                                  \
        if (add) {                                                                                                     \
            s##r = vec_add(s##r, vec_load(add + r * ldc));                                                             \
            t##r = vec_add(t##r, vec_load(add + r * ldc + THAW_LANES));                                                \
        }                                                                                                              \
        STORE(row, relu ? vec_relu(s##r) : s##r);                                                                      \
        STORE(row + THAW_LANES, relu ? vec_relu(t##r) : t##r);                                                         \
    }
#define CLEAR1(r, g, o) vec s##r = vec_all(0.0f);
#define STEP1(r, g, o) s##r = vec_fma(vec_all(a##g[OFFSET_##o]), b0, s##r);
#define TURNED1(r, g, o) s##r = vec_fma(vec_all(a[r]), b0, s##r);
#define FINISH1(r, g, o)                                                                                               \
    {                                                                                                                  \
        float *row = c + r * ldc;                                                                                      \
        s##r = vec_add(start ? first : vec_load(from + r * ldf), s##r);                                                \
        if (add)                                                                                                       \
            s##r = vec_add(s##r, vec_load(add + r * ldc));                                                             \
        STORE(row, relu ? vec_relu(s##r) : s##r);                                                                      \
    }

/* What a product fetches for those behind it: with each of its k steps the lines at a and b, which move on by these floats.
 * Without it matrices that come from the third-level cache cost a tenth of the speed. */
typedef struct ahead {
    const float *a, *b;
    int64_t step_a, step_b;
} ahead;

/* c = start, or from where that is NULL, + a b + add. */
typedef void product(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, ahead next,
                     const float *start, const float *from, int64_t ldf, const float *add, bool relu, bool stream, float *c,
                     int64_t ldc);

#define FETCH(level_a)                                                                                                 \
    do {                                                                                                               \
        __builtin_prefetch(next.a, 0, level_a);                                                                        \
        __builtin_prefetch(next.b, 0, SECOND);                                                                         \
        next.a += next.step_a;                                                                                         \
        next.b += next.step_b;                                                                                         \
    } while (0)

/* R rows, 2 vectors or 1 of columns. */
#define PRODUCT2(R)                                                                                                    \
    static void straight2_##R(int64_t k, const float *a0, int64_t lda, const float *b, int64_t ldb,                    \
                              ahead next, const float *start, const float *from, int64_t ldf, const float *add,        \
                              bool relu, bool stream, float *c, int64_t ldc) {                                         \
        const float *a1 = a0 + 4 * lda, *a2 = a0 + 8 * lda;                                                            \
        const int64_t lda3 = 3 * lda;                                                                                  \
        ROWS_##R(CLEAR2);                                                                                              \
        for (; k > 0; k--, a0++, a1++, a2++, b += ldb) {                                                               \
            vec b0 = vec_load(b), b1 = vec_load(b + THAW_LANES);                                                       \
            FETCH(FIRST);                                                                                              \
            ROWS_##R(STEP2);                                                                                           \
        }                                                                                                              \
        vec first = start ? vec_load(start) : vec_all(0.0f), second = start ? vec_load(start + THAW_LANES) : first;    \
        ROWS_##R(FINISH2);                                                                                             \
        (void)lda3;                                                                                                    \
    }                                                                                                                  \
    static void turned2_##R(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb,                       \
                              ahead next, const float *start, const float *from, int64_t ldf, const float *add,        \
                              bool relu, bool stream, float *c, int64_t ldc) {                                         \
        ROWS_##R(CLEAR2);                                                                                              \
        for (; k > 0; k--, a += lda, b += ldb) {                                                                       \
            vec b0 = vec_load(b), b1 = vec_load(b + THAW_LANES);                                                       \
            FETCH(SECOND);                                                                                             \
            ROWS_##R(TURNED2);                                                                                         \
        }                                                                                                              \
        vec first = start ? vec_load(start) : vec_all(0.0f), second = start ? vec_load(start + THAW_LANES) : first;    \
        ROWS_##R(FINISH2);                                                                                             \
    }
#define PRODUCT1(R)                                                                                                    \
    static void straight1_##R(int64_t k, const float *a0, int64_t lda, const float *b, int64_t ldb,                    \
                              ahead next, const float *start, const float *from, int64_t ldf, const float *add,        \
                              bool relu, bool stream, float *c, int64_t ldc) {                                         \
        const float *a1 = a0 + 4 * lda, *a2 = a0 + 8 * lda;                                                            \
        const int64_t lda3 = 3 * lda;                                                                                  \
        ROWS_##R(CLEAR1);                                                                                              \
        for (; k > 0; k--, a0++, a1++, a2++, b += ldb) {                                                               \
            vec b0 = vec_load(b);                                                                                      \
            FETCH(FIRST);                                                                                              \
            ROWS_##R(STEP1);                                                                                           \
        }                                                                                                              \
        vec first = start ? vec_load(start) : vec_all(0.0f);                                                           \
        ROWS_##R(FINISH1);                                                                                             \
        (void)lda3;                                                                                                    \
    }                                                                                                                  \
    static void turned1_##R(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb,                       \
                              ahead next, const float *start, const float *from, int64_t ldf, const float *add,        \
                              bool relu, bool stream, float *c, int64_t ldc) {                                         \
        ROWS_##R(CLEAR1);                                                                                              \
        for (; k > 0; k--, a += lda, b += ldb) {                                                                       \
            vec b0 = vec_load(b);                                                                                      \
            FETCH(SECOND);                                                                                             \
            ROWS_##R(TURNED1);                                                                                         \
        }                                                                                                              \
        vec first = start ? vec_load(start) : vec_all(0.0f);                                                           \
        ROWS_##R(FINISH1);                                                                                             \
    }
#if THAW_LANES == 16 /* a panel is one strip of two vectors, or of one */
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define LISTED(kind)                                                                                                   \
    {                                                                                                                  \
        kind##_1, kind##_2, kind##_3, kind##_4, kind##_5, kind##_6, kind##_7, kind##_8, kind##_9, kind##_10,           \
            kind##_11, kind##_12                                                                                       \
    }
EACH_ROWS(PRODUCT1)
static product *const STRAIGHT1[MOST_ROWS] = LISTED(straight1);
static product *const TURNED1_TABLE[MOST_ROWS] = LISTED(turned1);
#else /* a panel is several strips of two vectors */
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define LISTED(kind)                                                                                                   \
    {                                                                                                                  \
        kind##_1, kind##_2, kind##_3, kind##_4, kind##_5, kind##_6                                                     \
    }
#endif
EACH_ROWS(PRODUCT2)
static product *const STRAIGHT2[MOST_ROWS] = LISTED(straight2);
static product *const TURNED2_TABLE[MOST_ROWS] = LISTED(turned2);

/* Multiplies passes of even numbers of rows with strips of w columns; row r of a is at a + r*step. Fetched are the next rows of
 * a, or where they lie side by side (step 1) the next piece of it, and the next piece of b, each a share in every pass: they are
 * where these end. */
static void passes(product *const *two, product *const *one, int64_t m, int64_t w, int64_t k, const float *a, int64_t step,
                   int64_t lda, const float *b, int64_t ldb, const float *start, const float *from, int64_t ldf,
                   const float *add, bool relu, bool stream, float *c, int64_t ldc) {
    int64_t n = (m + MOST_ROWS - 1) / MOST_ROWS;
    for (int64_t pass = 0; pass < n; pass++) {
        int64_t r0 = pass * m / n, rows = (pass + 1) * m / n - r0;
        const int64_t share = k + pass * k / n;
        const ahead next = {step == 1 ? a + share * lda : a + (r0 + rows) * step, b + share * ldb, step == 1 ? lda / n : LINE,
                            ldb / n};
        for (int64_t j = 0; j < w; j += 2 * THAW_LANES) {
            product *const *kind = w - j < 2 * THAW_LANES ? one : two;
            kind[rows - 1](k, a + r0 * step, lda, b + j, ldb, next, start ? start + j : start,
                           from + r0 * ldf + j, ldf, add ? add + r0 * ldc + j : add, relu, stream, c + r0 * ldc + j, ldc);
        }
    }
}

#if THAW_LANES == 16
#define ONE(kind) kind
#else
#define ONE(kind) 0
#endif

void THAW_NAMED(thaw_multiply)(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, int64_t piece, const float *b,
                               const float *start, const float *add, bool relu, bool stream, float *c, int64_t ldc,
                               float *side) {
    float *partial = side ? side : c;
    const int64_t ldp = side ? w : ldc;
    for (int64_t k0 = 0; k0 < k || k0 == 0; k0 += THAW_DEPTH, a += piece) {
        bool first = k0 == 0, last = k0 + THAW_DEPTH >= k;
        passes(STRAIGHT2, ONE(STRAIGHT1), m, w, last ? k - k0 : THAW_DEPTH, a, lda, lda, b + k0 * w, w, first ? start : 0,
               first ? c : partial, first ? ldc : ldp, last ? add : 0, relu && last, stream && last && (side || first),
               last ? c : partial, last ? ldc : ldp);
    }
}

void THAW_NAMED(thaw_multiply_transposed)(int64_t m, int64_t w, int64_t k, const float *a, int64_t lda, const float *b,
                                          int64_t ldb, bool accumulate, float *c, int64_t ldc) {
    static const float zero[THAW_PANEL];
    for (int64_t k0 = 0; k0 < k || (k0 == 0 && !accumulate); k0 += THAW_DEPTH) {
        int64_t depth = k - k0 < THAW_DEPTH ? k - k0 : THAW_DEPTH;
        passes(TURNED2_TABLE, ONE(TURNED1_TABLE), m, w, depth, a + k0 * lda, 1, lda, b + k0 * ldb, ldb,
               accumulate || k0 ? 0 : zero, c, ldc, 0, false, false, c, ldc);
    }
}
