/* Conversions without branches, which compilers turn into vectors of any instruction set. */
#include "base/half.h"

#include <stdbool.h>
#include <string.h>

enum { PIECE = 512 };

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t encode(float value) {
    const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u;
    uint32_t size = bits & 0x7fffffffu;
    const uint32_t special = size > 0x7f800000u ? 0x7e00u : 0x7c00u; /* NaN, infinity */
    const bool finite = size < 0x7f800000u;
    size = size > 0x477fe000u ? 0x477fe000u : size; /* 65504 */
    /* Below 2^-14 a half counts in steps of 2^-24, as a float does from 0.5 on: the addition rounds. */
    const uint32_t small = bits_of(float_of(size) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13; /* another exponent; to even */
    const uint32_t half = size < 0x38800000u ? small : normal;
    return (uint16_t)(sign | (finite ? half : special));
}

static inline float decode(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, size = half & 0x7fffu;
    const uint32_t normal = (size << 13) + 0x38000000u, special = (size << 13) + 0x70000000u;
    const uint32_t small = bits_of(float_of((size << 13) + 0x38800000u) - 0x1p-14f); /* exact */
    return float_of(sign | (size < 0x0400u ? small : size < 0x7c00u ? normal : special));
}

void thaw_half_decode(float *value, const uint16_t *half, size_t n) {
    for (size_t i = 0; i < n; i++)
        value[i] = decode(half[i]);
}

/* Sums in eight lanes, always the same ones: the order of additions is no choice of the compiler's. m: a multiple of 8. */
static void add_error(thaw_half_error *error, const float *value, const float *rounded, size_t m) {
    double error2[8] = {0}, value2[8] = {0};
    for (size_t i = 0; i < m; i += 8)
        for (size_t k = 0; k < 8; k++) {
            const double x = (double)value[i + k], d = x - (double)rounded[i + k];
            error2[k] += d * d;
            value2[k] += x * x;
        }
    for (int k = 0; k < 8; k++) {
        error->error2 += error2[k];
        error->value2 += value2[k];
    }
}

void thaw_half_encode(uint16_t *half, const float *value, size_t n, thaw_half_error *error) {
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t m = n - at < PIECE ? n - at : PIECE;
        float finite[PIECE], rounded[PIECE];
        uint32_t cut = 0;
        for (size_t i = 0; i < m; i++)
            half[at + i] = encode(value[at + i]);
        thaw_half_decode(rounded, half + at, m);
        for (size_t i = 0; i < m; i++) {
            const uint32_t size = bits_of(value[at + i]) & 0x7fffffffu, known = size < 0x7f800000u ? ~0u : 0u;
            cut += size >= 0x477ff000u && size < 0x7f800000u;
            finite[i] = float_of(bits_of(value[at + i]) & known);
            rounded[i] = float_of(bits_of(rounded[i]) & known);
        }
        for (size_t i = m; i % 8; i++)
            finite[i] = rounded[i] = 0.0f;
        add_error(error, finite, rounded, (m + 7) / 8 * 8);
        error->cut += cut;
    }
}

/* 2^n, -126 <= n <= 127. */
static inline float power_of(int n) { return float_of((uint32_t)(n + 127) << 23); }

int thaw_half_shift(const float *value, size_t n) {
    uint32_t most = 0; /* sizes of floats order as their bits do */
    for (size_t i = 0; i < n; i++) {
        const uint32_t size = bits_of(value[i]) & 0x7fffffffu;
        most = size > most ? size : most;
    }
    if (most == 0 || most >= 0x7f800000u)
        return 0;
    const int shift = 14 + 127 - (int)(most >> 23);
    return shift > 100 ? 100 : shift;
}

void thaw_half_split(uint16_t *half, float *value, float *lost, size_t n, int shift) {
    const float up = power_of(shift), down = power_of(-shift);
    for (size_t i = 0; i < n; i++) {
        const uint16_t coded = encode(value[i] * up);
        const float kept = decode(coded) * down;
        const uint32_t known = (bits_of(value[i]) & 0x7fffffffu) < 0x7f800000u ? ~0u : 0u;
        lost[i] += float_of(bits_of(value[i] - kept) & known);
        half[i] = coded;
        value[i] = kept;
    }
}

void thaw_half_join(float *value, const uint16_t *half, size_t n, int shift) {
    const float down = power_of(-shift);
    for (size_t i = 0; i < n; i++)
        value[i] = decode(half[i]) * down;
}
