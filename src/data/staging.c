/* Samples on a disk of the host: copies of files that lie on a network file system.
 *
 * An image is copied under the hash of its bytes, so what is there already, from this run's other data or from another run, is
 * used again, and equal files are copied once. A copy is written under another name and renamed. It is only ever a cache: who
 * reads it compares the hash and goes back to the original when it is gone or damaged, so a folder of copies may be removed at
 * any time, and nothing here waits for the disk. Files of arrays are copied whole, under the hash of their name, size and
 * time. */
#include "data/staging.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/memory.h"
#include "data/image.h"

enum { FOLDERS = 256 };

#define PIECE ((size_t)16 << 20)

static thaw_status no_memory(void) { return thaw_fail(THAW_RESOURCE, "no memory to copy the data"); }

char *thaw_staged_name(const char *folder, uint64_t content) {
    return thaw_format("%s/%02x/%016llx", folder, (unsigned)(content >> 56), (unsigned long long)content);
}

bool thaw_staged_read(void **bytes, size_t *size, const thaw_dataset *dataset, int64_t sample) {
    if (!dataset->staged || !dataset->content)
        return false;
    char *path = thaw_staged_name(dataset->staged, dataset->content[sample]);
    bool good = path && thaw_io_exists(path) && thaw_io_read(bytes, size, path, THAW_IMAGE_FILE_BYTES) == THAW_OK;
    thaw_free(path);
    if (good && thaw_hash(*bytes, *size, 0) != dataset->content[sample]) {
        thaw_free(*bytes);
        good = false;
    }
    return good;
}

char *thaw_stage_folder(const char *parent) {
    return thaw_format("%s/thaw-data-%llu", parent, (unsigned long long)geteuid());
}

typedef struct copies {
    thaw_dataset *dataset;
    int64_t first, stride, n; /* this caller's samples: first + i*stride, i < n */
    _Atomic int64_t next, files, bytes;
    _Atomic bool stopped;
    bool *made; /* n: copied here */
    void (*alive)(void *);
    void *payload;
    pthread_mutex_t lock;
    thaw_status status; /* the first failure, under the lock */
    char *failure;
} copies;

static void fail_copies(copies *c, thaw_status status) {
    atomic_store(&c->stopped, true);
    pthread_mutex_lock(&c->lock);
    if (c->status == THAW_OK) {
        c->status = status;
        c->failure = thaw_strdup(thaw_message());
    }
    pthread_mutex_unlock(&c->lock);
}

/* Puts bytes under `name`, whole or not at all. `mark`: makes the temporary name one of its own. */
static thaw_status put(const char *name, const void *bytes, size_t size, int64_t mark) {
    thaw_file *file = NULL;
    char *temporary = thaw_format("%s.tmp.%lld.%lld", name, (long long)getpid(), (long long)mark);
    thaw_status status = temporary ? thaw_file_open(&file, temporary, size) : no_memory();
    if (status == THAW_OK)
        status = thaw_file_write(file, bytes, size, 0);
    thaw_file_close(file);
    if (status == THAW_OK)
        status = thaw_io_rename(temporary, name);
    if (status != THAW_OK && temporary) {
        char *why = thaw_strdup(thaw_message());
        thaw_io_remove(temporary);
        status = thaw_fail(status, "%s", why ? why : "no memory to copy the data");
        thaw_free(why);
    }
    thaw_free(temporary);
    return status;
}

static thaw_status copy_image(copies *c, int64_t i) {
    thaw_dataset *d = c->dataset;
    const int64_t sample = c->first + i * c->stride;
    void *bytes = NULL;
    size_t size = 0;
    if (thaw_staged_read(&bytes, &size, d, sample)) {
        thaw_free(bytes);
        return THAW_OK;
    }
    char *from = thaw_path_join(d->root, d->paths[sample]), *to = thaw_staged_name(d->staged, d->content[sample]);
    thaw_status status = from && to ? thaw_io_read(&bytes, &size, from, THAW_IMAGE_FILE_BYTES) : no_memory();
    if (status == THAW_OK && thaw_hash(bytes, size, 0) != d->content[sample])
        status = thaw_fail(THAW_DATA, "%s changed since this run began, or is another file on this host; start it again", from);
    if (status == THAW_OK)
        status = put(to, bytes, size, sample);
    if (status == THAW_OK) {
        c->made[i] = true;
        atomic_fetch_add(&c->files, 1);
        atomic_fetch_add(&c->bytes, (int64_t)size);
    }
    thaw_free(bytes);
    thaw_free(from);
    thaw_free(to);
    return status;
}

static void *run(void *argument) {
    copies *c = argument;
    while (!atomic_load(&c->stopped)) {
        const int64_t i = atomic_fetch_add(&c->next, 1);
        if (i >= c->n)
            break;
        const thaw_status status = copy_image(c, i);
        if (status != THAW_OK)
            fail_copies(c, status);
        c->alive(c->payload);
    }
    return NULL;
}

static thaw_status make_folders(const char *folder) {
    THAW_TRY(thaw_io_mkdirs(folder));
    for (unsigned i = 0; i < FOLDERS; i++) {
        char *path = thaw_format("%s/%02x", folder, i);
        const thaw_status status = path ? thaw_io_mkdirs(path) : no_memory();
        thaw_free(path);
        THAW_TRY(status);
    }
    return THAW_OK;
}

/* A run that does not fit leaves the disk as it was; others that use these copies have the originals. */
static void take_back(const copies *c) {
    for (int64_t i = 0; i < c->n; i++) {
        char *path = c->made[i] ? thaw_staged_name(c->dataset->staged, c->dataset->content[c->first + i * c->stride]) : NULL;
        if (path)
            thaw_io_remove(path);
        thaw_free(path);
    }
}

static thaw_status fail_stage(thaw_status status, const char *folder, const char *why) {
    if (status == THAW_IO)
        return thaw_fail(status, "data.stage_data: the data does not fit: %s; give data.stage_dir on a larger disk of the hosts, "
                         "remove old copies in %s, or leave data.stage_data out", why, folder);
    return thaw_fail(status, "%s", why);
}

thaw_status thaw_dataset_stage_images(thaw_dataset *d, const char *folder, int threads, int64_t first, int64_t stride,
                                      thaw_staging *done) {
    copies c = {.dataset = d, .first = first, .stride = stride, .lock = PTHREAD_MUTEX_INITIALIZER, .alive = done->alive,
                .payload = done->payload};
    c.n = first < d->n ? (d->n - first + stride - 1) / stride : 0;
    threads = threads > c.n ? (int)c.n : threads;
    threads = threads < 1 ? 1 : threads;
    thaw_free(d->staged);
    d->staged = thaw_strdup(folder);
    c.made = thaw_calloc((size_t)c.n + 1, sizeof *c.made);
    pthread_t *others = thaw_calloc((size_t)threads, sizeof *others);
    c.status = d->staged && c.made && others ? make_folders(folder) : no_memory();
    if (c.status == THAW_OK) {
        int started = 0; /* the caller is a thread as well; what cannot be started is not needed */
        while (started < threads - 1 && pthread_create(&others[started], NULL, run, &c) == 0)
            started++;
        run(&c);
        for (int i = 0; i < started; i++)
            pthread_join(others[i], NULL);
        if (c.status != THAW_OK) {
            take_back(&c);
            c.status = fail_stage(c.status, folder, c.failure ? c.failure : "no memory");
        }
    }
    done->files += atomic_load(&c.files);
    done->bytes += atomic_load(&c.bytes);
    thaw_free(c.failure);
    thaw_free(c.made);
    thaw_free(others);
    pthread_mutex_destroy(&c.lock);
    return c.status;
}

/* Copies a file in pieces and compares what can be read of the copy. */
static thaw_status copy_file(const char *from, const char *to, uint64_t size, thaw_staging *done) {
    thaw_file *in = NULL, *out = NULL;
    char *temporary = thaw_format("%s.tmp.%lld", to, (long long)getpid()), *piece = thaw_malloc(PIECE);
    uint64_t read = 0, written = 0;
    thaw_status status = temporary && piece ? THAW_OK : no_memory();
    THAW_GOTO(status);
    THAW_GOTO(thaw_file_view(&in, from));
    THAW_GOTO(thaw_file_open(&out, temporary, size));
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t at = 0; at < size; at += PIECE) {
            const size_t n = size - at < PIECE ? (size_t)(size - at) : PIECE;
            THAW_GOTO(thaw_file_read(pass ? out : in, piece, n, at));
            if (pass == 0)
                THAW_GOTO(thaw_file_write(out, piece, n, at));
            *(pass ? &written : &read) = thaw_hash(piece, n, pass ? written : read);
            done->alive(done->payload);
        }
    if (read != written)
        THAW_GOTO(thaw_fail(THAW_IO, "%s has other bytes than were written to it", temporary));
    THAW_GOTO(thaw_io_rename(temporary, to));
    done->files++;
    done->bytes += (int64_t)size;
out:
    thaw_file_close(in);
    thaw_file_close(out);
    if (status != THAW_OK && temporary) {
        char *why = thaw_strdup(thaw_message());
        thaw_io_remove(temporary);
        status = thaw_fail(status, "%s", why ? why : "no memory to copy the data");
        thaw_free(why);
    }
    thaw_free(temporary);
    thaw_free(piece);
    return status;
}

/* [out] staged: the copy's name. `copy`: make it if it is not there. */
static thaw_status stage_file(char **staged, const char *file, const char *folder, bool copy, thaw_staging *done) {
    const uint64_t size = thaw_io_size(file);
    const uint64_t of[2] = {size, (uint64_t)thaw_io_modified(file)};
    char *real = thaw_path_real(file);
    const uint64_t key = real ? thaw_hash(of, sizeof of, thaw_hash_text(real, 0)) : 0;
    char *name = thaw_format("%s/%016llx.h5", folder, (unsigned long long)key);
    thaw_status status = real && name ? THAW_OK : no_memory();
    if (status == THAW_OK && copy && thaw_io_size(name) != size)
        status = copy_file(file, name, size, done);
    thaw_free(real);
    if (status == THAW_OK && thaw_io_size(name) == size) {
        thaw_free(*staged);
        *staged = name;
        return THAW_OK;
    }
    thaw_free(name);
    return status; /* not there: the original is read */
}

thaw_status thaw_dataset_stage_arrays(thaw_dataset *d, const char *folder, bool copy, thaw_staging *done) {
    thaw_status status = copy ? thaw_io_mkdirs(folder) : THAW_OK;
    if (status == THAW_OK)
        status = stage_file(&d->x_staged, d->x_file, folder, copy, done);
    if (status == THAW_OK && d->y_file)
        status = stage_file(&d->y_staged, d->y_file, folder, copy, done);
    if (status == THAW_OK)
        return THAW_OK;
    char *why = thaw_strdup(thaw_message());
    status = fail_stage(status, folder, why ? why : "no memory");
    thaw_free(why);
    return status;
}
