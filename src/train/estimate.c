#include "train/estimate.h"

#include <string.h>

#include "base/limits.h"
#include "base/memory.h"
#include "base/threads.h"
#include "train/slices.h"

/* HDF5 keeps this much beside the data when it writes: the superblock, heaps and headers of a thousand tensors. */
#define FILE_EXTRA ((size_t)1 << 20)

enum { LEAST_BLOCKS = 8 }; /* of an epoch */

size_t thaw_best_floats(const thaw_plan *plan) {
    size_t count = plan->count;
    for (int i = 0; i < plan->model->n_layers; i++)
        for (int t = 0; plan->batch_statistics[i] && t < plan->model->layers[i].n_tensors; t++)
            if (plan->model->layers[i].tensors[t].statistic)
                count += plan->model->layers[i].tensors[t].count;
    return count;
}

int64_t thaw_part_images(const thaw_job *job) { return (job->batch_size + job->accumulate - 1) / job->accumulate; }

int64_t thaw_validation_images(const thaw_job *job) {
    return job->validation_batch_size ? job->validation_batch_size : thaw_part_images(job);
}

thaw_exchange_kind thaw_job_exchange(const thaw_job *job) {
    return strcmp(job->exchange, "mpi") == 0       ? THAW_EXCHANGE_MPI
           : job->exchange_half                    ? THAW_EXCHANGE_HALF
           : strcmp(job->exchange, "overlap") == 0 ? THAW_EXCHANGE_OVERLAP
                                                   : THAW_EXCHANGE_AUTO;
}

int64_t thaw_job_wire_bytes(const thaw_job *job, int64_t bytes) { return job->exchange_half ? bytes / 2 : bytes; }

int thaw_decoding_threads(int64_t given) {
    if (given > 0)
        return (int)given;
    int threads = thaw_threads(); /* decoding hides behind the kernels: a share of their threads is enough */
    return threads > 4 ? threads / 4 : 1;
}

/* A sample's number in the index, its place in the order of a pass and in this rank's share of it, and its name. */
static size_t index_bytes(const thaw_dataset *d) {
    size_t bytes = 0;
    for (int64_t i = 0; d && d->paths && i < d->n; i++)
        bytes += sizeof *d->paths + strlen(d->paths[i]) + 1 + sizeof *d->labels;
    return bytes + (d ? (size_t)d->n * 5 * sizeof(int64_t) : 0);
}

thaw_samples_size thaw_samples_size_of(const thaw_dataset *train, const thaw_dataset *validation, const thaw_job *job) {
    thaw_samples_size size = {.known = true, .arrays = train->arrays, .flat = train->arrays && train->x_rank == 2,
                              .train = train->n};
    int threads = thaw_decoding_threads(job->threads);
    size.reading = thaw_dataset_reading_bytes(train, threads);
    size.index = index_bytes(train) + index_bytes(validation);
    if (validation) {
        size.validation = validation->n;
        size.reading += thaw_dataset_reading_bytes(validation, threads);
    } else if (job->validation_split > 0.0) {
        size.validation = (int64_t)((double)train->n * job->validation_split);
        size.train -= size.validation;
        size.reading *= 2;
    }
    return size;
}

size_t thaw_program_bytes(void) {
    uint64_t resident = thaw_resident_bytes("").now, live = thaw_memory_live();
    return resident > live ? (size_t)(resident - live) : 0;
}

int thaw_steps_together(const thaw_plan *plan, const thaw_job *job, int64_t samples, int ranks) {
    const int64_t parts = (samples + job->batch_size - 1) / job->batch_size * job->accumulate;
    const bool hides = ranks > 1 && thaw_job_exchange(job) != THAW_EXCHANGE_MPI;
    /* Nothing runs behind the steps of an epoch's last block: it is short where there is an exchange to hide. */
    const int64_t most = hides ? parts / LEAST_BLOCKS : parts;
    return samples == 0 || plan->together < most ? plan->together : most > 1 ? (int)most : 1;
}

int64_t thaw_blocks_ahead(int64_t prefetch, int together) { return (prefetch + together - 1) / together; }

int thaw_blocks_held(int together) { return together > 1 ? 2 : 1; }

/* Batches of a pass that a loader has at once, if there are so many. */
static int64_t batches_there(const thaw_job *job, bool known, int64_t samples, int64_t size, int together) {
    int64_t most = (thaw_blocks_ahead(job->prefetch, together) + thaw_blocks_held(together)) * together;
    int64_t batches = (samples + size - 1) / size;
    return known && batches < most ? batches : most;
}

thaw_status thaw_stage_sharers(int *sharers, thaw_comm *comm) {
    double fewest = -(double)thaw_comm_local_size(comm);
    THAW_TRY(thaw_comm_max(comm, &fewest, 1));
    *sharers = (int)-fewest;
    return THAW_OK;
}

size_t thaw_held_by_others(size_t bytes, int sharers) { return bytes - bytes / (size_t)sharers; }

thaw_stage_memory thaw_stage_memory_of(const thaw_plan *plan, const thaw_job *job, int stage, int ranks, int sharers,
                                       const thaw_samples_size *samples, size_t program) {
    const thaw_plan_memory *m = &plan->memory;
    const thaw_job_early_stopping *stopping = &job->stages[stage].early_stopping;
    size_t weights = (size_t)plan->total_params * sizeof(float);
    int64_t part = thaw_part_images(job), images = thaw_slices_most(plan->slices, part, ranks);
    int64_t validation = thaw_validation_images(job), shares = thaw_slices_most(plan->slices, validation, ranks);
    bool validates = samples->known ? samples->validation > 0
                                    : job->validation || job->validation_x || job->validation_split > 0.0;
    size_t image = m->input / (size_t)plan->prefix_images;
    const int together = thaw_steps_together(plan, job, samples->known ? samples->train : 0, ranks);
    thaw_stage_memory s = {.program = program, .index = samples->index, .file = weights + FILE_EXTRA, .sharers = sharers,
                           .common = sharers > 1 ? m->constants + m->updated : 0};
    s.batches = samples->reading +
                image * (size_t)(images * batches_there(job, samples->known, samples->train, part, together));
    if (validates)
        s.batches += image * (size_t)(shares * batches_there(job, samples->known, samples->validation, validation, 1));
    if (stopping->on && stopping->restore_best_weights)
        s.best = thaw_best_floats(plan) * sizeof(float);
    /* Hosts that are subtrees of the sums' tree sum in common memory, if there is room. */
    const bool even = sharers == ranks || ((sharers & (sharers - 1)) == 0 && ranks % sharers == 0);
    s.exchange = sharers > 1 && even && thaw_job_exchange(job) == THAW_EXCHANGE_AUTO
                     ? thaw_exchange_memory_common(plan->buckets, plan->n_buckets, ranks, sharers)
                     : thaw_exchange_memory(plan->buckets, plan->n_buckets, ranks, thaw_job_exchange(job));
    s.lasting = s.program + s.index + s.batches + s.best + s.exchange + m->weights + m->packed + m->gradients + m->optimizer +
                m->boundary - thaw_held_by_others(s.common, sharers);
    s.working = m->prefix + m->suffix + m->scratch;
    s.total = s.lasting + (s.working > s.file ? s.working : s.file);
    const size_t between = s.program + s.index + weights + s.file; /* every rank has all tensors at home */
    s.total = s.total > between ? s.total : between;
    return s;
}
