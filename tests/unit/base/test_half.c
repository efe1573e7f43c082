/* Halves as storage: every half and every kind of float against rounding in double. */
#include "base_case.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

#include "base/half.h"

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The value of a half that is no NaN and not infinite, by its definition. */
static double meaning(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return half & 0x8000 ? -size : size;
}

/* To nearest, ties to even, in double; cut at 65504. rint is to even, and scaling by powers of two is exact. */
static double nearest(double x) {
    int exponent;
    frexp(x, &exponent);
    const int step = exponent - 11 > -24 ? exponent - 11 : -24;
    const double rounded = ldexp(rint(ldexp(x, -step)), step);
    return rounded > 65504.0 ? 65504.0 : rounded < -65504.0 ? -65504.0 : rounded;
}

static uint16_t encode(float value) {
    thaw_half_error error = {0};
    uint16_t half;
    thaw_half_encode(&half, &value, 1, &error);
    return half;
}

static void test_every_half(void **state) {
    (void)state;
    static uint16_t half[65536], again[65536];
    static float value[65536];
    thaw_half_error error = {0};
    for (int i = 0; i < 65536; i++)
        half[i] = (uint16_t)i;
    thaw_half_decode(value, half, 65536);
    thaw_half_encode(again, value, 65536, &error);
    for (int i = 0; i < 65536; i++) {
        const bool special = (i & 0x7c00) == 0x7c00;
        if (!special && ((double)value[i] != meaning(half[i]) || !signbit(value[i]) != !(i >> 15)))
            fail_msg("half %04x becomes %a", i, (double)value[i]);
        if (special && ((i & 1023) ? !isnan(value[i]) : !isinf(value[i])))
            fail_msg("half %04x becomes %a", i, (double)value[i]);
        if ((i & 1023) && special ? !((again[i] & 0x7c00) == 0x7c00 && (again[i] & 1023)) : again[i] != half[i])
            fail_msg("half %04x comes back as %04x", i, again[i]);
    }
    assert_true(error.error2 == 0.0 && error.cut == 0.0 && error.value2 > 0.0);
}

static void check(uint32_t bits) {
    const float value = float_of(bits);
    const uint16_t half = encode(value);
    if (meaning(half) != nearest((double)value) || half >> 15 != bits >> 31)
        fail_msg("%a (%08x) becomes %04x, nearest is %a", (double)value, bits, half, nearest((double)value));
}

/* Around every half and every middle between two, and floats over the whole range. */
static void test_nearest_even(void **state) {
    (void)state;
    for (uint32_t half = 0; half < 0x7bff; half++)
        for (int side = 0; side < 2; side++) {
            const double a = meaning((uint16_t)half), b = meaning((uint16_t)(half + 1));
            const uint32_t at = bits_of((float)(side ? (a + b) / 2 : a)); /* exact */
            for (uint32_t d = 0; d < 3; d++) {
                check((at + d) ^ 0x80000000u);
                check(at > d ? at - d : 0);
            }
        }
    for (uint64_t bits = 0; bits < 0x7f800000u; bits += 4099) {
        check((uint32_t)bits);
        check((uint32_t)bits | 0x80000000u);
    }
    assert_true(encode(float_of(0x7f800000u)) == 0x7c00 && encode(float_of(0xff800000u)) == 0xfc00);
}

/* Beyond the range: 65504, counted; NaN and infinity stay what they are and count for nothing. */
static void test_cut_and_error(void **state) {
    (void)state;
    float values[] = {65504.0f, 65519.99f, 65520.0f, -65520.0f, 1e30f, -FLT_MAX, NAN, INFINITY, -INFINITY, 0.1f, -0.0f};
    enum { N = sizeof values / sizeof *values };
    static const uint16_t wanted[N] = {0x7bff, 0x7bff, 0x7bff, 0xfbff, 0x7bff, 0xfbff, 0x7e00, 0x7c00, 0xfc00, 0x2e66, 0x8000};
    uint16_t half[N];
    thaw_half_error error = {0};
    thaw_half_encode(half, values, N, &error);
    for (int i = 0; i < N; i++)
        assert_int_equal(half[i], wanted[i]);
    assert_true(error.cut == 4.0);

    enum { COUNT = 1237 }; /* several pieces and a rest */
    static float x[COUNT], y[COUNT];
    static uint16_t h[COUNT];
    double error2 = 0.0, value2 = 0.0;
    for (int i = 0; i < COUNT; i++)
        x[i] = (float)sin(i * 1.7) * 3.0f;
    x[5] = INFINITY;
    x[700] = NAN;
    error = (thaw_half_error){0};
    thaw_half_encode(h, x, COUNT, &error);
    thaw_half_decode(y, h, COUNT);
    for (int i = 0; i < COUNT; i++) {
        if (!isfinite(x[i]))
            continue;
        error2 += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        value2 += (double)x[i] * (double)x[i];
    }
    assert_true(fabs(error.error2 / error2 - 1.0) < 1e-12 && fabs(error.value2 / value2 - 1.0) < 1e-12 && error.cut == 0.0);
    const double relative = sqrt(error2 / value2);
    assert_true(relative > 1e-4 && relative < 0x1p-11);
}

/* Values of any size keep 11 bits of the largest, and what is lost is added up. */
static void test_scaled(void **state) {
    (void)state;
    enum { N = 1000 };
    static float x[N], kept[N], lost[N], again[N];
    static uint16_t half[N];
    for (int exponent = -149; exponent <= 127; exponent++) {
        float most = 0.0f;
        for (int i = 0; i < N; i++) {
            x[i] = kept[i] = ldexpf((float)sin(i * 1.3) * (i % 3 ? 1.0f : 1e-4f), exponent);
            lost[i] = 3.0f * x[i];
            most = fmaxf(most, fabsf(x[i]));
        }
        const int shift = thaw_half_shift(x, N);
        assert_true(shift == 100 ? exponent <= -85 : ldexpf(most, shift) >= 0x1p14f && ldexpf(most, shift) < 0x1p15f);
        thaw_half_split(half, kept, lost, N, shift);
        thaw_half_join(again, half, N, shift);
        for (int i = 0; i < N; i++) {
            const double error = (double)x[i] - (double)kept[i];
            assert_true(again[i] == kept[i] && kept[i] == (float)ldexp(meaning(half[i]), -shift));
            assert_true(fabs(error) <= fmax(fabs((double)x[i]) * 0x1p-11, fmax((double)most * 0x1p-38, 0x1p-125)));
            assert_true(lost[i] == 3.0f * x[i] + (float)error);
        }
    }
    const float zero[2] = {0.0f, -0.0f}, odd[3] = {1e30f, INFINITY, NAN};
    assert_int_equal(thaw_half_shift(zero, 2), 0);
    assert_int_equal(thaw_half_shift(odd, 3), 0);
    assert_int_equal(thaw_half_shift(odd, 0), 0);
    memcpy(kept, odd, sizeof odd);
    memset(lost, 0, sizeof odd);
    thaw_half_split(half, kept, lost, 3, 0);
    assert_true(kept[0] == 65504.0f && lost[0] == 1e30f - 65504.0f);
    assert_true(isinf(kept[1]) && lost[1] == 0.0f && isnan(kept[2]) && lost[2] == 0.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_half), cmocka_unit_test(test_nearest_even),
                                       cmocka_unit_test(test_cut_and_error), cmocka_unit_test(test_scaled)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
