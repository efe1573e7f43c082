/* The state of a run as bytes, and back.
 *
 * It is written from where it lies: the peak of a run's memory is not that of its checkpoints.
 *
 * File: magic, then fields in the order of pack_state, then XXH3 of all that. Written whole or not at all; resume takes the
 * newest file whose hash is right. Weights and optimizer slots are kept by tensor name, so they do not depend on ranks or
 * on the order of the flat blocks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/run.h"

static const char MAGIC[8] = "THAWCKP2";

/* Bytes that are written without being copied together: small ones are kept here, tensors are borrowed. */
typedef struct parts {
    thaw_buffer own;
    thaw_buffer list; /* thaw_piece each; bytes NULL: the next ones of `own` */
    size_t listed;    /* bytes of `own` that are in the list */
} parts;

/* What came into `own` since becomes an entry. */
static void list_own(parts *to) {
    if (to->own.size > to->listed)
        thaw_buffer_put(&to->list, &(thaw_piece){NULL, to->own.size - to->listed}, sizeof(thaw_piece));
    to->listed = to->own.size;
}

static void lend(parts *to, const void *bytes, size_t size) {
    list_own(to);
    if (size)
        thaw_buffer_put(&to->list, &(thaw_piece){bytes, size}, sizeof(thaw_piece));
}

/* All pieces in order; nothing may be put into `own` behind this. Complete unless parts_failed. */
static thaw_piece *pieces_of(parts *from, size_t *n) {
    size_t at = 0;
    list_own(from);
    thaw_piece *pieces = (thaw_piece *)(void *)from->list.data;
    *n = from->list.size / sizeof *pieces;
    for (size_t i = 0; i < *n; i++)
        if (!pieces[i].bytes) {
            pieces[i].bytes = from->own.data + at;
            at += pieces[i].size;
        }
    return pieces;
}

static bool parts_failed(const parts *p) { return p->own.failed || p->list.failed; }

static void free_parts(parts *p) {
    thaw_buffer_free(&p->own);
    thaw_buffer_free(&p->list);
}

static void pack_optimizer(parts *out, const thaw_run *run) {
    const thaw_optimizer *o = run->optimizer;
    thaw_buffer_f64(&out->own, o->learning_rate);
    thaw_buffer_i64(&out->own, o->step);
    thaw_buffer_i64(&out->own, (int64_t)o->config.kind);
    thaw_buffer_i64(&out->own, o->n_slots);
    thaw_buffer_i64(&out->own, run->plan->n_tensors);
    for (int i = 0; i < run->plan->n_tensors; i++) {
        const thaw_segment *s = &run->segments[i];
        thaw_buffer_text(&out->own, s->name);
        thaw_buffer_i64(&out->own, (int64_t)s->count);
        for (int k = 0; k < o->n_slots; k++)
            lend(out, o->slots[k] + s->offset, s->count * sizeof(float));
    }
}

void thaw_optimizer_pack(thaw_buffer *out, const thaw_run *run) {
    parts state = {0};
    size_t n;
    pack_optimizer(&state, run);
    const thaw_piece *pieces = pieces_of(&state, &n);
    for (size_t i = 0; i < n && !parts_failed(&state); i++)
        thaw_buffer_put(out, pieces[i].bytes, pieces[i].size);
    out->failed = out->failed || parts_failed(&state);
    free_parts(&state);
}

thaw_status thaw_optimizer_unpack(thaw_run *run, const thaw_buffer *from, bool rates) {
    thaw_optimizer *o = run->optimizer;
    thaw_reader in = {.data = from->data, .size = from->size};
    double rate = thaw_reader_f64(&in);
    int64_t step = thaw_reader_i64(&in), kind = thaw_reader_i64(&in), slots = thaw_reader_i64(&in);
    int64_t tensors = thaw_reader_i64(&in);
    if (kind != (int64_t)o->config.kind || slots != o->n_slots) {
        thaw_warn("optimizer.keep_state: the stage before used another optimizer, its state is not carried over");
        return THAW_OK;
    }
    o->step = step;
    if (rates)
        o->learning_rate = rate;
    for (int64_t i = 0; i < tensors && !in.failed; i++) {
        char *name = thaw_reader_text(&in);
        size_t count = (size_t)thaw_reader_i64(&in);
        in.failed = in.failed || (slots > 0 && count > in.size / sizeof(float)); /* no slot, no bytes: plain SGD */
        const thaw_segment *segment = NULL;
        for (int k = 0; name && k < run->plan->n_tensors; k++)
            if (strcmp(run->segments[k].name, name) == 0 && run->segments[k].count == count)
                segment = &run->segments[k];
        thaw_free(name);
        for (int64_t k = 0; k < slots; k++) {
            const void *values = thaw_reader_borrow(&in, count * sizeof(float));
            if (segment && values)
                memcpy(o->slots[k] + segment->offset, values, count * sizeof(float));
        }
    }
    return in.failed ? thaw_fail(THAW_INTERNAL, "the optimizer's packed state is too short") : THAW_OK;
}

/* `optimizer`: what out borrows from, besides the run; lives as long as out does. */
static void pack_state(parts *out, parts *optimizer, const thaw_run *run, const char *job_text) {
    const thaw_model *model = run->model;
    thaw_buffer *own = &out->own;
    thaw_buffer_put(own, MAGIC, sizeof MAGIC);
    thaw_buffer_text(own, job_text);
    thaw_buffer_i64(own, (int64_t)run->data_hash);
    thaw_buffer_put(own, &run->at, sizeof run->at);
    thaw_buffer_put(own, &run->decisions, sizeof run->decisions);
    thaw_buffer_put(own, &run->sums, sizeof run->sums);
    thaw_buffer_put(own, &run->epoch_tally, sizeof run->epoch_tally);
    thaw_buffer_put(own, &run->stage_tally, sizeof run->stage_tally);
    thaw_buffer_i64(own, (int64_t)thaw_history_size(run->history));
    thaw_buffer_i64(own, (int64_t)thaw_events_size(run->events));
    thaw_buffer_i64(own, model->n_layers);
    thaw_buffer_i64(own, run->has_previous);
    thaw_buffer_put(own, run->previous, (size_t)model->n_layers * sizeof(bool));
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++) {
            const thaw_tensor *tensor = &model->layers[i].tensors[t];
            thaw_buffer_i64(own, (int64_t)tensor->count);
            lend(out, tensor->data, tensor->count * sizeof(float));
        }
    size_t size = run->carried.size, n = 0;
    if (run->optimizer) {
        size = 0;
        pack_optimizer(optimizer, run);
        const thaw_piece *pieces = pieces_of(optimizer, &n);
        for (size_t i = 0; i < n; i++)
            size += pieces[i].size;
        thaw_buffer_i64(own, (int64_t)size);
        for (size_t i = 0; i < n; i++)
            lend(out, pieces[i].bytes, pieces[i].size);
    } else {
        thaw_buffer_i64(own, (int64_t)size);
        lend(out, run->carried.data, size);
    }
    size_t best = run->has_best ? thaw_stage_best_count(run) : 0;
    thaw_buffer_i64(own, (int64_t)best);
    lend(out, run->best, best * sizeof(float));
}

/* The state and behind it its hash. */
static thaw_status write_state(const thaw_run *run, const char *path, const char *job_text) {
    parts state = {0}, optimizer = {0};
    size_t n;
    pack_state(&state, &optimizer, run, job_text);
    const thaw_piece *pieces = pieces_of(&state, &n);
    bool failed = parts_failed(&state) || parts_failed(&optimizer);
    uint64_t hash = failed ? 0 : thaw_hash_pieces(pieces, n, 0);
    lend(&state, &hash, sizeof hash);
    pieces = pieces_of(&state, &n);
    thaw_status status = failed || parts_failed(&state) ? thaw_fail(THAW_RESOURCE, "no memory for a checkpoint")
                                                        : thaw_io_write_pieces(path, pieces, n);
    free_parts(&state);
    free_parts(&optimizer);
    return status;
}

/* Names of checkpoints, oldest first; their step is part of the name with fixed width, so the order of names is that of
 * steps. */
static thaw_status list_checkpoints(char ***names, int *n, const char *folder) {
    char **all;
    int n_all;
    *names = NULL;
    *n = 0;
    if (!thaw_io_is_dir(folder))
        return THAW_OK;
    THAW_TRY(thaw_io_list(&all, &n_all, folder));
    for (int i = 0; i < n_all; i++) {
        size_t length = strlen(all[i]);
        if (strncmp(all[i], "step-", 5) == 0 && length > 5 && strcmp(all[i] + length - 5, ".ckpt") == 0)
            all[(*n)++] = all[i];
        else
            thaw_free(all[i]);
    }
    *names = all;
    return THAW_OK;
}

static void free_names(char **names, int n) {
    for (int i = 0; i < n; i++)
        thaw_free(names[i]);
    thaw_free(names);
}

/* Removes all but the newest `keep` up to the new one, which is safe. Later ones stay: a run that goes on from an older
 * checkpoint comes to the same states, and replaces them. */
static void prune(const char *folder, const char *newest, int64_t keep) {
    char **names;
    int n, last = 0;
    if (list_checkpoints(&names, &n, folder) != THAW_OK) {
        thaw_warn("old checkpoints stay: %s", thaw_message());
        return;
    }
    while (last < n && strcmp(names[last], newest) <= 0)
        last++;
    for (int i = 0; i < last - keep; i++) {
        char *path = thaw_path_join(folder, names[i]);
        if (path && thaw_io_remove(path) != THAW_OK)
            thaw_warn("old checkpoint %s cannot be removed: %s", path, thaw_message());
        thaw_free(path);
    }
    free_names(names, n);
}

static thaw_status save_here(thaw_run *run) {
    char *text = thaw_job_text(run->job);
    char *folder = thaw_path_join(run->folder, "checkpoints");
    /* Step, then epochs: the end of an epoch is behind its last step, the end of the run behind that of its last epoch. */
    char *name = thaw_format("step-%012lld-%09lld.ckpt", (long long)run->at.total_steps,
                             (long long)(run->at.total_epochs + run->at.finished));
    char *path = folder && name ? thaw_path_join(folder, name) : NULL;
    thaw_status status = THAW_OK;
    if (!text || !path)
        status = thaw_fail(THAW_RESOURCE, "no memory for a checkpoint");
    if (status == THAW_OK)
        status = thaw_io_mkdirs(folder);
    if (status == THAW_OK)
        status = write_state(run, path, text);
    if (status == THAW_OK)
        prune(folder, name, run->job->checkpoint_keep);
    thaw_free(text);
    thaw_free(name);
    thaw_free(folder);
    thaw_free(path);
    return status;
}

thaw_status thaw_checkpoint_save(thaw_run *run) {
    thaw_status status = THAW_OK;
    double began = thaw_clock();
    run->epoch_tally.other += thaw_update_gather(&run->update, run->exchange);
    if (thaw_comm_rank(run->comm) == 0)
        status = save_here(run);
    run->last_checkpoint = thaw_clock();
    run->deadline.save = fmax(run->deadline.save, run->last_checkpoint - began);
    return thaw_comm_agree(run->comm, status);
}

static bool valid(const void *bytes, size_t size) {
    uint64_t hash;
    if (size < sizeof MAGIC + sizeof hash || memcmp(bytes, MAGIC, sizeof MAGIC) != 0)
        return false;
    memcpy(&hash, (const char *)bytes + size - sizeof hash, sizeof hash);
    return hash == thaw_hash(bytes, size - sizeof hash, 0);
}

/* On rank 0: the newest valid checkpoint's bytes; size 0 if there is none. */
static thaw_status find(const thaw_run *run, void **bytes, size_t *size) {
    *bytes = NULL;
    *size = 0;
    const char *given = run->options->resume;
    if (given && strcmp(given, "auto") != 0 && strcmp(given, "never") != 0) {
        THAW_TRY(thaw_io_read(bytes, size, given, 0));
        if (valid(*bytes, *size))
            return THAW_OK;
        thaw_free(*bytes);
        *bytes = NULL;
        return thaw_fail(THAW_DATA, "--resume %s: not a checkpoint of thaw, or damaged", given);
    }
    char *folder = thaw_path_join(run->folder, "checkpoints");
    char **names = NULL;
    int n = 0;
    thaw_status status = folder ? list_checkpoints(&names, &n, folder) : thaw_fail(THAW_RESOURCE, "no memory");
    for (int i = n - 1; i >= 0 && status == THAW_OK && !*bytes; i--) {
        char *path = thaw_path_join(folder, names[i]);
        status = path ? thaw_io_read(bytes, size, path, 0) : thaw_fail(THAW_RESOURCE, "no memory");
        if (status == THAW_OK && !valid(*bytes, *size)) {
            thaw_warn("checkpoint %s is damaged, trying the one before", path);
            thaw_free(*bytes);
            *bytes = NULL;
            *size = 0;
        }
        thaw_free(path);
    }
    if (status == THAW_OK && n > 0 && !*bytes)
        status = thaw_fail(THAW_DATA, "every checkpoint in %s is damaged; start over with --resume never", folder);
    free_names(names, n);
    thaw_free(folder);
    return status;
}

static thaw_status unpack_state(thaw_run *run, const void *bytes, size_t size) {
    thaw_model *model = run->model;
    thaw_reader in = {.data = bytes, .size = size - sizeof(uint64_t)};
    thaw_status status = THAW_OK;
    thaw_job *before = NULL;
    thaw_reader_borrow(&in, sizeof MAGIC);
    char *text = thaw_reader_text(&in);
    if (!text || thaw_job_parse(&before, run->job->path, text, NULL, 0) != THAW_OK)
        THAW_GOTO(thaw_fail(THAW_MISMATCH, "the checkpoint in %s comes from another version of thaw; start over with --resume "
                                           "never", run->folder));
    if (thaw_job_hash(before) != thaw_job_hash(run->job)) {
        char *keys = thaw_job_difference(before, run->job);
        status = thaw_fail(THAW_MISMATCH, "%s: the job changed since the run in %s began (%s); start over with --resume never, "
                                          "or give another output", run->job->path, run->folder, keys ? keys : "?");
        thaw_free(keys);
        goto out;
    }
    if ((uint64_t)thaw_reader_i64(&in) != run->data_hash)
        THAW_GOTO(thaw_fail(THAW_MISMATCH, "the data changed since the run in %s began (files, classes or rows differ); start "
                                           "over with --resume never", run->folder));
    thaw_reader_get(&in, &run->at, sizeof run->at);
    thaw_reader_get(&in, &run->decisions, sizeof run->decisions);
    thaw_reader_get(&in, &run->sums, sizeof run->sums);
    thaw_reader_get(&in, &run->epoch_tally, sizeof run->epoch_tally);
    thaw_reader_get(&in, &run->stage_tally, sizeof run->stage_tally);
    run->history_size = (uint64_t)thaw_reader_i64(&in);
    run->events_size = (uint64_t)thaw_reader_i64(&in);
    if (thaw_reader_i64(&in) != model->n_layers)
        THAW_GOTO(thaw_fail(THAW_MISMATCH, "the network changed since the run in %s began; start over with --resume never",
                            run->folder));
    run->has_previous = thaw_reader_i64(&in) != 0;
    thaw_reader_get(&in, run->previous, (size_t)model->n_layers * sizeof(bool));
    memcpy(run->trainable, run->previous, (size_t)model->n_layers * sizeof(bool)); /* until a stage begins */
    for (int i = 0; i < model->n_layers; i++)
        for (int t = 0; t < model->layers[i].n_tensors; t++) {
            thaw_tensor *tensor = &model->layers[i].tensors[t];
            if (thaw_reader_i64(&in) != (int64_t)tensor->count)
                THAW_GOTO(thaw_fail(THAW_MISMATCH, "the network changed since the run in %s began (layer %s); start over with "
                                                   "--resume never", run->folder, model->layers[i].name));
            thaw_reader_get(&in, tensor->data, tensor->count * sizeof(float));
        }
    size_t state = (size_t)thaw_reader_i64(&in);
    const void *optimizer = thaw_reader_borrow(&in, state);
    thaw_buffer_put(&run->carried, optimizer, optimizer ? state : 0);
    size_t best = (size_t)thaw_reader_i64(&in);
    in.failed = in.failed || best > (in.size - in.at) / sizeof(float);
    if (best && !in.failed) { /* the stage takes this copy over */
        run->best = thaw_calloc(best, sizeof *run->best);
        run->best_count = best;
        if (!run->best)
            THAW_GOTO(thaw_fail(THAW_RESOURCE, "no memory for a copy of the best weights"));
        thaw_reader_get(&in, run->best, best * sizeof(float));
        run->has_best = true;
    }
    if (in.failed || run->carried.failed)
        THAW_GOTO(thaw_fail(THAW_MISMATCH, "the checkpoint in %s is of another version of thaw; start over with --resume never",
                            run->folder));
out:
    thaw_free(text);
    thaw_job_free(before);
    return status;
}

thaw_status thaw_checkpoint_load(thaw_run *run, bool *found) {
    void *bytes = NULL;
    size_t size = 0;
    thaw_status status = THAW_OK;
    *found = false;
    if (thaw_comm_rank(run->comm) == 0)
        status = find(run, &bytes, &size);
    THAW_GOTO(thaw_comm_agree(run->comm, status));
    THAW_GOTO(thaw_comm_broadcast_buffer(run->comm, &bytes, &size, 0));
    status = thaw_comm_agree(run->comm, size ? unpack_state(run, bytes, size) : THAW_OK);
    *found = size > 0;
out:
    thaw_free(bytes);
    return status;
}
