/* Vectors of floats for the files that are compiled once per instruction set (*_isa.c). The build sets THAW_ISA (a word) and
 * THAW_LANES (floats of a vector). */
#ifndef THAW_KERNELS_SIMD_H
#define THAW_KERNELS_SIMD_H

#define THAW_PASTE2(a, b) a##_##b
#define THAW_PASTE(a, b) THAW_PASTE2(a, b)
#define THAW_NAMED(name) THAW_PASTE(name, THAW_ISA) /* thaw_multiply -> thaw_multiply_avx2 */

#if THAW_LANES == 16
#include <immintrin.h>
typedef __m512 vec;
static inline vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vec_store(float *p, vec a) { _mm512_storeu_ps(p, a); }
static inline vec vec_all(float a) { return _mm512_set1_ps(a); }
static inline vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec vec_subtract(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec vec_multiply(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_relu(vec a) { return _mm512_max_ps(_mm512_setzero_ps(), a); } /* NaN stays NaN: the second is taken */
/* b where a > 0, else 0 */
static inline vec vec_where_positive(vec a, vec b) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_GT_OQ), b);
}
static inline vec vec_divide(vec a, vec b) { return _mm512_div_ps(a, b); }
/* b where it is larger than a, or NaN; else a */
static inline vec vec_larger(vec a, vec b) {
    __mmask16 wins = _mm512_cmp_ps_mask(b, a, _CMP_GT_OQ) | _mm512_cmp_ps_mask(b, b, _CMP_UNORD_Q);
    return _mm512_mask_mov_ps(a, wins, b);
}
/* a0 b0 a1 b1 ..: first the lower halves of both, then the upper ones. */
static inline void vec_interleave(vec a, vec b, vec *low, vec *high) {
    const __m512i lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *low = _mm512_permutex2var_ps(a, lower, b);
    *high = _mm512_permutex2var_ps(a, _mm512_add_epi32(lower, _mm512_set1_epi32(8)), b);
}
/* To aligned memory past the caches: who reads it in another thread does so behind a fence. */
static inline void vec_stream(float *p, vec a) { _mm512_stream_ps(p, a); }
static inline void vec_fence(void) { _mm_sfence(); }
#elif THAW_LANES == 8
#include <immintrin.h>
typedef __m256 vec;
static inline vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vec_store(float *p, vec a) { _mm256_storeu_ps(p, a); }
static inline vec vec_all(float a) { return _mm256_set1_ps(a); }
static inline vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec vec_subtract(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec vec_multiply(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_relu(vec a) { return _mm256_max_ps(_mm256_setzero_ps(), a); }
static inline vec vec_where_positive(vec a, vec b) {
    return _mm256_and_ps(_mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_GT_OQ), b);
}
static inline vec vec_divide(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec vec_larger(vec a, vec b) {
    return _mm256_blendv_ps(a, b, _mm256_or_ps(_mm256_cmp_ps(b, a, _CMP_GT_OQ), _mm256_cmp_ps(b, b, _CMP_UNORD_Q)));
}
static inline void vec_interleave(vec a, vec b, vec *low, vec *high) {
    const vec even = _mm256_unpacklo_ps(a, b), odd = _mm256_unpackhi_ps(a, b); /* of each half of 4 */
    *low = _mm256_permute2f128_ps(even, odd, 0x20);
    *high = _mm256_permute2f128_ps(even, odd, 0x31);
}
static inline void vec_stream(float *p, vec a) { _mm256_stream_ps(p, a); }
static inline void vec_fence(void) { _mm_sfence(); }
#else /* any machine; a product and a sum are rounded one by one */
#include <string.h>
typedef float vec __attribute__((vector_size(16)));
typedef int vec_mask __attribute__((vector_size(16)));
static inline vec vec_load(const float *p) {
    vec a;
    memcpy(&a, p, sizeof a);
    return a;
}
static inline void vec_store(float *p, vec a) { memcpy(p, &a, sizeof a); }
static inline vec vec_all(float a) { return (vec){a, a, a, a}; }
static inline vec vec_add(vec a, vec b) { return a + b; }
static inline vec vec_subtract(vec a, vec b) { return a - b; }
static inline vec vec_multiply(vec a, vec b) { return a * b; }
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
static inline vec vec_relu(vec a) { return (vec)((vec_mask)a & ~(vec_mask)(a < vec_all(0.0f))); }
static inline vec vec_where_positive(vec a, vec b) { return (vec)((vec_mask)b & (vec_mask)(a > vec_all(0.0f))); }
static inline vec vec_divide(vec a, vec b) { return a / b; }
static inline vec vec_larger(vec a, vec b) {
    vec_mask wins = (vec_mask)(b > a) | (vec_mask)(b != b);
    return (vec)(((vec_mask)b & wins) | ((vec_mask)a & ~wins));
}
static inline void vec_interleave(vec a, vec b, vec *low, vec *high) {
    *low = (vec){a[0], b[0], a[1], b[1]};
    *high = (vec){a[2], b[2], a[3], b[3]};
}
static inline void vec_stream(float *p, vec a) { vec_store(p, a); }
static inline void vec_fence(void) {}
#endif

/* Eight doubles: what is to be rounded once. The compiler takes the registers there are. */
enum { WIDE = 8 };
typedef double doubles8 __attribute__((vector_size(8 * WIDE)));
typedef float floats8 __attribute__((vector_size(4 * WIDE), aligned(4)));
static inline __attribute__((always_inline)) void doubles8_load(doubles8 *to, const float *p) {
    *to = __builtin_convertvector(*(const floats8 *)(const void *)p, doubles8);
}
/* Rounded. */
static inline __attribute__((always_inline)) void doubles8_store(float *p, const doubles8 *a) {
    *(floats8 *)(void *)p = __builtin_convertvector(*a, floats8);
}
/* a b + c, rounded once where the processor can. */
static inline __attribute__((always_inline)) void doubles8_fma(doubles8 *to, double a, const doubles8 *b, const doubles8 *c) {
#if THAW_LANES == 16
    *to = (doubles8)_mm512_fmadd_pd(_mm512_set1_pd(a), (__m512d)*b, (__m512d)*c);
#elif THAW_LANES == 8
    for (int i = 0; i < WIDE; i += 4)
        _mm256_storeu_pd((double *)to + i, _mm256_fmadd_pd(_mm256_set1_pd(a), _mm256_loadu_pd((const double *)b + i),
                                                           _mm256_loadu_pd((const double *)c + i)));
#else
    *to = a * *b + *c;
#endif
}
/* Rounded; p: a multiple of 64 bytes. */
static inline __attribute__((always_inline)) void doubles8_stream(float *p, const doubles8 *a, const doubles8 *b) {
#if THAW_LANES == 16
    vec_stream(p, _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)*a)), _mm512_cvtpd_ps((__m512d)*b), 1));
#else
    const floats8 halves[2] = {__builtin_convertvector(*a, floats8), __builtin_convertvector(*b, floats8)};
    for (int i = 0; i < 2 * WIDE; i += THAW_LANES)
        vec_stream(p + i, vec_load((const float *)(const void *)halves + i));
#endif
}
#endif
