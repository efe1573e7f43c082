#include "train/record.h"

#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/threads.h"
#include "graph/freeze.h"
#include "kernels/kernels.h"
#include "train/cache.h"

/* The processor's name as Linux gives it; thaw_free. NULL if it does not say. */
static char *cpu_name(void) {
    static const char key[] = "model name";
    void *bytes;
    size_t size;
    char *name = NULL;
    if (thaw_io_read(&bytes, &size, "/proc/cpuinfo", 0) != THAW_OK)
        return NULL;
    const char *line = strstr(bytes, key), *colon = line ? strchr(line, ':') : NULL;
    if (colon) {
        colon += 1 + strspn(colon + 1, " \t");
        name = thaw_strndup(colon, strcspn(colon, "\n"));
    }
    thaw_free(bytes);
    return name;
}

/* Each host once, in the order of ranks. */
static void put_hosts(thaw_event *event, const thaw_run *run) {
    thaw_event *list = thaw_event_list(event, "host_names");
    const char *at = run->hosts;
    for (int rank = 0; rank < thaw_comm_size(run->comm); rank++, at += strlen(at) + 1) {
        const char *before = run->hosts;
        while (strcmp(before, at) != 0)
            before += strlen(before) + 1;
        if (before == at)
            thaw_event_text(list, NULL, at);
    }
}

thaw_status thaw_record_start(const thaw_run *run, bool resumed) {
    if (!run->events)
        return THAW_OK;
    char *cpu = cpu_name();
    thaw_event *event = thaw_event_begin("start");
    thaw_event_text(event, "version", THAW_VERSION);
    thaw_event_flag(event, "resumed", resumed);
    thaw_event_integer(event, "ranks", thaw_comm_size(run->comm));
    thaw_event_integer(event, "threads", thaw_threads());
    thaw_event_integer(event, "hosts", thaw_comm_hosts(run->comm));
    thaw_event_text(event, "host", thaw_comm_host(run->comm));
    put_hosts(event, run);
    thaw_event_text(event, "mpi", thaw_comm_library(run->comm));
    thaw_event_text(event, "cpu", cpu);
    thaw_event_text(event, "kernels", thaw_kernels_describe());
    thaw_event_text(event, "job", run->job->path);
    thaw_event_hash(event, "data_hash", run->data_hash);
    thaw_event_integer(event, "images", run->train->n);
    thaw_event_integer(event, "validation_images", run->validation ? run->validation->n : 0);
    thaw_event_integer(event, "batch_size", run->job->batch_size);
    thaw_event_integer(event, "accumulate", run->job->accumulate);
    thaw_event_text(event, "preprocess", thaw_preprocess_name(run->preprocess));
    thaw_event_text(event, "loss", thaw_loss_name(run->objective.loss));
    thaw_event_text(event, "exchange", run->job->exchange);
    thaw_event_text(event, "exchange_precision", run->job->exchange_half ? "fp16" : "fp32");
    thaw_free(cpu);
    return thaw_event_write(run->events, event);
}

static const char *cache_mode(const thaw_cache *c) { return !thaw_cache_on(c) ? "off" : c->file ? "file" : "memory"; }

static void put_cache(thaw_event *event, const char *name, const thaw_cache *c) {
    thaw_event *cache = thaw_event_object(event, name);
    thaw_event_text(cache, "mode", cache_mode(c));
    thaw_event_text(cache, "note", c ? c->note : NULL);
    if (!thaw_cache_on(c))
        return;
    thaw_event_integer(cache, "images", c->dataset->n);
    thaw_event_integer(cache, "variants", c->variants);
    thaw_event_text(cache, "precision", c->half ? "fp16" : "fp32");
    thaw_event_integer(cache, "bytes_per_image", (int64_t)c->row_bytes);
    thaw_event_integer(cache, "bytes", (int64_t)c->bytes); /* on each host */
    thaw_event_integer(cache, "missing", thaw_store_n_missing(c->store));
    thaw_event_text(cache, "file", thaw_store_name(c->store));
    thaw_event_hash(cache, "key", c->key);
}

/* Images that the epoch took from the cache, and those that it computed for it, over all ranks. */
static void put_cache_use(thaw_event *event, const char *name, const thaw_cache *c, int64_t images) {
    thaw_event *cache = thaw_event_object(event, name);
    thaw_event_text(cache, "mode", cache_mode(c));
    thaw_event_integer(cache, "loaded", thaw_cache_on(c) ? images : 0);
    thaw_event_integer(cache, "computed", c ? c->computed : 0);
    if (!c || !c->rounding_known) /* what rounding to halves has cost, in the epoch that did it */
        return;
    thaw_event_number(cache, "relative_error", c->relative_error);
    thaw_event_integer(cache, "beyond_half", c->cut);
}

/* Augmentation that takes one of a few draws of each image. */
static void put_draws(thaw_event *event, const thaw_run *run) {
    char *note = thaw_report_draws(run);
    if (!note)
        return;
    const int64_t epochs = run->job->stages[run->at.stage].epochs;
    thaw_event *draws = thaw_event_object(event, "draws");
    thaw_event_integer(draws, "an_image", run->job->cache_variants);
    thaw_event_number(draws, "uses", (double)epochs / (double)run->job->cache_variants);
    thaw_event_text(draws, "note", note);
    thaw_free(note);
}

thaw_status thaw_record_stage(const thaw_run *run) {
    if (!run->events)
        return THAW_OK;
    const thaw_plan *plan = run->plan;
    const thaw_model *model = run->model;
    const thaw_job_stage *stage = &run->job->stages[run->at.stage];
    thaw_event *event = thaw_event_begin("stage");
    thaw_event_text(event, "stage", stage->name);
    thaw_event_text(event, "name", stage->name);
    thaw_event_text(event, "freeze", thaw_freeze_describe(run->trainable, model));
    thaw_event_integer(event, "epochs", stage->epochs);
    thaw_event_number(event, "learning_rate", run->optimizer->learning_rate);
    thaw_event_integer(event, "total_params", plan->total_params);
    thaw_event_integer(event, "trainable_params", plan->trainable_params);
    thaw_event_integer(event, "non_trainable_params", plan->frozen_params);
    thaw_event_integer(event, "gradient_bytes", plan->gradient_bytes);
    thaw_event_integer(event, "full_gradient_bytes", plan->full_gradient_bytes);
    thaw_event_integer(event, "memory_bytes_per_rank", (int64_t)run->memory.total);
    thaw_event_integer(event, "exchange_sharers", thaw_exchange_sharers(run->exchange)); /* ranks that sum in common memory */
    thaw_event *flop = thaw_event_object(event, "flop"); /* per image */
    thaw_event_number(flop, "forward", plan->forward_flop);
    thaw_event_number(flop, "prefix", plan->prefix_flop);
    thaw_event_number(flop, "backward", plan->backward_flop);
    thaw_event_number(flop, "full_backward", plan->full_backward_flop);
    thaw_event *boundary = thaw_event_list(event, "boundary");
    for (int i = 0; i < plan->n_boundary; i++)
        thaw_event_text(boundary, NULL, model->layers[model->nodes[plan->boundary[i]].layer].name);
    put_cache(event, "cache", run->cache);
    put_cache(event, "validation_cache", run->validation_cache);
    put_draws(event, run);
    thaw_event *layers = thaw_event_object(event, "layers");
    for (int i = 0; i < model->n_layers; i++)
        thaw_event_flag(layers, model->layers[i].name, run->trainable[i]);
    return thaw_event_write(run->events, event);
}

thaw_status thaw_record_epoch(const thaw_run *run, const thaw_values *values) {
    if (!run->events)
        return THAW_OK;
    const thaw_plan *plan = run->plan;
    const thaw_tally *t = &run->epoch_tally;
    thaw_event *event = thaw_event_begin("epoch");
    thaw_event_text(event, "stage", run->job->stages[run->at.stage].name);
    thaw_event_integer(event, "epoch", run->at.total_epochs);
    thaw_event_integer(event, "stage_epoch", run->at.epoch);
    thaw_event_number(event, "learning_rate", run->optimizer->learning_rate);
    thaw_event *metrics = thaw_event_object(event, "metrics");
    for (int i = 0; i < values->n; i++)
        if (strcmp(values->names[i], "learning_rate") != 0)
            thaw_event_number(metrics, values->names[i], values->values[i]);
    thaw_event_integer(event, "images", (int64_t)run->sums.images);
    thaw_event_integer(event, "steps", t->steps);
    thaw_event_number(event, "seconds", t->seconds);
    thaw_event_number(event, "validation_seconds", t->validation_seconds);
    thaw_event_number(event, "images_per_second", t->seconds > 0.0 ? run->sums.images / t->seconds : 0.0);
    thaw_event_integer(event, "exchanged_bytes", t->exchanged);
    const int64_t unfrozen = t->steps * thaw_job_wire_bytes(run->job, plan->full_gradient_bytes);
    thaw_event_integer(event, "exchanged_bytes_if_unfrozen", unfrozen);
    thaw_event_integer(event, "hidden_bytes", t->hidden);
    thaw_event_integer(event, "other_bytes", t->other);
    thaw_event_integer(event, "peak_memory_bytes", (int64_t)run->peak); /* resident, on the rank that has most, so far */
    thaw_event *phases = thaw_event_object(event, "phases");
    thaw_event_number(phases, "input", t->phases.input);
    thaw_event_number(phases, "prefix", t->phases.prefix);
    thaw_event_number(phases, "suffix", t->phases.suffix);
    thaw_event_number(phases, "backward", t->phases.backward);
    thaw_event_number(phases, "exchange_wait", t->phases.wait);
    thaw_event_number(phases, "update", t->phases.update);
    put_cache_use(event, "cache", run->cache, (int64_t)run->sums.images);
    put_cache_use(event, "validation_cache", run->validation_cache, run->validation ? run->validation->n : 0);
    thaw_event *avoided = thaw_event_object(event, "avoided"); /* against the same epoch with nothing frozen */
    thaw_event_number(avoided, "flop", (plan->full_backward_flop - plan->backward_flop) * run->sums.images);
    thaw_event_integer(avoided, "exchanged_bytes", unfrozen - t->exchanged);
    thaw_event_integer(avoided, "optimizer_bytes",
                       (plan->full_gradient_bytes - plan->gradient_bytes) * run->optimizer->n_slots);
    return thaw_event_write(run->events, event);
}

thaw_status thaw_record_memory(const thaw_run *run) {
    if (!run->events)
        return THAW_OK;
    const thaw_plan_memory *m = &run->plan->memory;
    const thaw_stage_memory *s = &run->memory;
    const struct {
        const char *name;
        size_t bytes;
    } parts[] = {{"program", s->program}, {"weights", m->weights},     {"packed", m->packed},   {"gradients", m->gradients},
                 {"optimizer", m->optimizer}, {"boundary", m->boundary}, {"batches", s->batches}, {"index", s->index},
                 {"best", s->best},       {"prefix", m->prefix},       {"suffix", m->suffix},   {"scratch", m->scratch},
                 {"file", s->file}};
    thaw_event *event = thaw_event_begin("memory");
    thaw_event_text(event, "stage", run->job->stages[run->at.stage].name);
    thaw_event_integer(event, "memory_bytes_per_rank", (int64_t)s->total);
    thaw_event_integer(event, "shared_bytes_per_host", (int64_t)s->common);
    thaw_event_integer(event, "peak_memory_bytes", (int64_t)run->peak);
    thaw_event *list = thaw_event_object(event, "estimated");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        thaw_event_integer(list, parts[i].name, (int64_t)parts[i].bytes);
    return thaw_event_write(run->events, event);
}

void thaw_record_end(const thaw_run *run, thaw_status status) {
    if (!run->events)
        return;
    char *message = status == THAW_OK ? NULL : thaw_strdup(thaw_message()); /* before a failure here replaces it */
    thaw_event *event = thaw_event_begin("end");
    thaw_event_integer(event, "status", (int64_t)status);
    thaw_event_text(event, "message", message);
    thaw_event_number(event, "seconds", thaw_clock() - run->started);
    thaw_event_integer(event, "epochs", run->at.total_epochs);
    thaw_event_integer(event, "steps", run->at.total_steps);
    const uint64_t peak = thaw_stage_own_peak(run); /* a run that fails has nobody left to ask */
    thaw_event_integer(event, "peak_memory_bytes", (int64_t)(peak > run->peak ? peak : run->peak));
    if (thaw_event_write(run->events, event) != THAW_OK && message)
        thaw_fail(status, "%s", message);
    thaw_free(message);
}
