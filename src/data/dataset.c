/* The index of samples: bytes for broadcast, hash, split, order of an epoch. */
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/text.h"
#include "data/names.h"
#include "thaw/data.h"

static thaw_status no_memory(void) { return thaw_fail(THAW_RESOURCE, "no memory for the index of the data"); }

char **thaw_names_split(const char *text, size_t size, int64_t n) {
    size_t head, bytes;
    if (n < 0 || (uint64_t)n > size /* a name has a byte at least */ || thaw_mul_overflow((size_t)n, sizeof(char *), &head) ||
        thaw_add_overflow(head, size, &bytes))
        return NULL;
    char **names = thaw_malloc(bytes);
    if (!names)
        return NULL;
    char *at = (char *)names + head;
    if (size)
        memcpy(at, text, size);
    for (int64_t i = 0; i < n; i++) {
        const size_t left = bytes - (size_t)(at - (char *)names), length = strnlen(at, left);
        if (length == left) {
            thaw_free(names);
            return NULL;
        }
        names[i] = at;
        at += length + 1;
    }
    return names;
}

char **thaw_names_pick(char *const *names, const int64_t *numbers, int64_t n) {
    thaw_buffer text = {0};
    for (int64_t i = 0; i < n; i++)
        thaw_buffer_put(&text, names[numbers[i]], strlen(names[numbers[i]]) + 1);
    char **picked = text.failed ? NULL : thaw_names_split(text.data, text.size, n);
    thaw_buffer_free(&text);
    return picked;
}

void thaw_dataset_free(thaw_dataset *dataset) {
    if (!dataset)
        return;
    thaw_free(dataset->root);
    thaw_free(dataset->paths);
    thaw_free(dataset->labels);
    thaw_free(dataset->class_names);
    thaw_free(dataset->content);
    thaw_free(dataset->x_file);
    thaw_free(dataset->x_dataset);
    thaw_free(dataset->y_file);
    thaw_free(dataset->y_dataset);
    thaw_free(dataset->rows);
    thaw_free(dataset->staged);
    thaw_free(dataset->x_staged);
    thaw_free(dataset->y_staged);
    thaw_free(dataset);
}

static const char magic[8] = "thawdat1";

static void put_names(thaw_buffer *bytes, char *const *names, int64_t n) {
    thaw_buffer text = {0};
    for (int64_t i = 0; i < n; i++)
        thaw_buffer_put(&text, names[i], strlen(names[i]) + 1);
    bytes->failed = bytes->failed || text.failed;
    thaw_buffer_i64(bytes, (int64_t)text.size);
    thaw_buffer_put(bytes, text.data, text.size);
    thaw_buffer_free(&text);
}

static char **get_names(thaw_reader *reader, int64_t n) {
    const int64_t size = thaw_reader_i64(reader);
    const char *text = size < 0 ? NULL : thaw_reader_borrow(reader, (size_t)size);
    return text ? thaw_names_split(text, (size_t)size, n) : NULL;
}

thaw_status thaw_dataset_pack(void **bytes, size_t *size, const thaw_dataset *d) {
    thaw_buffer out = {0};
    *bytes = NULL;
    *size = 0;
    thaw_buffer_put(&out, magic, sizeof magic);
    thaw_buffer_i64(&out, d->arrays);
    thaw_buffer_i64(&out, d->n);
    thaw_buffer_text(&out, d->root);
    thaw_buffer_i64(&out, d->n_classes);
    if (!d->arrays) {
        put_names(&out, d->paths, d->n);
        put_names(&out, d->class_names, d->n_classes);
        thaw_buffer_put(&out, d->labels, (size_t)d->n * sizeof *d->labels);
    } else {
        thaw_buffer_text(&out, d->x_file);
        thaw_buffer_text(&out, d->x_dataset);
        thaw_buffer_text(&out, d->y_file);
        thaw_buffer_text(&out, d->y_dataset);
        thaw_buffer_i64(&out, d->x_rank);
        thaw_buffer_put(&out, d->x_shape, sizeof d->x_shape);
        thaw_buffer_i64(&out, d->y_width);
        thaw_buffer_put(&out, d->rows, (size_t)d->n * sizeof *d->rows);
    }
    if (out.failed) {
        thaw_buffer_free(&out);
        return no_memory();
    }
    *bytes = out.data;
    *size = out.size;
    return THAW_OK;
}

/* Copy of the next n items of `bytes` each; NULL without memory or items. */
static void *get_items(thaw_reader *reader, int64_t n, size_t bytes) {
    size_t size;
    if (n < 0 || thaw_mul_overflow((size_t)n, bytes, &size))
        return NULL;
    const void *from = thaw_reader_borrow(reader, size);
    void *items = from ? thaw_malloc(size) : NULL;
    if (items && size)
        memcpy(items, from, size);
    return items;
}

thaw_status thaw_dataset_unpack(thaw_dataset **out, const void *bytes, size_t size) {
    thaw_reader reader = {.data = bytes, .size = size};
    char found[sizeof magic];
    *out = NULL;
    thaw_dataset *d = thaw_malloc(sizeof *d);
    if (!d)
        return no_memory();
    thaw_reader_get(&reader, found, sizeof found);
    d->arrays = thaw_reader_i64(&reader) != 0;
    d->n = thaw_reader_i64(&reader);
    d->root = thaw_reader_text(&reader);
    d->n_classes = (int)thaw_reader_i64(&reader);
    bool whole = memcmp(found, magic, sizeof magic) == 0 && !reader.failed && d->n >= 0 && d->n_classes >= 0;
    if (whole && !d->arrays) {
        d->paths = get_names(&reader, d->n);
        d->class_names = get_names(&reader, d->n_classes);
        d->labels = get_items(&reader, d->n, sizeof *d->labels);
        whole = d->paths && d->class_names && d->labels;
    } else if (whole) {
        d->x_file = thaw_reader_text(&reader);
        d->x_dataset = thaw_reader_text(&reader);
        d->y_file = thaw_reader_text(&reader);
        d->y_dataset = thaw_reader_text(&reader);
        d->x_rank = (int)thaw_reader_i64(&reader);
        thaw_reader_get(&reader, d->x_shape, sizeof d->x_shape);
        d->y_width = thaw_reader_i64(&reader);
        d->rows = get_items(&reader, d->n, sizeof *d->rows);
        whole = d->x_file && d->x_dataset && d->rows;
    }
    for (int64_t i = 0; whole && !d->arrays && i < d->n; i++)
        whole = d->labels[i] >= -1 && (d->labels[i] < d->n_classes || d->labels[i] == -1);
    if (!whole || reader.failed) {
        thaw_dataset_free(d);
        return thaw_fail(THAW_INTERNAL, "the index of the data, %zu bytes from another rank, cannot be read: it is cut or there "
                                        "is no memory for it", size);
    }
    *out = d;
    return THAW_OK;
}

uint64_t thaw_dataset_hash(const thaw_dataset *d) {
    const int64_t sizes[] = {d->arrays, d->n, d->n_classes, d->x_rank, d->x_shape[0], d->x_shape[1], d->x_shape[2], d->y_width};
    uint64_t hash = thaw_hash(sizes, sizeof sizes, 0);
    if (d->arrays) { /* where the files lie is not what they hold: a moved run may go on */
        hash = thaw_hash_text(d->x_dataset, hash);
        hash = thaw_hash_text(d->y_dataset ? d->y_dataset : "", hash);
        return thaw_hash(d->rows, (size_t)d->n * sizeof *d->rows, hash);
    }
    for (int64_t i = 0; i < d->n; i++)
        hash = thaw_hash(d->paths[i], strlen(d->paths[i]) + 1, hash);
    for (int i = 0; i < d->n_classes; i++)
        hash = thaw_hash(d->class_names[i], strlen(d->class_names[i]) + 1, hash);
    return thaw_hash(d->labels, (size_t)d->n * sizeof *d->labels, hash);
}

/* Fisher-Yates on 0..n-1; the draw of position i decides which of 0..i ends there. */
static void shuffle(int64_t *order, int64_t n, uint64_t seed, thaw_purpose purpose, uint32_t epoch) {
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = (int64_t)thaw_bounded(thaw_philox(seed, purpose, epoch, (uint64_t)i, 0), (uint64_t)i + 1);
        const int64_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

void thaw_epoch_order(int64_t *order, int64_t n, uint64_t seed, int64_t epoch, bool shuffled) {
    if (shuffled) {
        shuffle(order, n, seed, THAW_DRAW_SHUFFLE, (uint32_t)epoch);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
}

/* What makes up the samples of a dataset. */
typedef struct sample_lists {
    char **paths;
    int32_t *labels;
    int64_t *rows;
    uint64_t *content;
} sample_lists;

static bool pick(sample_lists *out, const thaw_dataset *d, const int64_t *numbers, int64_t n) {
    *out = (sample_lists){0};
    if (d->content) {
        out->content = thaw_calloc((size_t)n, sizeof *out->content);
        if (!out->content)
            return false;
        for (int64_t i = 0; i < n; i++)
            out->content[i] = d->content[numbers[i]];
    }
    if (d->arrays) {
        out->rows = thaw_calloc((size_t)n, sizeof *out->rows);
        for (int64_t i = 0; out->rows && i < n; i++)
            out->rows[i] = d->rows[numbers[i]];
        return out->rows;
    }
    out->paths = thaw_names_pick(d->paths, numbers, n);
    out->labels = thaw_calloc((size_t)n, sizeof *out->labels);
    for (int64_t i = 0; out->labels && i < n; i++)
        out->labels[i] = d->labels[numbers[i]];
    return out->paths && out->labels;
}

static void release(sample_lists *lists) {
    thaw_free(lists->paths);
    thaw_free(lists->labels);
    thaw_free(lists->rows);
    thaw_free(lists->content);
}

static void replace(thaw_dataset *d, const sample_lists *lists, int64_t n) {
    release(&(sample_lists){d->paths, d->labels, d->rows, d->content});
    d->paths = lists->paths;
    d->labels = lists->labels;
    d->rows = lists->rows;
    d->content = lists->content;
    d->n = n;
}

static bool copy_text(char **to, const char *from) {
    *to = from ? thaw_strdup(from) : NULL;
    return *to || !from;
}

/* All of a dataset but its samples. */
static thaw_dataset *copy_frame(const thaw_dataset *d, const int64_t *ascending) {
    thaw_dataset *copy = thaw_malloc(sizeof *copy);
    if (!copy)
        return NULL;
    copy->arrays = d->arrays;
    copy->n_classes = d->n_classes;
    copy->x_rank = d->x_rank;
    memcpy(copy->x_shape, d->x_shape, sizeof copy->x_shape);
    copy->y_width = d->y_width;
    bool whole = copy_text(&copy->root, d->root) && copy_text(&copy->x_file, d->x_file) &&
                 copy_text(&copy->x_dataset, d->x_dataset) && copy_text(&copy->y_file, d->y_file) &&
                 copy_text(&copy->y_dataset, d->y_dataset);
    if (whole && d->class_names)
        whole = (copy->class_names = thaw_names_pick(d->class_names, ascending, d->n_classes));
    if (whole)
        return copy;
    thaw_dataset_free(copy);
    return NULL;
}

thaw_status thaw_dataset_split(thaw_dataset *d, double fraction, uint64_t seed, thaw_dataset **validation) {
    *validation = NULL;
    if (!(fraction >= 0.0 && fraction < 1.0))
        return thaw_fail(THAW_USAGE, "a validation split of %g: give a fraction from 0 to below 1", fraction);
    const int64_t n_validation = (int64_t)(fraction * (double)d->n), n_train = d->n - n_validation;
    const int64_t n_most = d->n > d->n_classes ? d->n : d->n_classes;
    int64_t *order = thaw_calloc((size_t)n_most, sizeof *order);
    bool *held_out = thaw_calloc((size_t)d->n, sizeof *held_out);
    sample_lists train = {0}, held = {0};
    thaw_dataset *other = NULL;
    thaw_status status = THAW_OK;
    if (order && held_out) {
        for (int64_t i = 0; i < d->n_classes; i++)
            order[i] = i;
        other = copy_frame(d, order);
        shuffle(order, d->n, seed, THAW_DRAW_SPLIT, 0);
        for (int64_t i = n_train; i < d->n; i++)
            held_out[order[i]] = true;
        /* Both parts keep the order of the index, so that training without shuffle runs through it. */
        int64_t at = 0, behind = n_train;
        for (int64_t i = 0; i < d->n; i++)
            order[held_out[i] ? behind++ : at++] = i;
    }
    if (!other || !pick(&train, d, order, n_train) || !pick(&held, d, order + n_train, n_validation)) {
        release(&train);
        release(&held);
        thaw_dataset_free(other);
        status = no_memory();
    } else {
        replace(d, &train, n_train);
        replace(other, &held, n_validation);
        *validation = other;
    }
    thaw_free(order);
    thaw_free(held_out);
    return status;
}

void thaw_dataset_drop(thaw_dataset *d, const int64_t *samples, int64_t n) {
    int64_t kept = 0;
    for (int64_t i = 0, next = 0; i < d->n; i++) {
        if (next < n && samples[next] == i) {
            next++;
            continue;
        }
        if (d->content)
            d->content[kept] = d->content[i];
        if (d->arrays) {
            d->rows[kept++] = d->rows[i];
        } else {
            d->paths[kept] = d->paths[i];
            d->labels[kept++] = d->labels[i];
        }
    }
    d->n = kept;
}
