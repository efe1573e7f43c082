/* Shared by the tests of kernels: arrays of small integers, windows, comparison. */
#ifndef KERNEL_CASE_H
#define KERNEL_CASE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"

static uint64_t case_state = 1;

__attribute__((unused)) static uint32_t case_draw(void) {
    case_state = case_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(case_state >> 33);
}

/* Integers in [-most, most], so that all sums are exact. */
__attribute__((unused)) static float *integers(int64_t count, int most) {
    float *to = thaw_malloc((size_t)count * sizeof *to);
    assert_non_null(to);
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)((int)(case_draw() % (uint32_t)(2 * most + 1)) - most);
    return to;
}

/* Values with all bits of the mantissa in use, about in [-1, 1], so that the order of a sum shows. */
__attribute__((unused)) static float *fractions(int64_t count) {
    float *to = thaw_malloc((size_t)count * sizeof *to);
    assert_non_null(to);
    for (int64_t i = 0; i < count; i++)
        to[i] = (float)((double)case_draw() / 0x1p30 - 1.0);
    return to;
}

__attribute__((unused)) static float *copy_of(const float *from, int64_t count) {
    float *to = thaw_malloc((size_t)count * sizeof *to);
    assert_non_null(to);
    memcpy(to, from, (size_t)count * sizeof *to);
    return to;
}

/* Filled with a pattern, so that what is not written shows. */
__attribute__((unused)) static float *unset(int64_t count) {
    float *to = thaw_malloc((size_t)count * sizeof *to);
    assert_non_null(to);
    memset(to, 0x5a, (size_t)count * sizeof *to);
    return to;
}

__attribute__((unused)) static void assert_same(const float *a, const float *b, int64_t count, const char *what) {
    for (int64_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(a[i] == 0.0f && b[i] == 0.0f))
            fail_msg("%s: value %lld of %lld: %.9g, expected %.9g", what, (long long)i, (long long)count, (double)a[i],
                     (double)b[i]);
}

__attribute__((unused)) static void assert_near(const float *a, const float *b, int64_t count, double tolerance,
                                                const char *what) {
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= tolerance * (1.0 + fabs((double)b[i]))))
            fail_msg("%s: value %lld of %lld: %.9g, expected %.9g", what, (long long)i, (long long)count, (double)a[i],
                     (double)b[i]);
}

/* A window with outputs for the given padding. */
__attribute__((unused)) static thaw_window window_of(int64_t h, int64_t w, int64_t cin, int64_t cout, int64_t kh, int64_t kw,
                                                     int64_t sh, int64_t sw, int64_t dh, int64_t dw, int64_t top,
                                                     int64_t bottom, int64_t left, int64_t right) {
    thaw_window s = {.h = h, .w = w, .cin = cin, .cout = cout, .kh = kh, .kw = kw, .sh = sh, .sw = sw, .dh = dh, .dw = dw,
                     .pad_top = top, .pad_left = left};
    s.oh = (h + top + bottom - dh * (kh - 1) - 1) / sh + 1;
    s.ow = (w + left + right - dw * (kw - 1) - 1) / sw + 1;
    return s;
}

/* Scratch of exactly the size that is stated (sanitizers watch its end). */
__attribute__((unused)) static void *scratch_of(size_t bytes) {
    void *scratch = thaw_malloc(bytes);
    assert_non_null(scratch);
    memset(scratch, 0x5a, bytes);
    return scratch;
}
#endif
