/* Threads of a rank: the affinity mask divided by the ranks that share it. */
#ifndef THAW_BASE_THREADS_H
#define THAW_BASE_THREADS_H
#include <stdint.h>
int thaw_threads_mask(uint64_t *words, int n_words); /* cores of this process' affinity mask; returns their number */
int thaw_threads(void);          /* OpenMP threads that kernels use; 1 until set */
int thaw_threads_busy(void);     /* called from inside of a team at work, which must not start another one */
void thaw_threads_set(int n);    /* also sets OpenMP's number; denormals are kept as they are in every thread */
#endif
