/* Whether the boundary cache pays, where its rows go, and what they are called. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernels/kernels.h"
#include "train/cache.h"
#include "train/samples.h"

/* The cost model, in floating-point operations: what moving a byte through memory costs (a core has some 5 GB/s beside 100
 * GFLOP/s), and what reading, decoding and resizing costs for a value of the network's input. */
#define FLOP_PER_BYTE 20.0
#define FLOP_PER_DECODED_VALUE 1000.0
#define FLOP_PER_READ_VALUE 80.0

#define MEMORY_SHARE 0.5 /* of what the host's limits leave, when the job does not say */

enum { KEY_FORMAT = 2 }; /* another number when rows of equal keys would no longer be equal */

bool thaw_cache_pays(const thaw_cache_cost *c) {
    double epochs = (double)c->epochs, with = (double)c->variants * c->fill + epochs * c->cached;
    return epochs * c->whole > 1.05 * with;
}

uint64_t thaw_cache_key(uint64_t prefix, const char *kernels, const thaw_cache *c) {
    const thaw_dataset *dataset = c->dataset;
    const bool drawn = c->options.draws > 0 && c->options.augment;
    const uint64_t words[] = {KEY_FORMAT,
                              prefix,
                              (uint64_t)c->options.preprocess,
                              c->options.scaled && !dataset->arrays,
                              (uint64_t)dataset->n,
                              dataset->arrays,
                              (uint64_t)c->variants,
                              drawn,
                              drawn ? c->options.seed : 0,
                              c->half,
                              c->row_bytes};
    uint64_t key = thaw_hash(words, sizeof words, 0);
    key = thaw_hash_text(THAW_VERSION, thaw_hash_text(kernels, key));
    if (dataset->content)
        return thaw_hash(dataset->content, (size_t)dataset->n * sizeof *dataset->content, key);
    /* Arrays whose cached rows never leave this run: which rows they are is enough. */
    return thaw_hash(dataset->rows, (size_t)dataset->n * sizeof *dataset->rows, thaw_hash_text(dataset->x_file, key));
}

void thaw_cache_drop(thaw_cache *c) {
    thaw_store_close(c->store);
    c->store = NULL;
    c->filled = false;
}

static void free_shape(thaw_cache *c) {
    for (int i = 0; c->packed && i < c->n_parts; i++)
        thaw_free(c->packed[i]);
    thaw_free(c->packed);
    thaw_free(c->errors);
    thaw_free(c->part_count);
    thaw_free(c->part_bytes);
    thaw_free(c->slots);
    c->packed = NULL;
    c->errors = NULL;
    c->part_count = c->part_bytes = NULL;
    c->slots = NULL;
}

void thaw_cache_free(thaw_cache *c) {
    if (!c)
        return;
    thaw_store_close(c->store);
    free_shape(c);
    thaw_free(c->note);
    thaw_free(c);
}

/* What one stage's choice goes by; equal on all ranks. */
typedef struct choice {
    thaw_run *run;
    bool validation;
    uint64_t prefix;
    uint64_t left; /* bytes of memory that the caches of a host may still take */
    char what[96]; /* where that number comes from */
} choice;

static void say(thaw_cache *c, char *line) {
    thaw_free(c->note);
    c->note = line;
}

/* Shapes of the stage. The slots are those of its engine. */
static thaw_status set_shape(thaw_cache *c, const choice *at) {
    const thaw_run *run = at->run;
    const thaw_plan *plan = run->plan;
    size_t parts = (size_t)plan->n_boundary, batch = (size_t)plan->prefix_images;
    free_shape(c);
    /* By the plan alone, not by where rows go or whether they are kept: it changes bits. */
    c->half = run->job->cache_half && thaw_plan_boundary_suffices(plan);
    c->rounding_told = c->cut_told = c->rounding_known = false;
    c->engine = run->engine;
    c->n_parts = plan->n_boundary;
    c->part_count = thaw_calloc(parts, sizeof *c->part_count);
    c->part_bytes = thaw_calloc(parts, sizeof *c->part_bytes);
    c->slots = thaw_calloc(parts, sizeof *c->slots);
    c->packed = c->half ? thaw_calloc(parts, sizeof *c->packed) : NULL;
    c->errors = c->half ? thaw_calloc(batch, sizeof *c->errors) : NULL;
    bool whole = c->part_count && c->part_bytes && c->slots && (!c->half || (c->packed && c->errors));
    c->row_bytes = 0;
    for (int i = 0; i < plan->n_boundary && whole; i++) {
        c->part_count[i] = (size_t)thaw_shape_count(&run->model->nodes[plan->boundary[i]].shape);
        c->part_bytes[i] = c->part_count[i] * (c->half ? sizeof(uint16_t) : sizeof(float));
        c->row_bytes += c->part_bytes[i];
        if (c->half)
            whole = (c->packed[i] = thaw_calloc(batch, c->part_bytes[i])) != NULL;
    }
    if (!whole)
        return thaw_fail(THAW_RESOURCE, "no memory for the cache");
    c->dataset = at->validation ? run->validation : run->train;
    c->options = thaw_stage_loader_options(run, at->validation);
    c->flat = c->dataset->arrays && c->dataset->x_rank == 2;
    c->variants = thaw_augment_variants(&c->options, c->flat);
    return THAW_OK;
}

/* Of an image, where a rank has `images` of a step. `slots`: of the optimizer; -1: the data is not trained on. */
static thaw_cache_cost cost_of(const thaw_plan *plan, bool arrays, uint64_t row_bytes, int variants, int slots, double images,
                               int64_t epochs) {
    double values = (double)thaw_shape_count(&plan->model->nodes[plan->model->input].shape);
    double input = values * (arrays ? FLOP_PER_READ_VALUE : FLOP_PER_DECODED_VALUE);
    double suffix = plan->forward_flop - plan->prefix_flop;
    if (slots >= 0) /* the update passes over weights, gradients and state once a step, on every rank */
        suffix += plan->backward_flop + (double)plan->gradient_bytes * (4.0 + 2.0 * slots) * FLOP_PER_BYTE / images;
    return (thaw_cache_cost){.whole = input + plan->prefix_flop + suffix,
                             .cached = (double)row_bytes * FLOP_PER_BYTE + suffix,
                             .fill = input + plan->prefix_flop,
                             .epochs = epochs,
                             .variants = variants};
}

static thaw_cache_cost cost_here(const thaw_cache *c, const choice *at) {
    const thaw_run *run = at->run;
    return cost_of(run->plan, c->dataset->arrays, c->row_bytes, c->variants, at->validation ? -1 : run->optimizer->n_slots,
                   (double)run->job->batch_size / (double)thaw_comm_size(run->comm),
                   run->job->stages[run->at.stage].epochs - run->at.epoch);
}

/* Folder for a file, expanded: the job's, or with mode file a folder for temporary files. NULL: none. Not owned. */
static const char *folder_of(const thaw_job *job) {
    const char *temporary = getenv("TMPDIR");
    if (job->cache_folder || strcmp(job->cache_mode, "file") != 0)
        return job->cache_folder;
    return temporary && *temporary ? temporary : "/tmp";
}

/* Every host has a file of this key. Collective. */
static thaw_status find_file(bool *found, const thaw_cache *c, const choice *at, const char *folder) {
    double missing = 0.0;
    thaw_status status = THAW_OK;
    if (thaw_comm_local_rank(at->run->comm) == 0) {
        char *path = thaw_store_path(folder, c->key, thaw_comm_host(at->run->comm));
        status = path ? THAW_OK : thaw_fail(THAW_RESOURCE, "no memory to look for cached rows");
        missing = !path || !thaw_io_exists(path);
        thaw_free(path);
    }
    THAW_TRY(thaw_comm_agree(at->run->comm, status));
    THAW_TRY(thaw_comm_max(at->run->comm, &missing, 1));
    *found = missing == 0.0;
    return THAW_OK;
}

static const char *kind_of(const choice *at) { return at->validation ? " of validation" : ""; }

static void say_off(thaw_cache *c, const choice *at, const char *why) {
    say(c, thaw_format("cache%s: off: %s", kind_of(at), why));
}

/* "epochs 2-5 cost 1/140". */
static void say_epochs(char text[128], long long first, long long last, double ratio) {
    char numbers[64];
    if (first < last)
        snprintf(numbers, sizeof numbers, "epochs %lld-%lld cost", first, last);
    else
        snprintf(numbers, sizeof numbers, "epoch %lld costs", first);
    snprintf(text, 128, ratio < 9.5 ? "%s 1/%.1f" : "%s 1/%.0f", numbers, ratio);
}

static void say_on(thaw_cache *c, choice *at, const thaw_cache_cost *cost) {
    char row[32], all[32], limit[32], forms[32] = "", reused[64] = "", when[192], later[128] = "";
    int64_t total = (int64_t)c->variants * c->dataset->n, missing = thaw_store_n_missing(c->store);
    long long first = (long long)at->run->at.epoch + 1, last = first + (long long)cost->epochs - 1;
    if (missing == 0 || first < last)
        say_epochs(later, first + (missing > 0), last, cost->whole / cost->cached);
    if (missing == 0)
        snprintf(when, sizeof when, "computed before, %s", later);
    else
        snprintf(when, sizeof when, "epoch %lld computes%s%s", first, *later ? ", " : "", later);
    if (missing > 0 && missing < total)
        snprintf(reused, sizeof reused, ", %lld computed before", (long long)(total - missing));
    thaw_bytes_text((double)c->row_bytes, row);
    thaw_bytes_text((double)c->bytes, all);
    char *place = c->file ? thaw_strdup(thaw_store_name(c->store))
                          : thaw_format("memory (%s: %s)", at->what, thaw_bytes_text((double)at->left, limit));
    if (c->options.draws > 0 && c->options.augment)
        snprintf(forms, sizeof forms, "%d draws x ", c->variants);
    else if (c->variants > 1)
        snprintf(forms, sizeof forms, "2 (mirrored too) x ");
    say(c, thaw_format("cache%s: %lld images x %s%s%s = %s in %s%s; %s", kind_of(at), (long long)c->dataset->n, forms, row,
                       c->half ? " (fp16)" : "", all, place ? place : "?", reused, when));
    thaw_free(place);
    if (!c->file)
        at->left -= c->bytes < at->left ? c->bytes : at->left;
}

/* Opens the store; what stands against that is said and is no error. Collective. */
static void open_store(thaw_cache *c, choice *at, const char *folder, const thaw_cache_cost *cost) {
    thaw_store_shape shape = {c->key, (int64_t)c->variants * c->dataset->n, c->n_parts, c->part_bytes};
    c->file = folder != NULL;
    if (thaw_store_open(&c->store, at->run->comm, folder, &shape) != THAW_OK) {
        say_off(c, at, thaw_message());
        return;
    }
    c->filled = false; /* rows of a file are compared with a computed one first */
    say_on(c, at, cost);
}

/* Bytes in memory: rows and, on each rank, the index. */
static uint64_t memory_bytes(const thaw_cache *c, const thaw_comm *comm) {
    return c->bytes + (uint64_t)c->variants * (uint64_t)c->dataset->n * 9 * (uint64_t)thaw_comm_local_size(comm);
}

/* Why there can be no cache; NULL: there can. */
static const char *obstacle(const thaw_cache *c, const choice *at) {
    if (c->variants == 0)
        return "random augmentation makes new images in every epoch";
    if (!thaw_plan_boundary_suffices(at->run->plan))
        return "what is trained begins at the images themselves";
    return NULL;
}

static thaw_status choose(thaw_cache *c, choice *at) {
    const thaw_job *job = at->run->job;
    thaw_comm *comm = at->run->comm;
    const bool automatic = strcmp(job->cache_mode, "auto") == 0, memory = strcmp(job->cache_mode, "memory") == 0;
    const char *folder = folder_of(job), *against = obstacle(c, at);
    const uint64_t key_before = c->key;
    bool found = false;
    say(c, NULL);
    if (against) {
        thaw_cache_drop(c);
        say_off(c, at, against);
        return THAW_OK;
    }
    thaw_store_shape shape = {0, (int64_t)c->variants * c->dataset->n, c->n_parts, c->part_bytes};
    if (!thaw_store_bytes(&shape, &c->bytes)) {
        thaw_cache_drop(c);
        say_off(c, at, "more bytes than can be counted");
        return THAW_OK;
    }
    if (!memory && folder)
        THAW_TRY(thaw_samples_content(at->validation ? at->run->validation : at->run->train, comm));
    c->key = thaw_cache_key(at->prefix, thaw_kernels_describe(), c);
    if (thaw_comm_same(comm, "the key of the cache", c->key, THAW_SYSTEM) != THAW_OK) {
        thaw_cache_drop(c);
        say_off(c, at, "the hosts have different processors or libraries, which give different bits");
        return THAW_OK;
    }
    thaw_cache_cost cost = cost_here(c, at);
    if (c->store && c->key == key_before) { /* the stage before had the same */
        say_on(c, at, &cost);
        return THAW_OK;
    }
    thaw_cache_drop(c);
    if (!memory && folder)
        THAW_TRY(find_file(&found, c, at, folder));
    if (found)
        cost.fill = 0.0;
    if (automatic && !thaw_cache_pays(&cost)) {
        char *why = cost.epochs <= cost.variants
                        ? thaw_format("%lld epoch%s of the stage left, which compute no more images than the cache would",
                                      (long long)cost.epochs, cost.epochs == 1 ? "" : "s")
                        : thaw_format("epochs would cost 1/%.2f", cost.whole / cost.cached);
        say_off(c, at, why ? why : "it does not pay");
        thaw_free(why);
        return THAW_OK;
    }
    if (folder && !memory && (!automatic || found || memory_bytes(c, comm) > at->left)) {
        open_store(c, at, folder, &cost);
    } else if (memory_bytes(c, comm) <= at->left) {
        open_store(c, at, NULL, &cost);
    } else {
        char all[32], limit[32];
        char *why = thaw_format("%s are more than %s (%s); %s", thaw_bytes_text((double)c->bytes, all), at->what,
                                thaw_bytes_text((double)at->left, limit),
                                memory ? "raise cache.memory, or set cache.mode: file"
                                       : "name a folder on a disk of the node (cache.dir), or raise cache.memory");
        say_off(c, at, why ? why : "no memory");
        thaw_free(why);
    }
    return THAW_OK;
}

/* Memory of this host that a cache holds now, and that may go to another one. */
static double held(const thaw_cache *c) { return thaw_cache_on(c) && !c->file ? (double)c->bytes : 0.0; }

/* What caches may take of `bytes` that nobody needs. */
static double share_of(const thaw_job *job, double bytes) {
    double given = (double)job->cache_memory;
    return given <= 0.0 ? bytes * MEMORY_SHARE : bytes < given ? bytes : given;
}

/* Memory that caches of a host may take: the least of all hosts. Collective. */
static thaw_status memory_left(choice *at) {
    const thaw_run *run = at->run;
    int ranks = thaw_comm_local_size(run->comm);
    thaw_memory_left host = thaw_memory_left_of("", ranks);
    /* What the stage will touch: its plan, and batches that are decoded ahead. */
    uint64_t planned = run->plan->memory_bytes + run->memory.batches + run->memory.exchange -
                       thaw_held_by_others(run->memory.common, run->memory.sharers);
    double bytes = (double)host.bytes - (double)planned * (double)ranks + held(run->cache) + held(run->validation_cache);
    double given = (double)run->job->cache_memory;
    snprintf(at->what, sizeof at->what, "%s", given > 0.0 && given <= bytes ? "cache.memory" : host.what);
    bytes = share_of(run->job, bytes);
    if (given <= 0.0) {
        snprintf(at->what, sizeof at->what, "half of what is left of the %s", host.what);
    }
    double least = bytes > 0.0 ? -bytes : 0.0; /* the largest of the negative numbers */
    THAW_TRY(thaw_comm_max(run->comm, &least, 1));
    at->left = (uint64_t)-least;
    return THAW_OK;
}

static thaw_status begin(thaw_run *run, thaw_cache **cache, choice *at) {
    thaw_status status = THAW_OK;
    if (!*cache)
        *cache = thaw_calloc(1, sizeof **cache);
    status = *cache ? set_shape(*cache, at) : thaw_fail(THAW_RESOURCE, "no memory for the cache");
    THAW_TRY(thaw_comm_agree(run->comm, status));
    return strcmp(run->job->cache_mode, "off") == 0 ? THAW_OK : choose(*cache, at);
}

thaw_status thaw_cache_begin(thaw_run *run) {
    choice at = {.run = run};
    if (strcmp(run->job->cache_mode, "off") == 0 && !run->job->cache_half)
        return THAW_OK;
    THAW_TRY(memory_left(&at));
    at.prefix = thaw_plan_prefix_hash(run->plan);
    THAW_TRY(begin(run, &run->cache, &at));
    at.validation = true;
    return run->validation ? begin(run, &run->validation_cache, &at) : THAW_OK;
}

thaw_cache_forecast thaw_cache_expect(const thaw_plan *plan, const thaw_job *job, int stage, int ranks,
                                      const thaw_samples_size *samples, size_t memory) {
    const bool augments = job->horizontal_flip && !samples->flat;
    thaw_cache_forecast f = {.variants = !augments ? 1 : job->cache_variants > 0 ? (int)job->cache_variants : 2};
    const bool automatic = strcmp(job->cache_mode, "auto") == 0, in_memory = strcmp(job->cache_mode, "memory") == 0;
    uint64_t row = (uint64_t)thaw_plan_boundary_floats(plan) * (job->cache_half ? sizeof(uint16_t) : sizeof(float));
    double left = share_of(job, (double)thaw_memory_left_of("", 1).bytes - (double)memory);
    f.bytes = (uint64_t)f.variants * (uint64_t)samples->train * row;
    if (strcmp(job->cache_mode, "off") == 0 || !samples->known || !thaw_plan_boundary_suffices(plan))
        return f;
    thaw_cache_cost cost = cost_of(plan, samples->arrays, row, f.variants, thaw_optimizer_slots(&job->stages[stage].optimizer),
                                   (double)job->batch_size / (double)ranks, job->stages[stage].epochs);
    if (!automatic || thaw_cache_pays(&cost))
        f.on = (folder_of(job) && !in_memory) || (double)f.bytes <= left;
    return f;
}
