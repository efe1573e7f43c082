/* Batches decoded ahead of the engine. Threads take the samples of a pass one by one, in order; `depth` batches may be under
 * way beyond those that the engine holds. What a batch contains depends on its sample numbers only, so neither the number
 * of threads nor their timing shows in it. One mutex guards all counters; pixels are written outside of it, each by one
 * thread, and are read after the batch's last sample was counted under it. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/random.h"
#include "data/arrays.h"
#include "data/image.h"
#include "data/staging.h"

enum { MESSAGE_BYTES = 1024, STAGED_BYTES = 1 << 20 };

/* The place of one batch. */
typedef struct slot {
    float *x, *y;      /* (max_batch, row), (max_batch, y_width) */
    int64_t batch;     /* which batch it holds; -1: none */
    int64_t left;      /* units of it that are not done */
    thaw_status status; /* of the failure with the lowest position, so that it is the same in every run */
    int64_t failed_at;
    char message[MESSAGE_BYTES]; /* thaw_message is per thread: the text travels here */
} slot;

typedef struct worker {
    thaw_loader *loader;
    pthread_t thread;
    thaw_pixels pixels;
    thaw_tap *taps;
} worker;

/* A row to read and its place in the batch. */
typedef struct wanted {
    int64_t row, place;
} wanted;

struct thaw_loader {
    const thaw_dataset *dataset;
    thaw_loader_options options;
    int64_t row;     /* floats of one sample of x */
    int64_t y_width;
    int n_slots, n_workers;
    slot *slots;
    worker *workers;
    /* arrays, used by the only worker: */
    thaw_array x_array, y_array;
    wanted *wanted; /* max_batch */
    float *staging; /* contiguous rows before they go to their places: a row, or as many as STAGED_BYTES have room for */
    /* under the lock: */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    int64_t *samples, *starts; /* copies of the pass */
    size_t samples_capacity, starts_capacity;
    int64_t n_batches, epoch;
    int64_t next_batch, next_unit; /* to be taken by a thread; a unit is a sample, of arrays the whole batch */
    int64_t taken;                 /* batches that the engine has taken; it holds the last ones of them */
    int busy;                      /* threads inside a unit */
    bool stop;
};

static int64_t batch_size(const thaw_loader *l, int64_t b) { return l->starts[b + 1] - l->starts[b]; }

static slot *slot_of(const thaw_loader *l, int64_t b) { return &l->slots[b % l->n_slots]; }

static bool flips(const thaw_loader_options *o, bool flat) { return o->augment && o->horizontal_flip && !flat; }

int thaw_augment_variants(const thaw_loader_options *o, bool flat) {
    return !flips(o, flat) ? 1 : o->draws > 0 ? o->draws : 2;
}

static bool heads(thaw_draw draw) { return thaw_uniform(draw.word[0]) < 0.5f; }

int thaw_augment_variant(const thaw_loader_options *o, bool flat, int64_t sample, int64_t epoch) {
    if (thaw_augment_variants(o, flat) == 1)
        return 0;
    if (o->draws > 0)
        return (int)thaw_bounded(thaw_philox(o->seed, THAW_DRAW_CHOICE, (uint32_t)epoch, (uint64_t)sample, 0),
                                 (uint64_t)o->draws);
    return heads(thaw_philox(o->seed, THAW_DRAW_AUGMENT, (uint32_t)epoch, (uint64_t)sample, 0));
}

static bool mirrored(const thaw_loader_options *o, bool flat, int64_t sample, int variant) {
    if (!flips(o, flat))
        return false;
    return o->draws > 0 ? heads(thaw_philox(o->seed, THAW_DRAW_FIXED, (uint32_t)variant, (uint64_t)sample, 0)) : variant == 1;
}

/* Flip and preprocessing of one sample (H,W,C). */
static void finish_sample(const thaw_loader *l, float *x, int64_t sample, int64_t epoch) {
    const thaw_loader_options *o = &l->options;
    const bool flat = l->dataset->arrays && l->dataset->x_rank == 2;
    const int64_t channels = flat ? 1 : o->shape[2];
    if (mirrored(o, flat, sample, o->by_variant ? (int)epoch : thaw_augment_variant(o, flat, sample, epoch)))
        thaw_flip(x, o->shape[0], o->shape[1], channels);
    thaw_preprocess_apply(x, l->row / channels, channels, o->preprocess);
}

/* The copy of an image on this host, or itself. */
static thaw_status load_pixels(worker *w, const thaw_dataset *d, int64_t sample, const char *path, uint64_t *content) {
    void *bytes = NULL;
    size_t size = 0;
    if (!thaw_staged_read(&bytes, &size, d, sample))
        return thaw_pixels_load(&w->pixels, path, content);
    *content = d->content[sample];
    const thaw_status status = thaw_pixels_decode(&w->pixels, bytes, size, path);
    thaw_free(bytes);
    return status;
}

static thaw_status load_image(worker *w, float *x, float *y, int64_t sample, int64_t epoch) {
    const thaw_loader *l = w->loader;
    const thaw_dataset *d = l->dataset;
    *y = (float)d->labels[sample];
    if (l->options.labels_only)
        return THAW_OK;
    char *path = thaw_path_join(d->root, d->paths[sample]);
    if (!path)
        return thaw_fail(THAW_RESOURCE, "no memory for the path of an image");
    uint64_t content = 0;
    w->pixels.least_height = l->options.scaled ? l->options.shape[0] : 0;
    w->pixels.least_width = l->options.scaled ? l->options.shape[1] : 0;
    thaw_status status = load_pixels(w, d, sample, path, &content);
    /* Bytes that all ranks agreed on: files may change, and a folder may be another one on another host. */
    if (status == THAW_OK && d->content && d->content[sample] != content)
        status = thaw_fail(THAW_DATA, "%s changed since this run began, or is another file on this host; start it again", path);
    thaw_free(path);
    THAW_TRY(status);
    thaw_resize(x, l->options.shape[0], l->options.shape[1], &w->pixels, w->taps);
    finish_sample(l, x, sample, epoch);
    return THAW_OK;
}

static int compare_rows(const void *a, const void *b) {
    const int64_t x = ((const wanted *)a)->row, y = ((const wanted *)b)->row;
    return (x > y) - (x < y);
}

static int64_t staged_rows(int64_t width) {
    const int64_t rows = STAGED_BYTES / (int64_t)sizeof(float) / (width > 0 ? width : 1);
    return rows > 1 ? rows : 1;
}

/* The wanted rows (ascending) of one dataset to their places in `out`; rows that follow each other are read at once. */
static thaw_status read_rows(thaw_loader *l, thaw_array *array, float *out, int64_t n) {
    const int64_t width = array->width, most = staged_rows(width);
    for (int64_t i = 0, run; i < n; i += run) {
        for (run = 1; run < most && i + run < n && l->wanted[i + run].row == l->wanted[i].row + run;)
            run++;
        THAW_TRY(thaw_array_read(array, l->staging, l->wanted[i].row, run));
        for (int64_t k = 0; k < run; k++)
            memcpy(out + l->wanted[i + k].place * width, l->staging + k * width, (size_t)width * sizeof *out);
    }
    return THAW_OK;
}

static thaw_status load_rows(thaw_loader *l, slot *s, const int64_t *samples, int64_t n, int64_t epoch) {
    for (int64_t i = 0; i < n; i++)
        l->wanted[i] = (wanted){l->dataset->rows[samples[i]], i};
    qsort(l->wanted, (size_t)n, sizeof *l->wanted, compare_rows);
    if (!l->options.labels_only)
        THAW_TRY(read_rows(l, &l->x_array, s->x, n));
    if (l->y_width)
        THAW_TRY(read_rows(l, &l->y_array, s->y, n));
    for (int64_t i = 0; i < n && !l->options.labels_only; i++)
        finish_sample(l, s->x + i * l->row, samples[i], epoch);
    return THAW_OK;
}

/* A unit can be taken: there is a batch left, and its slot is not one that the engine holds or has yet to take. */
static bool has_work(thaw_loader *l) {
    while (l->next_batch < l->n_batches && batch_size(l, l->next_batch) == 0)
        l->next_batch++;
    return l->next_batch < l->n_batches && l->next_batch < l->taken + l->options.depth;
}

/* Takes the next unit: which batch, which sample of it. */
static slot *take_unit(thaw_loader *l, int64_t *batch, int64_t *unit) {
    const int64_t units = l->dataset->arrays ? 1 : batch_size(l, l->next_batch);
    slot *s = slot_of(l, l->next_batch);
    if (l->next_unit == 0) {
        s->batch = l->next_batch;
        s->left = units;
        s->status = THAW_OK;
    }
    *batch = l->next_batch;
    *unit = l->next_unit++;
    if (l->next_unit == units) {
        l->next_batch++;
        l->next_unit = 0;
    }
    l->busy++;
    return s;
}

static void *work(void *argument) {
    worker *w = argument;
    thaw_loader *l = w->loader;
    if (l->dataset->arrays)
        thaw_arrays_quiet();
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->stop && !has_work(l))
            pthread_cond_wait(&l->work, &l->lock);
        if (l->stop)
            break;
        int64_t batch, unit;
        slot *s = take_unit(l, &batch, &unit);
        const int64_t first = l->starts[batch], n = batch_size(l, batch), epoch = l->epoch;
        const int64_t *samples = l->samples + first; /* stays while this thread is busy */
        pthread_mutex_unlock(&l->lock);
        const thaw_status status =
            l->dataset->arrays ? load_rows(l, s, samples, n, epoch)
                               : load_image(w, s->x ? s->x + unit * l->row : NULL, s->y + unit, samples[unit], epoch);
        pthread_mutex_lock(&l->lock);
        if (status != THAW_OK && (s->status == THAW_OK || unit < s->failed_at)) {
            s->status = status;
            s->failed_at = unit;
            snprintf(s->message, sizeof s->message, "%s", thaw_message());
        }
        s->left--;
        l->busy--;
        if (s->left == 0 || l->busy == 0)
            pthread_cond_broadcast(&l->done);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static thaw_status wrong_shape(const thaw_dataset *d, const int64_t *shape) {
    char takes[80], has[80];
    if (shape[1])
        snprintf(takes, sizeof takes, "%lldx%lldx%lld", (long long)shape[0], (long long)shape[1], (long long)shape[2]);
    else
        snprintf(takes, sizeof takes, "%lld values", (long long)shape[0]);
    if (d->x_rank == 4)
        snprintf(has, sizeof has, "%lldx%lldx%lld", (long long)d->x_shape[0], (long long)d->x_shape[1], (long long)d->x_shape[2]);
    else
        snprintf(has, sizeof has, "%lld values", (long long)d->x_shape[0]);
    return thaw_fail(THAW_DATA, "%s:%s has samples of %s, the network takes %s; set model.input_shape or convert the array",
                     d->x_file, d->x_dataset, has, takes);
}

/* The samples of the dataset can become what the options ask for. */
static thaw_status check(const thaw_dataset *d, const thaw_loader_options *o) {
    const int64_t *shape = o->shape;
    if (o->threads < 1 || o->depth < 1 || o->max_batch < 0 || shape[0] < 1)
        return thaw_fail(THAW_INTERNAL, "a loader of %d threads, depth %d, batches of %lld", o->threads, o->depth,
                         (long long)o->max_batch);
    if (d->arrays && memcmp(d->x_shape, shape, sizeof d->x_shape) != 0)
        return wrong_shape(d, shape);
    if (!d->arrays && (shape[1] < 1 || shape[2] != 3))
        return thaw_fail(THAW_DATA, "%s: images have height, width and 3 channels, the network takes %lldx%lldx%lld; give arrays "
                         "(x: FILE.h5:/x) instead", d->root, (long long)shape[0], (long long)shape[1], (long long)shape[2]);
    if (d->arrays && (d->x_rank == 2 || shape[2] != 3) &&
        (o->preprocess == THAW_PREPROCESS_CAFFE || o->preprocess == THAW_PREPROCESS_TORCH))
        return thaw_fail(THAW_USAGE, "preprocess '%s' needs images of 3 channels, which %s:%s does not have; use rescale, tf "
                         "or none", thaw_preprocess_name(o->preprocess), d->x_file, d->x_dataset);
    return THAW_OK;
}

/* The copy on this host, or the original where that is gone. */
static thaw_status open_array(thaw_array *out, const char *staged, const char *file, const char *dataset) {
    if (staged && thaw_io_exists(staged) && thaw_array_open(out, staged, dataset) == THAW_OK)
        return THAW_OK;
    return thaw_array_open(out, file, dataset);
}

/* Opens the datasets and checks that they are still what the index says. */
static thaw_status open_arrays(thaw_loader *l) {
    const thaw_dataset *d = l->dataset;
    THAW_TRY(thaw_arrays_check_threads());
    THAW_TRY(open_array(&l->x_array, d->x_staged, d->x_file, d->x_dataset));
    if (d->y_file)
        THAW_TRY(open_array(&l->y_array, d->y_staged, d->y_file, d->y_dataset));
    if (l->x_array.rank != d->x_rank || l->x_array.width != l->row || (d->y_file && l->y_array.width != d->y_width))
        return thaw_fail(THAW_DATA, "%s changed its shape since it was opened first", l->x_array.name);
    return THAW_OK;
}

static bool allocate(thaw_loader *l) {
    const thaw_loader_options *o = &l->options;
    const size_t batch = (size_t)o->max_batch;
    size_t x;
    if (thaw_mul_overflow(batch, (size_t)l->row, &x))
        return false;
    const bool images = !o->labels_only;
    l->slots = thaw_calloc((size_t)l->n_slots, sizeof *l->slots);
    l->workers = thaw_calloc((size_t)o->threads, sizeof *l->workers);
    bool whole = l->slots && l->workers;
    for (int i = 0; i < l->n_slots && whole; i++) {
        l->slots[i].batch = -1;
        l->slots[i].x = images ? thaw_calloc(x, sizeof(float)) : NULL;
        l->slots[i].y = thaw_calloc(batch, (size_t)l->y_width * sizeof(float));
        whole = (l->slots[i].x || !images) && l->slots[i].y;
    }
    if (l->dataset->arrays) {
        l->wanted = thaw_calloc(batch, sizeof *l->wanted);
        const int64_t widest = images && l->row > l->y_width ? l->row : l->y_width;
        l->staging = thaw_malloc(staged_rows(widest) > 1 ? STAGED_BYTES : (size_t)widest * sizeof(float));
        return whole && l->wanted && l->staging;
    }
    for (int i = 0; i < o->threads && whole && images; i++)
        whole = (l->workers[i].taps = thaw_calloc((size_t)(o->shape[0] + o->shape[1]), sizeof(thaw_tap)));
    return whole;
}

/* Threads that leave all signals to the others: whoever handles them is not delayed by a decoder. */
static thaw_status start(thaw_loader *l) {
    /* HDF5 reads one row at a time anyway, and labels of images are in memory. */
    const int threads = l->dataset->arrays || l->options.labels_only ? 1 : l->options.threads;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    while (l->n_workers < threads && error == 0) {
        worker *w = &l->workers[l->n_workers];
        w->loader = l;
        error = pthread_create(&w->thread, NULL, work, w);
        l->n_workers += error == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0 ? THAW_OK
                      : thaw_fail(THAW_RESOURCE, "cannot start decoding thread %d of %d: %s; use fewer (data.threads) or raise "
                                  "the limit (ulimit -u)", l->n_workers + 1, threads, strerror(error));
}

thaw_status thaw_loader_create(thaw_loader **out, const thaw_dataset *dataset, const thaw_loader_options *options) {
    *out = NULL;
    THAW_TRY(check(dataset, options));
    thaw_loader *l = thaw_malloc(sizeof *l);
    if (!l)
        return thaw_fail(THAW_RESOURCE, "no memory for a loader");
    l->dataset = dataset;
    l->options = *options;
    l->row = options->shape[0] * (options->shape[1] ? options->shape[1] * options->shape[2] : 1);
    l->y_width = !dataset->arrays ? 1 : dataset->y_file ? dataset->y_width : 0;
    l->n_slots = options->depth + (options->held > 1 ? options->held : 1);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, NULL);
    thaw_status status = dataset->arrays ? open_arrays(l) : THAW_OK;
    if (status == THAW_OK && !allocate(l))
        status = thaw_fail(THAW_RESOURCE, "no memory for %d batches of %lld images ahead of the engine; use a smaller batch_size "
                           "or prefetch", l->n_slots, (long long)options->max_batch);
    if (status == THAW_OK)
        status = start(l);
    if (status != THAW_OK) {
        thaw_loader_free(l);
        return status;
    }
    *out = l;
    return THAW_OK;
}

void thaw_loader_free(thaw_loader *l) {
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_workers; i++)
        pthread_join(l->workers[i].thread, NULL);
    for (int i = 0; l->workers && i < l->options.threads; i++) {
        thaw_pixels_free(&l->workers[i].pixels);
        thaw_free(l->workers[i].taps);
    }
    for (int i = 0; l->slots && i < l->n_slots; i++) {
        thaw_free(l->slots[i].x);
        thaw_free(l->slots[i].y);
    }
    thaw_array_close(&l->x_array);
    thaw_array_close(&l->y_array);
    thaw_free(l->slots);
    thaw_free(l->workers);
    thaw_free(l->wanted);
    thaw_free(l->staging);
    thaw_free(l->samples);
    thaw_free(l->starts);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->done);
    thaw_free(l);
}

static bool copy_numbers(int64_t **to, size_t *capacity, const int64_t *from, size_t n) {
    if (n > *capacity) {
        thaw_free(*to);
        *capacity = 0;
        *to = thaw_calloc(n, sizeof **to);
        if (!*to)
            return false;
        *capacity = n;
    }
    if (n)
        memcpy(*to, from, n * sizeof **to);
    return true;
}

/* The announced pass lies inside the dataset and the batches that memory was taken for. */
static thaw_status check_pass(const thaw_loader *l, const int64_t *samples, const int64_t *starts, int64_t n_batches) {
    if (n_batches < 0 || starts[0] != 0)
        return thaw_fail(THAW_INTERNAL, "a pass of %lld batches that begins at %lld", (long long)n_batches, (long long)starts[0]);
    for (int64_t b = 0; b < n_batches; b++)
        if (starts[b + 1] < starts[b] || starts[b + 1] - starts[b] > l->options.max_batch)
            return thaw_fail(THAW_INTERNAL, "batch %lld has %lld samples, the loader was made for %lld", (long long)b,
                             (long long)(starts[b + 1] - starts[b]), (long long)l->options.max_batch);
    for (int64_t i = 0; i < starts[n_batches]; i++)
        if (samples[i] < 0 || samples[i] >= l->dataset->n)
            return thaw_fail(THAW_INTERNAL, "sample %lld of %lld is asked for", (long long)samples[i], (long long)l->dataset->n);
    return THAW_OK;
}

thaw_status thaw_loader_begin(thaw_loader *l, const int64_t *samples, const int64_t *starts, int64_t n_batches, int64_t epoch) {
    THAW_TRY(check_pass(l, samples, starts, n_batches));
    pthread_mutex_lock(&l->lock);
    l->n_batches = 0; /* nothing more of an earlier pass is taken; what is under way ends first */
    l->next_batch = l->next_unit = l->taken = 0;
    while (l->busy > 0)
        pthread_cond_wait(&l->done, &l->lock);
    for (int i = 0; i < l->n_slots; i++)
        l->slots[i].batch = -1;
    const bool copied = copy_numbers(&l->samples, &l->samples_capacity, samples, (size_t)starts[n_batches]) &&
                        copy_numbers(&l->starts, &l->starts_capacity, starts, (size_t)n_batches + 1);
    if (copied) {
        l->n_batches = n_batches;
        l->epoch = epoch;
        pthread_cond_broadcast(&l->work);
    }
    pthread_mutex_unlock(&l->lock);
    return copied ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory for the order of %lld batches", (long long)n_batches);
}

/* Waits until something is done; if there is other business to progress, a millisecond at most. The caller holds the lock. */
static void wait_done(thaw_loader *l) {
    if (!thaw_progress_call) {
        pthread_cond_wait(&l->done, &l->lock);
        return;
    }
    const double until = thaw_clock_unix() + 1e-3;
    const time_t whole = (time_t)until;
    const struct timespec end = {whole, (long)((until - (double)whole) * 1e9)};
    if (pthread_cond_timedwait(&l->done, &l->lock, &end) == 0)
        return;
    pthread_mutex_unlock(&l->lock);
    thaw_progress();
    pthread_mutex_lock(&l->lock);
}

thaw_status thaw_loader_next(thaw_loader *l, thaw_batch *batch) {
    *batch = (thaw_batch){0};
    pthread_mutex_lock(&l->lock);
    if (l->taken >= l->n_batches) {
        pthread_mutex_unlock(&l->lock);
        return thaw_fail(THAW_INTERNAL, "batch %lld of a pass of %lld is asked for", (long long)l->taken,
                         (long long)l->n_batches);
    }
    const int64_t b = l->taken++; /* gives back the batch before it, or one before that */
    pthread_cond_broadcast(&l->work);
    slot *s = slot_of(l, b);
    const int64_t n = batch_size(l, b);
    while (n > 0 && (s->batch != b || s->left > 0))
        wait_done(l);
    const thaw_status status = n > 0 ? s->status : THAW_OK;
    *batch = (thaw_batch){.n = status == THAW_OK ? n : s->failed_at, .x = s->x, .y = l->y_width ? s->y : NULL,
                          .samples = l->samples + l->starts[b]};
    pthread_mutex_unlock(&l->lock);
    if (status == THAW_OK)
        return THAW_OK;
    return thaw_fail(status, "%s", s->message); /* nobody writes to this slot before the next call */
}
