#include "train/store.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "thaw/train.h"

enum { HEAD_BYTES = 4096, MOST_FILES = 16 };

#define PIECE_BYTES ((size_t)64 << 20) /* of rows on the way to other hosts */

static const char MAGIC[8] = "THAWROW1";
static const char PREFIX[] = "thaw-cache-";

typedef struct head {
    char magic[8];
    uint64_t key;
    int64_t rows;
    uint64_t row_bytes;
    uint64_t check; /* hash of the fields before */
} head;

struct thaw_store {
    thaw_comm *comm;
    thaw_file *file;
    char *path; /* NULL: memory */
    head head;
    int n_parts;
    size_t *part_bytes;
    uint64_t *sums; /* of rows, as the file has them */
    bool *missing;
    int64_t n_missing;
    int *host; /* per rank: the lowest rank of its host */
};

static thaw_status no_memory(const thaw_store_shape *shape) {
    return thaw_fail(THAW_RESOURCE, "no memory for the index of %lld cached rows", (long long)shape->rows);
}

static head head_of(const thaw_store_shape *shape) {
    head h = {.key = shape->key, .rows = shape->rows};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    for (int i = 0; i < shape->n_parts; i++)
        h.row_bytes += shape->part_bytes[i];
    h.check = thaw_hash(&h, offsetof(head, check), 0);
    return h;
}

static uint64_t sums_at(int64_t row) { return HEAD_BYTES + (uint64_t)row * sizeof(uint64_t); }

static uint64_t rows_at(const head *h) { return (sums_at(h->rows) + HEAD_BYTES - 1) / HEAD_BYTES * HEAD_BYTES; }

bool thaw_store_bytes(const thaw_store_shape *shape, uint64_t *bytes) {
    const head h = head_of(shape);
    if (shape->rows < 0 || shape->rows > INT64_MAX / 4096)
        return false;
    return !__builtin_mul_overflow(h.row_bytes, (uint64_t)shape->rows, bytes) &&
           !__builtin_add_overflow(*bytes, rows_at(&h), bytes) && *bytes <= INT64_MAX;
}

char *thaw_store_path(const char *folder, uint64_t key, const char *host) {
    char *name = thaw_format("%s%016llx.%s", PREFIX, (unsigned long long)key, host);
    for (char *c = name; c && *c; c++)
        if (*c == '/')
            *c = '-';
    char *path = name ? thaw_path_join(folder, name) : NULL;
    thaw_free(name);
    return path;
}

/* Chained over the parts; never 0, which says that there is no row. */
static uint64_t sum_part(const void *part, size_t bytes, uint64_t before) {
    uint64_t sum = thaw_hash(part, bytes, before);
    return sum ? sum : 1;
}

static uint64_t row_at(const thaw_store *s, int64_t row) {
    return rows_at(&s->head) + (uint64_t)row * s->head.row_bytes;
}

/* The row and its checksum as found now, whatever was expected. */
static thaw_status read_row(const thaw_store *s, int64_t row, char *const *block, int64_t image, uint64_t *sum) {
    uint64_t at = row_at(s, row);
    *sum = 0;
    for (int k = 0; k < s->n_parts; k++) {
        size_t bytes = s->part_bytes[k];
        char *to = block[k] + (size_t)image * bytes;
        THAW_TRY(thaw_file_read(s->file, to, bytes, at));
        *sum = sum_part(to, bytes, *sum);
        at += bytes;
    }
    return THAW_OK;
}

thaw_status thaw_store_get(const thaw_store *s, int64_t row, char *const *block, int64_t image) {
    uint64_t sum;
    THAW_TRY(read_row(s, row, block, image, &sum));
    if (sum == s->sums[row])
        return THAW_OK;
    return thaw_fail(THAW_IO, "%s: row %lld of the cache is not what was written: the disk or memory is faulty, or somebody "
                              "changed the file; remove it and resume", thaw_file_name(s->file), (long long)row);
}

thaw_status thaw_store_put(thaw_store *s, int64_t row, const char *const *block, int64_t image) {
    uint64_t at = row_at(s, row), sum = 0;
    for (int k = 0; k < s->n_parts; k++) {
        size_t bytes = s->part_bytes[k];
        const char *from = block[k] + (size_t)image * bytes;
        THAW_TRY(thaw_file_write(s->file, from, bytes, at));
        sum = sum_part(from, bytes, sum);
        at += bytes;
    }
    s->sums[row] = sum;
    return thaw_file_write(s->file, &sum, sizeof sum, sums_at(row)); /* last: a row without it is no row */
}

/* Files of this host in the folder, the one used longest ago first; `except` is left out. */
typedef struct old_file {
    char *path;
    int64_t used;
} old_file;

static int by_use(const void *a, const void *b) {
    int64_t x = ((const old_file *)a)->used, y = ((const old_file *)b)->used;
    return (x > y) - (x < y);
}

static int list_files(old_file **out, const char *folder, const char *host, const char *except) {
    char **names = NULL, *end = thaw_format(".%s", host);
    int n = 0, kept = 0;
    *out = NULL;
    if (!end || thaw_io_list(&names, &n, folder) != THAW_OK)
        n = 0;
    old_file *files = n ? thaw_calloc((size_t)n, sizeof *files) : NULL;
    for (int i = 0; i < n; i++) {
        size_t length = strlen(names[i]), tail = strlen(end);
        bool ours = files && strncmp(names[i], PREFIX, sizeof PREFIX - 1) == 0 && length == sizeof PREFIX - 1 + 16 + tail &&
                    strcmp(names[i] + length - tail, end) == 0;
        char *path = ours ? thaw_path_join(folder, names[i]) : NULL;
        if (path && strcmp(path, except) != 0)
            files[kept++] = (old_file){path, thaw_io_modified(path)};
        else
            thaw_free(path);
        thaw_free(names[i]);
    }
    thaw_free(names);
    thaw_free(end);
    if (kept)
        qsort(files, (size_t)kept, sizeof *files, by_use);
    *out = files;
    return kept;
}

/* Opens the file, making room for it. */
static thaw_status open_file(thaw_store *s, const char *folder, uint64_t bytes) {
    old_file *files = NULL;
    THAW_TRY(thaw_io_mkdirs(folder));
    bool exists = thaw_io_exists(s->path);
    int n = exists ? 0 : list_files(&files, folder, thaw_comm_host(s->comm), s->path), gone = 0;
    thaw_status status;
    for (;;) {
        while (!exists && n - gone >= MOST_FILES)
            if (thaw_io_remove(files[gone++].path) != THAW_OK)
                thaw_warn("an old cache file stays: %s", thaw_message());
        status = thaw_file_open(&s->file, s->path, bytes);
        if (status != THAW_IO || exists || gone == n)
            break;
        if (thaw_io_remove(files[gone].path) == THAW_OK)
            thaw_info("cache: %s was removed to make room", files[gone].path);
        gone++;
    }
    for (int i = 0; i < n; i++)
        thaw_free(files[i].path);
    thaw_free(files);
    if (status != THAW_OK && !exists) { /* nothing half made stays; the message is that of the failure */
        char *message = thaw_strdup(thaw_message());
        thaw_io_remove(s->path);
        thaw_fail(status, "%s", message ? message : "no memory");
        thaw_free(message);
    }
    return status;
}

/* Checksums of a file with this key; else the file is made one without rows. */
static thaw_status read_sums(thaw_store *s) {
    char found[HEAD_BYTES] = {0};
    size_t bytes = (size_t)s->head.rows * sizeof *s->sums;
    THAW_TRY(thaw_file_read(s->file, found, sizeof found, 0));
    if (memcmp(found, &s->head, sizeof s->head) == 0)
        THAW_TRY(thaw_file_read(s->file, s->sums, bytes, sums_at(0)));
    else
        THAW_TRY(thaw_file_write(s->file, s->sums, bytes, sums_at(0))); /* zeros, before there is a head */
    memset(found, 0, sizeof found);
    memcpy(found, &s->head, sizeof s->head);
    return thaw_file_write(s->file, found, sizeof found, 0); /* always: the time of writing says when it was used last */
}

/* On the first rank of a host. */
static thaw_status make_file(thaw_store *s, const char *folder) {
    uint64_t bytes = rows_at(&s->head) + s->head.row_bytes * (uint64_t)s->head.rows;
    if (folder)
        THAW_TRY(open_file(s, folder, bytes));
    else
        THAW_TRY(thaw_file_memory(&s->file, "cached activations", bytes));
    return read_sums(s);
}

/* What ranks tell each other of the file that the first of each host made. */
typedef struct place {
    char host[256];
    int64_t local_rank, process, number;
} place;

/* On the other ranks: the file of the first rank of this host. */
static thaw_status join_file(thaw_store *s, const place *first) {
    char found[HEAD_BYTES];
    THAW_TRY(thaw_file_attach(&s->file, first->process, first->number));
    THAW_TRY(thaw_file_read(s->file, found, sizeof found, 0));
    if (memcmp(found, &s->head, sizeof s->head) != 0)
        return thaw_fail(THAW_SYSTEM, "the cache of another rank on %s cannot be shared: two hosts have this name", first->host);
    return thaw_file_read(s->file, s->sums, (size_t)s->head.rows * sizeof *s->sums, sums_at(0));
}

/* Opens the file on every rank: first ranks of hosts make it, the others join. Collective. */
static thaw_status share_file(thaw_store *s, const char *folder) {
    int rank = thaw_comm_rank(s->comm), ranks = thaw_comm_size(s->comm);
    place mine = {.local_rank = thaw_comm_local_rank(s->comm)};
    place *all = thaw_calloc((size_t)ranks, sizeof *all);
    thaw_status status = all && s->sums ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to share the cache");
    if (status == THAW_OK && mine.local_rank == 0)
        status = make_file(s, folder);
    THAW_GOTO(thaw_comm_agree(s->comm, status));
    strncpy(mine.host, thaw_comm_host(s->comm), sizeof mine.host - 1);
    if (mine.local_rank == 0)
        thaw_file_share(s->file, &mine.process, &mine.number);
    THAW_GOTO(thaw_comm_allgather(s->comm, &mine, sizeof mine, all));
    for (int r = 0; r < ranks; r++)
        for (int k = 0; k <= r; k++)
            if (all[k].local_rank == 0 && strcmp(all[k].host, all[r].host) == 0)
                s->host[r] = k; /* the last first rank before it: more than one have the name if hosts share it */
    if (mine.local_rank != 0)
        status = join_file(s, &all[s->host[rank]]);
    status = thaw_comm_agree(s->comm, status); /* behind it, everybody holds the file by itself */
out:
    thaw_free(all);
    return status;
}

/* Room for `images` rows as a block. */
static char **make_block(const thaw_store *s, size_t images) {
    char **block = thaw_calloc((size_t)s->n_parts, sizeof *block);
    char *bytes = block ? thaw_calloc(images, (size_t)s->head.row_bytes) : NULL;
    if (!bytes) {
        thaw_free(block);
        return NULL;
    }
    for (int k = 0; k < s->n_parts; k++) {
        block[k] = bytes;
        bytes += images * s->part_bytes[k];
    }
    return block;
}

static void free_block(char **block) {
    if (block)
        thaw_free(block[0]);
    thaw_free(block);
}

/* Which rows are not what their checksums say: each rank of a host looks at its share. */
static thaw_status check_rows(thaw_store *s, double *missing) {
    int local = thaw_comm_local_rank(s->comm), locals = thaw_comm_local_size(s->comm);
    int64_t first = thaw_share(s->head.rows, local, locals), end = thaw_share(s->head.rows, local + 1, locals);
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        char **block = make_block(s, 1);
        failed |= !block;
#pragma omp for schedule(static)
        for (int64_t row = first; row < end; row++) {
            uint64_t sum = 0;
            bool good = block && s->sums[row] && read_row(s, row, block, 0, &sum) == THAW_OK && sum == s->sums[row];
            missing[row] = !good;
        }
        free_block(block);
    }
    return failed ? thaw_fail(THAW_RESOURCE, "no memory to check the cache") : THAW_OK;
}

/* Missing on any host means missing. Collective. */
static thaw_status find_missing(thaw_store *s) {
    double *missing = thaw_calloc((size_t)s->head.rows, sizeof *missing);
    thaw_status status = missing ? check_rows(s, missing) : thaw_fail(THAW_RESOURCE, "no memory to check the cache");
    status = thaw_comm_agree(s->comm, status);
    if (status == THAW_OK)
        status = thaw_comm_max(s->comm, missing, (size_t)s->head.rows);
    s->n_missing = 0;
    for (int64_t i = 0; status == THAW_OK && i < s->head.rows; i++) {
        s->missing[i] = missing[i] > 0.0;
        s->n_missing += s->missing[i];
    }
    thaw_free(missing);
    return status;
}

thaw_status thaw_store_open(thaw_store **out, thaw_comm *comm, const char *folder, const thaw_store_shape *shape) {
    *out = NULL;
    thaw_store *s = thaw_calloc(1, sizeof *s);
    thaw_status status = s ? THAW_OK : no_memory(shape);
    if (s) {
        s->comm = comm;
        s->head = head_of(shape);
        s->n_parts = shape->n_parts;
        s->part_bytes = thaw_calloc((size_t)shape->n_parts, sizeof *s->part_bytes);
        s->sums = thaw_calloc((size_t)shape->rows, sizeof *s->sums);
        s->missing = thaw_calloc((size_t)shape->rows, sizeof *s->missing);
        s->host = thaw_calloc((size_t)thaw_comm_size(comm), sizeof *s->host);
        s->path = folder ? thaw_store_path(folder, shape->key, thaw_comm_host(comm)) : NULL;
        if (!s->part_bytes || !s->sums || !s->missing || !s->host || (folder && !s->path))
            status = no_memory(shape);
        else
            memcpy(s->part_bytes, shape->part_bytes, (size_t)shape->n_parts * sizeof *s->part_bytes);
    }
    status = thaw_comm_agree(comm, status);
    if (status == THAW_OK)
        status = share_file(s, folder);
    if (status == THAW_OK)
        status = find_missing(s);
    if (status != THAW_OK) {
        thaw_store_close(s);
        return status;
    }
    *out = s;
    return THAW_OK;
}

void thaw_store_close(thaw_store *s) {
    if (!s)
        return;
    thaw_file_close(s->file);
    thaw_free(s->path);
    thaw_free(s->part_bytes);
    thaw_free(s->sums);
    thaw_free(s->missing);
    thaw_free(s->host);
    thaw_free(s);
}

const char *thaw_store_name(const thaw_store *s) { return s->path; }
const bool *thaw_store_missing(const thaw_store *s) { return s->missing; }
int64_t thaw_store_n_missing(const thaw_store *s) { return s->n_missing; }

void thaw_store_forget(thaw_store *s) {
    for (int64_t i = 0; i < s->head.rows; i++)
        s->missing[i] = true;
    s->n_missing = s->head.rows;
}

/* Rows [first, end) of the list, which rank `root` has, to the hosts that it is not on: their ranks write every L-th each. */
static thaw_status send_rows(thaw_store *s, const int64_t *rows, int64_t first, int64_t end, int root, char **block,
                             int64_t images) {
    int rank = thaw_comm_rank(s->comm), local = thaw_comm_local_rank(s->comm), locals = thaw_comm_local_size(s->comm);
    for (int64_t at = first; at < end; at += images) {
        int64_t n = end - at < images ? end - at : images;
        thaw_status status = THAW_OK;
        for (int64_t i = 0; rank == root && i < n && status == THAW_OK; i++)
            status = thaw_store_get(s, rows[at + i], block, i);
        THAW_TRY(thaw_comm_agree(s->comm, status));
        for (int k = 0; k < s->n_parts; k++)
            THAW_TRY(thaw_comm_broadcast(s->comm, block[k], (size_t)n * s->part_bytes[k], root));
        for (int64_t i = 0; s->host[rank] != s->host[root] && i < n && status == THAW_OK; i++)
            if (i % locals == local)
                status = thaw_store_put(s, rows[at + i], (const char *const *)block, i);
        THAW_TRY(thaw_comm_agree(s->comm, status));
    }
    return THAW_OK;
}

static thaw_status send_all(thaw_store *s, const int64_t *rows, const int64_t *bounds) {
    int ranks = thaw_comm_size(s->comm);
    int64_t images = (int64_t)(PIECE_BYTES / (s->head.row_bytes ? s->head.row_bytes : 1)) + 1;
    if (images > bounds[ranks])
        images = bounds[ranks];
    char **block = make_block(s, (size_t)images);
    thaw_status status = thaw_comm_agree(s->comm, block ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to send cached rows"));
    for (int r = 0; r < ranks && status == THAW_OK; r++)
        status = send_rows(s, rows, bounds[r], bounds[r + 1], r, block, images);
    free_block(block);
    return status;
}

thaw_status thaw_store_settle(thaw_store *s, const int64_t *rows, const int64_t *bounds) {
    const int64_t n = bounds[thaw_comm_size(s->comm)];
    if (n > 0 && thaw_comm_hosts(s->comm) > 1)
        THAW_TRY(send_all(s, rows, bounds));
    thaw_comm_barrier(s->comm); /* rows of the other ranks of the host are written */
    thaw_status status = thaw_file_read(s->file, s->sums, (size_t)s->head.rows * sizeof *s->sums, sums_at(0));
    for (int64_t i = 0; i < n && status == THAW_OK; i++) {
        if (!s->sums[rows[i]])
            status = thaw_fail(THAW_IO, "%s: row %lld of the cache is not there although it was written", thaw_file_name(s->file),
                               (long long)rows[i]);
        s->n_missing -= s->missing[rows[i]];
        s->missing[rows[i]] = false;
    }
    return thaw_comm_agree(s->comm, status);
}
