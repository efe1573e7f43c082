#include <fenv.h>
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/threads.h"

enum { MOST_CORES = 1 << 15 }; /* the kernel's mask is never wider */

static _Atomic int threads = 1;

int thaw_threads_mask(uint64_t *words, int n_words) {
    memset(words, 0, (size_t)n_words * sizeof *words);
    /* The kernel refuses sets smaller than its own: a set is asked for that holds any machine. */
    unsigned long set[MOST_CORES / (8 * sizeof(unsigned long))] = {0};
    if (sched_getaffinity(0, sizeof set, (cpu_set_t *)(void *)set) != 0)
        return 0;
    int cores = 0;
    for (int core = 0; core < MOST_CORES; core++) {
        if (!CPU_ISSET_S((size_t)core, sizeof set, (const cpu_set_t *)(const void *)set))
            continue;
        cores++;
        if (core / 64 < n_words)
            words[core / 64] |= UINT64_C(1) << core % 64;
    }
    return cores;
}

int thaw_threads(void) { return atomic_load_explicit(&threads, memory_order_relaxed); }

int thaw_threads_busy(void) { return omp_in_parallel(); }

void thaw_threads_set(int n) {
    if (n < 1)
        n = 1;
    atomic_store(&threads, n);
    omp_set_dynamic(0);
    omp_set_num_threads(n);
    /* Every thread computes in the caller's floating-point environment (rounding, denormals), so that which thread
     * takes a piece of work never changes its bits. */
    fenv_t environment;
    fegetenv(&environment);
#pragma omp parallel
    fesetenv(&environment);
}
