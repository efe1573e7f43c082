/* What this machine can do at most: the rate of multiply-adds against which kernels are judged. */
#include "base/clock.h"
#include "kernels/isa.h"
#include "kernels/kernels_fast.h"

/* FLOP/s of all threads at once, `rounds` of the inner kernel each. */
static double rate_of(const thaw_isa *isa, int64_t rounds, double *seconds) {
    int64_t flop = 0;
    const double began = thaw_clock();
#pragma omp parallel num_threads(thaw_threads()) reduction(+ : flop)
    {
        float values[THAW_PROBE_FLOATS];
        for (int i = 0; i < THAW_PROBE_FLOATS; i++) /* x*0.75 + 0.25 stays in [0, 1] */
            values[i] = i < 2 * isa->lanes ? (i < isa->lanes ? 0.75f : 0.25f) : (float)i / THAW_PROBE_FLOATS;
        flop += isa->probe(rounds, values);
    }
    *seconds = thaw_clock() - began;
    return *seconds > 0.0 ? (double)flop / *seconds : 0.0;
}

double thaw_kernels_peak(double seconds) {
    enum { SLICE_MS = 10, MOST_ROUNDS = 1 << 26 }; /* long beside the start of threads, short beside a neighbour's turn */
    const thaw_isa *isa = thaw_isa_get();
    int64_t rounds = 1 << 10;
    double took, best = 0.0;
    rate_of(isa, rounds, &took); /* threads start */
    for (rate_of(isa, rounds, &took); took < 1e-3 * SLICE_MS && rounds < MOST_ROUNDS; rate_of(isa, rounds, &took))
        rounds *= 2;
    const double end = thaw_clock() + seconds;
    do {
        const double rate = rate_of(isa, rounds, &took);
        best = rate > best ? rate : best;
    } while (thaw_clock() < end);
    return best;
}
