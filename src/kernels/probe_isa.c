/* The most multiply-adds that a core makes: independent chains in registers, enough of them to hide the latency. */
#include "kernels/isa.h"
#include "kernels/simd.h"

THAW_ISA_DECLARE(THAW_ISA);

#define CHAINS_12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#if THAW_LANES == 16
#define CHAINS(X) CHAINS_12(X) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)
enum { N_CHAINS = 24 };
#else
#define CHAINS(X) CHAINS_12(X)
enum { N_CHAINS = 12 };
#endif

#define LOAD(r) vec s##r = vec_load(values + (r + 2) * THAW_LANES);
#define STEP(r) s##r = vec_fma(s##r, a, b); /* a product of constants would be taken out of the loop */
#define STORE(r) vec_store(values + (r + 2) * THAW_LANES, s##r);

int64_t THAW_NAMED(thaw_probe)(int64_t rounds, float *values) {
    const vec a = vec_load(values), b = vec_load(values + THAW_LANES);
    CHAINS(LOAD)
    for (int64_t i = 0; i < rounds; i++) {
        CHAINS(STEP)
    }
    CHAINS(STORE)
    return 2 * THAW_LANES * N_CHAINS * rounds;
}
