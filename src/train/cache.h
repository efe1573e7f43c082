/* The boundary cache: what the prefix gives for a sample is computed once and kept, so that later epochs need neither the
 * image nor the prefix. Private to src/train.
 *
 *   cache_choose.c  whether and where, for a stage; the key
 *   cache.c         computing what is missing, loading
 *   store.c         rows that the ranks of a host share
 *
 * A row is the boundary of one sample in one of its variants (mirrored or not; one of its draws): row = variant * samples +
 * sample. Rows are what the prefix computes, bit for bit, so training is the same with and without them. Where they are halves
 * (cache.precision), steps without rows round what the prefix computes in the same way, so that it is the same there too. */
#ifndef THAW_TRAIN_CACHE_H
#define THAW_TRAIN_CACHE_H

#include "base/half.h"
#include "train/run.h"
#include "train/store.h"

struct thaw_cache {
    const thaw_dataset *dataset;
    thaw_loader_options options; /* as the epoch's loader has them, without the cache */
    bool flat;                   /* samples without height and width */
    int variants;
    int n_parts;        /* boundary tensors */
    size_t *part_count; /* floats of an image */
    size_t *part_bytes; /* of an image in the store */
    const thaw_engine *engine;
    float **slots;      /* n_parts: the engine's, as they were last looked for */
    bool half;          /* rows are halves */
    char **packed;      /* n_parts: halves of a batch, as the store takes them; NULL: rows are floats */
    thaw_half_error *errors;  /* of each image of a batch */
    thaw_half_error rounding; /* of this rank since it was last told */
    bool rounding_told, cut_told; /* in this stage */
    bool rounding_known;      /* in this epoch: */
    double relative_error;    /* L2, over all ranks */
    int64_t cut;              /* values beyond the range of halves */
    uint64_t key, row_bytes, bytes;
    thaw_store *store; /* NULL: off */
    bool filled;       /* no row is missing */
    bool file;         /* else in memory */
    char *note;        /* one line for the user; NULL: nothing to say */
    int64_t computed;  /* rows that the epoch had to compute, on all ranks */
};

/* Cost of an epoch for one image, in units of one floating-point operation, and what the choice follows from. */
typedef struct thaw_cache_cost {
    double whole, cached; /* without and with the cache */
    double fill;          /* computing one row */
    int64_t epochs;       /* left in the stage */
    int variants;
} thaw_cache_cost;
/* The cache makes the rest of the stage cheaper, by 5 % at least. */
bool thaw_cache_pays(const thaw_cache_cost *cost);

/* What thaw_cache_begin will choose for the training data of a stage that begins with nothing cached, as far as one process
 * can know. [in] memory: bytes of a rank without cache. */
typedef struct thaw_cache_forecast {
    bool on;
    int variants;
    uint64_t bytes;
} thaw_cache_forecast;
thaw_cache_forecast thaw_cache_expect(const thaw_plan *plan, const thaw_job *job, int stage, int ranks,
                                      const thaw_samples_size *samples, size_t memory);

/* What the rows are: hash of the prefix (thaw_plan_prefix_hash), kernels, preprocessing, decoding, samples in their order,
 * variants, with draws their seed, precision. [in] cache: dataset, options, variants, half and row_bytes are set. */
uint64_t thaw_cache_key(uint64_t prefix, const char *kernels, const thaw_cache *cache);

/* Decides for the stage whose plan and engine are set up; keeps what a stage before has computed if it is the same.
 * Collective. A cache that cannot be had is no error but a note. */
thaw_status thaw_cache_begin(thaw_run *run);
void thaw_cache_free(thaw_cache *cache); /* NULL is accepted */
static inline bool thaw_cache_on(const thaw_cache *cache) { return cache && cache->store; }
/* Ends the cache: from here on images are read and computed. The caller makes its loader again. */
void thaw_cache_drop(thaw_cache *cache);

/* Computes what is missing, before the first epoch that wants it; its time is that epoch's. *stopped: on request, in
 * between. Errors: those of reading images. Collective. */
thaw_status thaw_cache_fill(thaw_run *run, bool *stopped);
/* Boundary of n samples into the engine's slots. Errors: THAW_IO. Not collective. */
thaw_status thaw_cache_load(const thaw_cache *cache, int64_t n, const int64_t *samples, int64_t epoch);
/* The same for a batch that the engine has just computed: rounds its slots if rows are halves. cache NULL is accepted. Not
 * collective. */
void thaw_cache_round(thaw_cache *cache, int64_t n);
/* Sums up what rounding has cost since the last call, and tells it once a stage. cache NULL is accepted. Collective. */
thaw_status thaw_cache_tell_rounding(thaw_run *run, thaw_cache *cache);
#endif
