/* Which instruction set is in force. */
#include "kernels/isa.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define TABLE(isa, width)                                                                                              \
    THAW_ISA_DECLARE(isa);                                                                                             \
    static const thaw_isa isa##_table = {#isa,                                                                         \
                                         width,                                                                        \
                                         thaw_probe_##isa,                                                             \
                                         thaw_multiply_##isa,                                                          \
                                         thaw_multiply_transposed_##isa,                                               \
                                         thaw_winograd_input_##isa,                                                    \
                                         thaw_winograd_output_##isa,                                                   \
                                         thaw_winograd_pooled_##isa,                                                   \
                                         thaw_winograd_filter_##isa,                                                   \
                                         thaw_winograd_gradient_##isa,                                                 \
                                         thaw_winograd_taps_##isa,                                                     \
                                         thaw_window_average_##isa,                                                     \
                                         thaw_window_maximum_##isa,                                                     \
                                         thaw_norm_gradient_##isa,                                                     \
                                         thaw_relu_gradient_##isa,                                                     \
                                         thaw_add_##isa,                                                               \
                                         thaw_transpose_##isa,                                                         \
                                         thaw_fence_##isa}
TABLE(portable, 4);
#ifdef THAW_ISA_X86
TABLE(avx2, 8);
TABLE(avx512, 16);
#endif

static const thaw_isa *in_force;

static const thaw_isa *named(const char *name) {
#ifdef THAW_ISA_X86
    __builtin_cpu_init();
    if (strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"))
        return &avx512_table;
    if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &avx2_table;
#endif
    return strcmp(name, "portable") == 0 ? &portable_table : NULL;
}

static void choose(void) {
    const char *wish = getenv("THAW_ISA");
    in_force = wish ? named(wish) : NULL;
    if (wish && *wish && !in_force)
        thaw_warn("THAW_ISA=%s is not among what this processor has of avx512, avx2 and portable, and ignored", wish);
    static const char *const best[] = {"avx512", "avx2", "portable"};
    for (int i = 0; i < 3 && !in_force; i++)
        in_force = named(best[i]);
}

const thaw_isa *thaw_isa_get(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return in_force;
}

bool thaw_isa_choose(const char *name) {
    thaw_isa_get();
    const thaw_isa *found = named(name);
    if (found)
        in_force = found;
    return found != NULL;
}

bool thaw_streams(const float *y, int64_t rows, int64_t c) {
    enum { LARGE = 8 << 20 }; /* bytes: more than a thread's share of the last cache */
    bool lies_well = c % 16 == 0 && (uintptr_t)y % 64 == 0;
    return lies_well && rows * c > LARGE / (int64_t)sizeof *y;
}
