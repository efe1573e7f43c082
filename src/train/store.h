/* Rows of bytes that the ranks of a host share, in memory or in a file: what the boundary cache keeps. Private to src/train.
 *
 * File: a head of 4096 bytes, a checksum for each row (XXH3, 0: no row), the rows. A row counts if its checksum is right, so
 * nothing has to be undone after a kill, a full disk or a loss of power: rows that are not there are computed again. Two runs
 * with the same key may write the same file at once, for they write the same bytes. */
#ifndef THAW_TRAIN_STORE_H
#define THAW_TRAIN_STORE_H

#include "thaw/comm.h"

typedef struct thaw_store thaw_store;

/* A row is `n_parts` parts of part_bytes[] bytes; part k of row i of a block lies at block[k] + i * part_bytes[k]. */
typedef struct thaw_store_shape {
    uint64_t key; /* what the rows are; a file with another key holds none */
    int64_t rows;
    int n_parts;
    const size_t *part_bytes;
} thaw_store_shape;

/* Bytes that a store takes; false: more than can be counted. */
bool thaw_store_bytes(const thaw_store_shape *shape, uint64_t *bytes);
/* Name of the file in a folder: key and host are part of it. thaw_free. */
char *thaw_store_path(const char *folder, uint64_t key, const char *host);

/* Opens the store of this host: a file of `folder`, made if it is missing, or memory if that is NULL. Where the disk has no
 * room, and beyond 16 files, files of this host that were used longest ago are removed. Rows of a file are read and checked,
 * each rank its share. [in] shape: part_bytes is copied. Collective. Errors: THAW_RESOURCE, THAW_CANT_CREATE, THAW_IO, equal
 * on all ranks. */
thaw_status thaw_store_open(thaw_store **out, thaw_comm *comm, const char *folder, const thaw_store_shape *shape);
void thaw_store_close(thaw_store *store); /* NULL is accepted. Not collective. */
const char *thaw_store_name(const thaw_store *store); /* the file's path; NULL in memory */
/* Per row: some host lacks it. Equal on all ranks, as of the last thaw_store_open or thaw_store_settle. */
const bool *thaw_store_missing(const thaw_store *store);
int64_t thaw_store_n_missing(const thaw_store *store);

/* Row `row` to or from image `image` of a block. From any thread. get fails with THAW_IO if the row is not what was put. */
thaw_status thaw_store_get(const thaw_store *store, int64_t row, char *const *block, int64_t image);
thaw_status thaw_store_put(thaw_store *store, int64_t row, const char *const *block, int64_t image);
/* Takes every row as missing. Not collective. */
void thaw_store_forget(thaw_store *store);
/* Brings rows to all hosts: rank r has put rows[bounds[r] .. bounds[r+1]). Afterwards they are no longer missing, and every
 * rank of a host can get them. [in] bounds: ranks + 1, from 0. Collective. */
thaw_status thaw_store_settle(thaw_store *store, const int64_t *rows, const int64_t *bounds);
#endif
