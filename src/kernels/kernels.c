/* Which kernels are in force, and their description. */
#include "kernels/kernels.h"

#include <cblas.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kernels/isa.h"
#include "kernels/kernels_fast.h"

static thaw_kernels fast = {.name = "fast"};
static const thaw_kernels *in_force;
static char description[160];

static void start_blas(void) {
    /* A build on OpenMP already runs one thread inside our parallel regions, and there this call would set OpenMP's own
     * number of threads. */
    if (openblas_get_parallel() != OPENBLAS_OPENMP)
        openblas_set_num_threads(1);
}

static void fill_fast(void) {
    thaw_fast_conv(&fast);
    thaw_fast_conv_packed(&fast);
    thaw_fast_dense(&fast);
    thaw_fast_pool(&fast);
    thaw_fast_activation(&fast);
    thaw_fast_rows(&fast);
    thaw_fast_dropout(&fast);
    thaw_fast_batch_norm(&fast);
    start_blas();
}

const thaw_kernels *thaw_kernels_fast(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_fast);
    return &fast;
}

const char *thaw_kernels_blas(void) {
    /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ...": the first two words. */
    static char name[96];
    const char *config = openblas_get_config();
    size_t first = strcspn(config, " "), both = first + (config[first] == ' ');
    both += strcspn(config + both, " ");
    snprintf(name, sizeof name, "%.*s %s", (int)both, config, openblas_get_corename());
    return name;
}

static void choose(void) {
    const char *wish = getenv("THAW_KERNELS");
    bool reference = wish && strcmp(wish, "reference") == 0;
    if (wish && *wish && !reference && strcmp(wish, "fast") != 0)
        thaw_warn("THAW_KERNELS=%s is not known and ignored; fast and reference are", wish);
    in_force = reference ? thaw_kernels_reference() : thaw_kernels_fast();
    if (reference) {
        snprintf(description, sizeof description, "reference (plain loops, 1 thread)");
        return;
    }
    snprintf(description, sizeof description, "fast (%s, convolution %s; %s, 1 thread a call)", thaw_isa_get()->name,
             thaw_conv_mode_name(), thaw_kernels_blas());
}

const thaw_kernels *thaw_kernels_get(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return in_force;
}

const char *thaw_kernels_describe(void) {
    thaw_kernels_get();
    return description;
}

void thaw_kernels_init(void) { thaw_kernels_fast(); }
