/* What is looked at before a command begins: whether ranks fit each other. */
#include <stdio.h>
#include <string.h>

#include "app.h"
#include "base/hash.h"
#include "base/memory.h"
#include "kernels/kernels.h"

enum { WORDS_BYTES = 192, HOST_BYTES = 64 };

/* What a rank says of itself. */
typedef struct words {
    char text[WORDS_BYTES], host[HOST_BYTES];
} words;

/* Compares a text over ranks. *rank: the lowest whose text is not rank 0's, 0 if there is none; then [out] zeros and theirs are
 * what the two say. Collective. */
static thaw_status find_other(thaw_app *app, const char *text, int *rank, words *zeros, words *theirs) {
    const double number = (double)(thaw_hash_text(text, 0) >> 12); /* exact in a double */
    double range[2] = {number, -number};
    *rank = 0;
    THAW_TRY(thaw_comm_max(app->comm, range, 2));
    if (range[0] == -range[1])
        return THAW_OK;
    const int ranks = thaw_comm_size(app->comm);
    words mine = {0}, *all = thaw_calloc((size_t)ranks, sizeof *all);
    thaw_status status = all ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory to compare %d ranks", ranks);
    THAW_GOTO(thaw_comm_agree(app->comm, status));
    snprintf(mine.text, sizeof mine.text, "%s", text);
    snprintf(mine.host, sizeof mine.host, "%s", thaw_comm_host(app->comm));
    THAW_GOTO(thaw_comm_allgather(app->comm, &mine, sizeof mine, all));
    for (*rank = 1; *rank < ranks - 1 && strcmp(all[*rank].text, all[0].text) == 0;)
        ++*rank;
    *zeros = all[0];
    *theirs = all[*rank];
out:
    thaw_free(all);
    return status;
}

thaw_status thaw_app_same_program(thaw_app *app) {
    words zeros, theirs;
    int rank;
    THAW_TRY(find_other(app, "thaw " THAW_VERSION, &rank, &zeros, &theirs));
    return rank == 0 ? THAW_OK
                     : thaw_fail(THAW_MISMATCH, "rank %d (%s) is %s, rank 0 (%s) is %s: install the same version of thaw on all "
                                 "hosts", rank, theirs.host, theirs.text, zeros.host, zeros.text);
}

thaw_status thaw_app_same_kernels(thaw_app *app) {
    words zeros, theirs;
    int rank;
    THAW_TRY(find_other(app, thaw_kernels_describe(), &rank, &zeros, &theirs));
    return rank == 0 ? THAW_OK
                     : thaw_fail(THAW_MISMATCH, "rank %d (%s) computes with other kernels than rank 0 (%s), and replicas would "
                                 "drift apart: %s; rank 0: %s. Set what the weakest host can (THAW_ISA, THAW_CONV, "
                                 "OPENBLAS_CORETYPE) on all", rank, theirs.host, zeros.host, theirs.text, zeros.text);
}
