/* The table of the reference kernels. */
#include <pthread.h>

#include "kernels/kernels_ref.h"

static thaw_kernels table = {.name = "reference"};

static void fill(void) {
    thaw_ref_conv(&table);
    thaw_ref_dense(&table);
    thaw_ref_pool(&table);
    thaw_ref_activation(&table);
    thaw_ref_rows(&table);
    thaw_ref_dropout(&table);
    thaw_ref_batch_norm(&table);
}

const thaw_kernels *thaw_kernels_reference(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill);
    return &table;
}
