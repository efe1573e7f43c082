#include "train/cache.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/shares.h"

#define PROGRESS_SECONDS 5.0
#define UNEVEN 1.25 /* images of one rank over those of another from which it is told, if there are enough to tell by */

/* Batches between two divisions of what is missing: few until speeds are known, then more, since a loader begins anew. */
enum { FIRST_STEPS = 4, MOST_STEPS = 64 };

/* What ranks tell each other at each batch: sums. */
enum { FILL_FAILED, FILL_BROKEN, FILL_DIFFERS, FILL_STOP, FILL_WORDS };

/* Filling one cache. */
typedef struct fill {
    thaw_run *run;
    thaw_cache *cache;
    thaw_loader *loader;
    int64_t *rows;              /* all that are missing, ascending; equal on all ranks */
    int64_t n_rows;
    int64_t *samples, *starts;  /* this rank's pass */
    double *seconds;            /* per rank: of a row, as last measured; 0: not yet */
    int64_t *bounds;            /* ranks + 1: shares of a round, in its rows */
    int64_t *computed;          /* per rank: rows of this fill */
    int64_t most_steps;         /* of the next round */
    char **block;               /* one image, for comparison */
    bool compare;               /* rows are there and are compared instead of kept */
    bool stopped, broken, differs; /* equal on all ranks */
    thaw_status trouble;        /* of the store, on this rank */
    double started, input, prefix;
    int64_t done;               /* rows of this fill, on all ranks */
} fill;

/* The engine's slots change places where it runs ahead by several steps. */
static void find_slots(const thaw_cache *c) {
    for (int k = 0; k < c->n_parts; k++)
        c->slots[k] = thaw_engine_slot(c->engine, k);
}

/* A batch as the store takes it: the halves, or the engine's slots themselves. */
static char *const *block_of(const thaw_cache *c) { return c->half ? c->packed : (char *const *)c->slots; }

/* Image i of the slots to the block and back; nothing to do where they are the same. */
static void pack(const thaw_cache *c, int64_t i) {
    if (!c->half)
        return;
    c->errors[i] = (thaw_half_error){0};
    for (int k = 0; k < c->n_parts; k++) {
        size_t n = c->part_count[k], at = (size_t)i * n;
        thaw_half_encode((uint16_t *)(void *)c->packed[k] + at, c->slots[k] + at, n, &c->errors[i]);
    }
}

static void unpack(const thaw_cache *c, int64_t i) {
    for (int k = 0; c->half && k < c->n_parts; k++) {
        size_t n = c->part_count[k], at = (size_t)i * n;
        thaw_half_decode(c->slots[k] + at, (const uint16_t *)(const void *)c->packed[k] + at, n);
    }
}

/* In order of the images, whatever the threads did. */
static void add_errors(thaw_cache *c, int64_t n) {
    for (int64_t i = 0; c->half && i < n; i++) {
        c->rounding.error2 += c->errors[i].error2;
        c->rounding.value2 += c->errors[i].value2;
        c->rounding.cut += c->errors[i].cut;
    }
}

static thaw_status load_image(const thaw_cache *c, int64_t i, int64_t sample, int64_t epoch) {
    int64_t variant = thaw_augment_variant(&c->options, c->flat, sample, epoch);
    THAW_TRY(thaw_store_get(c->store, variant * c->dataset->n + sample, block_of(c), i));
    unpack(c, i);
    return THAW_OK;
}

thaw_status thaw_cache_load(const thaw_cache *c, int64_t n, const int64_t *samples, int64_t epoch) {
    int bad = 0;
    find_slots(c);
#pragma omp parallel for schedule(static) reduction(| : bad)
    for (int64_t i = 0; i < n; i++)
        bad |= load_image(c, i, samples[i], epoch) != THAW_OK;
    for (int64_t i = 0; bad && i < n; i++) /* once more in this thread, which then has the message */
        THAW_TRY(load_image(c, i, samples[i], epoch));
    return THAW_OK;
}

void thaw_cache_round(thaw_cache *c, int64_t n) {
    if (!c || !c->half)
        return;
    find_slots(c);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        pack(c, i);
        unpack(c, i);
    }
    add_errors(c, n);
}

thaw_status thaw_cache_tell_rounding(thaw_run *run, thaw_cache *c) {
    if (!c || !c->half)
        return THAW_OK;
    double sums[] = {c->rounding.error2, c->rounding.value2, c->rounding.cut};
    c->rounding = (thaw_half_error){0};
    THAW_TRY(thaw_comm_sum(run->comm, sums, 3));
    run->epoch_tally.other += (int64_t)sizeof sums;
    c->rounding_known = true;
    c->relative_error = sums[1] > 0.0 ? sqrt(sums[0] / sums[1]) : 0.0;
    c->cut = (int64_t)sums[2];
    const char *of = c == run->validation_cache ? " of validation" : "";
    if (!c->rounding_told)
        thaw_info("cache%s: fp16 changed the boundary's activations by %.2e of their size (relative L2), %lld lay beyond 65504",
                  of, c->relative_error, (long long)c->cut);
    if (c->cut > 0 && !c->cut_told && thaw_comm_rank(run->comm) == 0)
        thaw_warn("cache.precision: fp16: %lld activations%s at the boundary lie beyond 65504, the largest half, and were cut "
                  "to it; cache.precision: fp32 keeps them", (long long)c->cut, of);
    c->rounding_told = true;
    c->cut_told = c->cut_told || c->cut > 0;
    return THAW_OK;
}

static thaw_status keep_image(const thaw_cache *c, int64_t i, int64_t row) {
    pack(c, i);
    return thaw_store_put(c->store, row, (const char *const *)block_of(c), i);
}

/* Rows of a batch that the engine holds in its slots, into the store. */
static thaw_status keep_batch(const fill *f, int64_t n, int64_t base, const int64_t *samples) {
    int bad = 0;
#pragma omp parallel for schedule(static) reduction(| : bad)
    for (int64_t i = 0; i < n; i++)
        bad |= keep_image(f->cache, i, base + samples[i]) != THAW_OK;
    for (int64_t i = 0; bad && i < n; i++)
        THAW_TRY(keep_image(f->cache, i, base + samples[i]));
    add_errors(f->cache, n);
    return THAW_OK;
}

/* Are the rows of the store those that the engine holds? */
static bool same_batch(const fill *f, int64_t n, int64_t base, const int64_t *samples) {
    for (int64_t i = 0; i < n; i++) {
        if (thaw_store_get(f->cache->store, base + samples[i], f->block, 0) != THAW_OK)
            return false;
        pack(f->cache, i);
        for (int k = 0; k < f->cache->n_parts; k++) {
            size_t bytes = f->cache->part_bytes[k];
            if (memcmp(f->block[k], block_of(f->cache)[k] + (size_t)i * bytes, bytes) != 0)
                return false;
        }
    }
    return true;
}

static void show_progress(fill *f) {
    double now = thaw_clock(), seconds = now - f->started;
    if (now - f->run->last_progress < PROGRESS_SECONDS)
        return;
    f->run->last_progress = now;
    double rate = (double)f->done / (seconds + 1e-9), left = fmin((double)(f->n_rows - f->done) / (rate + 1e-9), 359999.0);
    thaw_info("cache: %lld of %lld images computed, %.1f img/s, %d:%02d left", (long long)f->done, (long long)f->n_rows, rate,
              (int)left / 60, (int)left % 60);
}

/* One batch of this rank, which may be empty, and a word with the others. Collective. */
static thaw_status fill_batch(fill *f, int64_t base, int64_t done) {
    thaw_run *run = f->run;
    thaw_batch batch = {0};
    bool differs = false;
    double mark = thaw_clock();
    thaw_status status = thaw_loader_next(f->loader, &batch);
    double loaded = thaw_clock();
    f->input += loaded - mark;
    if (status == THAW_OK && batch.n > 0) {
        thaw_engine_prefix(run->engine, batch.n, batch.x);
        find_slots(f->cache);
        if (f->compare)
            differs = !same_batch(f, batch.n, base, batch.samples);
        else if (f->trouble == THAW_OK)
            f->trouble = keep_batch(f, batch.n, base, batch.samples);
    }
    f->prefix += thaw_clock() - loaded;
    double words[FILL_WORDS] = {[FILL_FAILED] = status != THAW_OK, [FILL_BROKEN] = f->trouble != THAW_OK,
                                [FILL_DIFFERS] = differs, [FILL_STOP] = thaw_stop_wanted(run, run->at.step)};
    THAW_TRY(thaw_comm_sum(run->comm, words, FILL_WORDS));
    run->epoch_tally.other += (int64_t)sizeof words;
    if (words[FILL_FAILED] > 0.0)
        return thaw_comm_agree(run->comm, status);
    f->broken = words[FILL_BROKEN] > 0.0;
    f->differs = f->differs || words[FILL_DIFFERS] > 0.0;
    f->stopped = words[FILL_STOP] > 0.0;
    f->done = done;
    show_progress(f);
    return THAW_OK;
}

/* This rank's share of a round in equal batches to the loader. Collective. */
static thaw_status begin_round(fill *f, const int64_t *rows, int64_t steps, int variant) {
    const int rank = thaw_comm_rank(f->run->comm);
    const int64_t first = f->bounds[rank], mine = f->bounds[rank + 1] - first;
    for (int64_t i = 0; i < mine; i++)
        f->samples[i] = rows[first + i] - (int64_t)variant * f->cache->dataset->n;
    for (int64_t b = 0; b <= steps; b++)
        f->starts[b] = mine * b / steps;
    return thaw_comm_agree(f->run->comm, thaw_loader_begin(f->loader, f->samples, f->starts, steps, variant));
}

/* Tells all ranks how long a row took this one. Collective. */
static thaw_status measure(fill *f, double busy) {
    const int rank = thaw_comm_rank(f->run->comm), ranks = thaw_comm_size(f->run->comm);
    const double before = f->seconds[rank];
    const int64_t mine = f->bounds[rank + 1] - f->bounds[rank];
    memset(f->seconds, 0, (size_t)ranks * sizeof *f->seconds);
    f->seconds[rank] = mine > 0 ? busy / (double)mine : before;
    f->run->epoch_tally.other += ranks * (int64_t)sizeof *f->seconds;
    for (int r = 0; r < ranks; r++)
        f->computed[r] += f->bounds[r + 1] - f->bounds[r];
    return thaw_comm_sum(f->run->comm, f->seconds, (size_t)ranks);
}

/* The first of rows[0..n), all of one variant: each rank a contiguous share, as large as it is fast. *taken: how many, unless
 * the fill ends here. Collective. */
static thaw_status fill_round(fill *f, const int64_t *rows, int64_t n, int variant, int64_t *taken) {
    const int ranks = thaw_comm_size(f->run->comm);
    const int64_t base = (int64_t)variant * f->cache->dataset->n, before = f->done;
    const int64_t steps = thaw_shares_plan(n, ranks, f->seconds, f->run->plan->max_batch,
                                           ranks > 1 ? f->most_steps : INT64_MAX, f->bounds);
    const double busy = f->input + f->prefix;
    *taken = f->bounds[ranks];
    f->most_steps = 2 * f->most_steps < MOST_STEPS ? 2 * f->most_steps : MOST_STEPS;
    THAW_TRY(begin_round(f, rows, steps, variant));
    for (int64_t b = 0; b < steps && !f->stopped && !f->broken; b++)
        THAW_TRY(fill_batch(f, base, before + *taken * (b + 1) / steps));
    return measure(f, f->input + f->prefix - busy);
}

/* One row that is there, of each rank's share of the first variant, is computed again: rows of a file may come from another
 * build of a library that calls itself the same. Collective. */
static thaw_status compare_rows(fill *f) {
    thaw_run *run = f->run;
    int ranks = thaw_comm_size(run->comm);
    const bool *missing = thaw_store_missing(f->cache->store);
    int64_t n = 0, samples = f->cache->dataset->n, taken;
    int64_t *chosen = thaw_calloc((size_t)ranks, sizeof *chosen);
    THAW_TRY(thaw_comm_agree(run->comm, chosen ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to check the cache")));
    for (int r = 0; r < ranks; r++) {
        int64_t at = thaw_share(samples, r, ranks), end = thaw_share(samples, r + 1, ranks);
        while (at < end && missing[at])
            at++;
        if (at < end)
            chosen[n++] = at;
    }
    f->compare = true;
    thaw_status status = n ? fill_round(f, chosen, n, 0, &taken) : THAW_OK; /* a row each: all in one round */
    f->compare = false;
    thaw_free(chosen);
    if (status == THAW_OK && f->differs) {
        if (thaw_comm_rank(run->comm) == 0)
            thaw_warn("cache: %s was computed by other libraries, with other bits; it is computed anew",
                      thaw_store_name(f->cache->store));
        thaw_store_forget(f->cache->store);
    }
    return status;
}

static void list_missing(fill *f) {
    const bool *missing = thaw_store_missing(f->cache->store);
    int64_t all = (int64_t)f->cache->variants * f->cache->dataset->n;
    f->n_rows = 0;
    for (int64_t i = 0; i < all; i++)
        if (missing[i])
            f->rows[f->n_rows++] = i;
}

/* On a cluster of unequal hosts: who computed how much. */
static void tell_shares(const fill *f) {
    const int ranks = thaw_comm_size(f->run->comm);
    int least = 0, most = 0;
    for (int r = 1; r < ranks; r++) {
        least = f->computed[r] < f->computed[least] ? r : least;
        most = f->computed[r] > f->computed[most] ? r : most;
    }
    const int64_t more = f->computed[most] - f->computed[least];
    if (more > FIRST_STEPS * f->run->plan->max_batch && (double)f->computed[most] > UNEVEN * (double)f->computed[least])
        thaw_info("cache: rank %d computed %lld images, rank %d in the same time %lld", most, (long long)f->computed[most], least,
                  (long long)f->computed[least]);
}

static thaw_status fill_missing(fill *f) {
    const int64_t samples = f->cache->dataset->n;
    list_missing(f);
    f->started = thaw_clock();
    f->done = 0;
    for (int r = 0; r < thaw_comm_size(f->run->comm); r++) { /* comparing was something else */
        f->seconds[r] = 0.0;
        f->computed[r] = 0;
    }
    for (int64_t at = 0, next, taken; at < f->n_rows && !f->stopped && !f->broken; at += taken) {
        const int64_t variant = f->rows[at] / samples;
        for (next = at; next < f->n_rows && f->rows[next] / samples == variant;)
            next++;
        THAW_TRY(fill_round(f, f->rows + at, next - at, (int)variant, &taken));
        if (!f->stopped && !f->broken) {
            f->trouble = thaw_store_settle(f->cache->store, f->rows + at, f->bounds);
            f->broken = f->trouble != THAW_OK; /* agreed */
        }
    }
    tell_shares(f);
    return THAW_OK;
}

static thaw_status set_up(fill *f) {
    thaw_cache *c = f->cache;
    size_t rows = (size_t)c->variants * (size_t)c->dataset->n;
    thaw_loader_options options = c->options;
    options.by_variant = true;
    options.max_batch = f->run->plan->max_batch;
    const size_t ranks = (size_t)thaw_comm_size(f->run->comm);
    f->most_steps = FIRST_STEPS;
    f->rows = thaw_calloc(rows, sizeof *f->rows);
    f->seconds = thaw_calloc(ranks, sizeof *f->seconds);
    f->bounds = thaw_calloc(ranks + 1, sizeof *f->bounds);
    f->computed = thaw_calloc(ranks, sizeof *f->computed);
    f->samples = thaw_calloc((size_t)c->dataset->n, sizeof *f->samples);
    f->starts = thaw_calloc((size_t)c->dataset->n + 2, sizeof *f->starts);
    f->block = thaw_calloc((size_t)c->n_parts, sizeof *f->block);
    char *image = f->block ? thaw_malloc((size_t)c->row_bytes) : NULL;
    if (image)
        f->block[0] = image;
    if (!f->rows || !f->samples || !f->starts || !f->seconds || !f->bounds || !f->computed || !image)
        return thaw_fail(THAW_RESOURCE, "no memory to compute the cache");
    for (int k = 1; k < c->n_parts; k++)
        f->block[k] = f->block[k - 1] + c->part_bytes[k - 1];
    return thaw_loader_create(&f->loader, c->dataset, &options);
}

/* Collective. */
static thaw_status fill_cache(fill *f) {
    thaw_run *run = f->run;
    thaw_cache *c = f->cache;
    thaw_status status = thaw_comm_agree(run->comm, set_up(f));
    if (status == THAW_OK && c->file)
        status = compare_rows(f);
    if (status == THAW_OK && !f->stopped) {
        c->computed = thaw_store_n_missing(c->store);
        status = fill_missing(f);
    }
    thaw_loader_free(f->loader);
    thaw_free(f->rows);
    thaw_free(f->samples);
    thaw_free(f->starts);
    thaw_free(f->seconds);
    thaw_free(f->bounds);
    thaw_free(f->computed);
    if (f->block)
        thaw_free(f->block[0]);
    thaw_free(f->block);
    if (status != THAW_OK || f->stopped)
        return status;
    c->filled = !f->broken;
    if (!f->broken)
        return c->computed > 0 ? thaw_cache_tell_rounding(run, c) : THAW_OK;
    thaw_comm_agree(run->comm, f->trouble); /* for its message */
    if (thaw_comm_rank(run->comm) == 0)
        thaw_warn("the stage goes on without a cache: %s", thaw_message());
    thaw_cache_drop(c);
    return thaw_stage_make_loaders(run);
}

thaw_status thaw_cache_fill(thaw_run *run, bool *stopped) {
    thaw_cache *caches[2] = {run->cache, run->validation_cache};
    for (int which = 0; which < 2; which++) {
        if (caches[which]) {
            caches[which]->computed = 0;
            caches[which]->rounding_known = false;
        }
        if (!thaw_cache_on(caches[which]) || caches[which]->filled || *stopped)
            continue;
        double started = thaw_clock();
        fill f = {.run = run, .cache = caches[which]};
        THAW_TRY(fill_cache(&f));
        *stopped = f.stopped;
        if (which == 1) {
            run->epoch_tally.validation_seconds += thaw_clock() - started;
            continue;
        }
        run->epoch_tally.seconds += thaw_clock() - started;
        run->epoch_tally.phases.input += f.input;
        run->epoch_tally.phases.prefix += f.prefix;
    }
    return THAW_OK;
}
