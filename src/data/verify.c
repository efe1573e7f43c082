/* Decodes every image once, in threads, and names those that cannot be. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "data/image.h"

typedef struct check {
    const thaw_dataset *dataset;
    int64_t first, stride, n; /* this caller's samples: first + i*stride, i < n */
    _Atomic int64_t next;
    _Atomic bool stopped;
    char **messages; /* n; NULL: good */
    uint64_t *content; /* of the whole dataset; may be NULL */
    pthread_mutex_t lock;
    thaw_status status; /* the first failure that is not an image's, under the lock */
    char *failure;
} check;

static void stop(check *c, thaw_status status, const char *message) {
    atomic_store(&c->stopped, true);
    pthread_mutex_lock(&c->lock);
    if (c->status == THAW_OK) {
        c->status = status;
        c->failure = thaw_strdup(message);
    }
    pthread_mutex_unlock(&c->lock);
}

static void *run(void *argument) {
    check *c = argument;
    thaw_pixels pixels = {0};
    while (!atomic_load(&c->stopped)) {
        const int64_t i = atomic_fetch_add(&c->next, 1);
        if (i >= c->n)
            break;
        const int64_t sample = c->first + i * c->stride;
        uint64_t *content = c->content ? &c->content[sample] : NULL;
        char *path = thaw_path_join(c->dataset->root, c->dataset->paths[sample]);
        const thaw_status status = path ? thaw_pixels_load(&pixels, path, content)
                                        : thaw_fail(THAW_RESOURCE, "no memory for a path");
        thaw_free(path);
        if (status == THAW_DATA || status == THAW_NO_INPUT)
            c->messages[i] = thaw_strdup(thaw_message());
        if (status != THAW_OK && !c->messages[i])
            stop(c, status == THAW_DATA || status == THAW_NO_INPUT ? THAW_RESOURCE : status, thaw_message());
    }
    thaw_pixels_free(&pixels);
    return NULL;
}

thaw_status thaw_dataset_verify(const thaw_dataset *dataset, int threads, int64_t first, int64_t stride, int64_t **bad,
                                int64_t *n_bad, uint64_t *content) {
    *bad = NULL;
    *n_bad = 0;
    check c = {.dataset = dataset, .first = first, .stride = stride, .content = content, .lock = PTHREAD_MUTEX_INITIALIZER};
    if (!dataset->arrays && first < dataset->n)
        c.n = (dataset->n - first + stride - 1) / stride;
    if (threads > c.n)
        threads = (int)c.n;
    c.messages = thaw_calloc((size_t)c.n, sizeof *c.messages);
    *bad = thaw_calloc((size_t)c.n, sizeof **bad);
    if (c.messages && *bad) {
        thaw_threads_run(threads, run, &c);
    } else {
        stop(&c, THAW_RESOURCE, "no memory to check the images");
    }
    for (int64_t i = 0; c.messages && i < c.n; i++) {
        if (!c.messages[i])
            continue;
        if (c.status == THAW_OK) {
            thaw_warn("%s", c.messages[i]);
            (*bad)[(*n_bad)++] = first + i * stride;
        }
        thaw_free(c.messages[i]);
    }
    thaw_free(c.messages);
    if (c.status != THAW_OK) {
        thaw_free(*bad);
        *bad = NULL;
        thaw_fail(c.status, "%s", c.failure ? c.failure : "no memory to check the images");
    }
    thaw_free(c.failure);
    pthread_mutex_destroy(&c.lock);
    return c.status;
}
