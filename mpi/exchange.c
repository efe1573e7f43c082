/* The gradient exchange: which buckets of the flat block are begun, in which order, and how many bytes went in.
 *
 * A bucket is idle, then begun, and idle again once thaw_exchange_finish has seen it summed. Sums are put in line in the
 * order in which the buckets were begun, which is the same on all ranks. */
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "exchange.h"
#include "node_sum.h"
#include "watch.h"

struct thaw_exchange {
    thaw_comm *comm;
    float *block;
    float *results; /* of owners, in place of sums; NULL: sums go to all */
    float *lost; /* with halves and several ranks: of each float of the block up to the last bucket's end; else NULL */
    size_t extent;
    int n_buckets, n_begun;
    bool overlaps, half;
    thaw_bucket *buckets; /* n_buckets */
    bool *begun;          /* n_buckets */
    int *order;           /* the first n_begun: buckets in the order of their beginning */
    thaw_allreduce *sums; /* NULL: they are taken inside of finish, */
    thaw_node_sum *node;  /* or here */
    uint64_t bytes, hidden;
};

/* Two buckets that share a float would have it summed twice. */
static thaw_status check_buckets(const thaw_bucket *buckets, int n) {
    for (int i = 0; i < n; i++) {
        size_t end, bytes;
        if (thaw_add_overflow(buckets[i].offset, buckets[i].count, &end) ||
            thaw_mul_overflow(end, sizeof(float), &bytes))
            return thaw_fail(THAW_INTERNAL, "exchange: bucket %d at %zu with %zu floats is larger than memory", i,
                             buckets[i].offset, buckets[i].count);
        if (buckets[i].payload > buckets[i].count)
            return thaw_fail(THAW_INTERNAL, "exchange: bucket %d has %zu floats, of which %zu are to be payload", i,
                             buckets[i].count, buckets[i].payload);
        for (int j = 0; j < i; j++)
            if (buckets[j].offset < end && buckets[i].offset < buckets[j].offset + buckets[j].count)
                return thaw_fail(THAW_INTERNAL, "exchange: buckets %d and %d overlap", j, i);
    }
    return THAW_OK;
}

static size_t total(const thaw_bucket *buckets, int n) {
    size_t floats = 0;
    for (int i = 0; i < n; i++)
        floats += buckets[i].count;
    return floats;
}

/* Floats of the block up to the last bucket's end. */
static size_t extent_of(const thaw_bucket *buckets, int n) {
    size_t extent = 0;
    for (int i = 0; i < n; i++)
        if (buckets[i].offset + buckets[i].count > extent)
            extent = buckets[i].offset + buckets[i].count;
    return extent;
}

/* Everything of a creation that can fail on one rank alone. */
static thaw_status build(thaw_exchange **out, thaw_comm *comm, float *block, const thaw_bucket *buckets, int n,
                         thaw_exchange_kind kind, const thaw_allreduce_options *options) {
    *out = NULL;
    if (n < 0 || (n > 0 && (!block || !buckets)))
        return thaw_fail(THAW_INTERNAL, "exchange: %d buckets without a block or their places", n);
    THAW_TRY(check_buckets(buckets, n));
    thaw_exchange *exchange = thaw_malloc(sizeof *exchange);
    if (!exchange)
        return thaw_fail(THAW_RESOURCE, "exchange: not enough memory for %d buckets", n);
    exchange->comm = comm;
    exchange->block = block;
    exchange->n_buckets = n;
    exchange->results = NULL;
    exchange->overlaps = kind != THAW_EXCHANGE_MPI;
    exchange->half = kind == THAW_EXCHANGE_HALF;
    exchange->extent = extent_of(buckets, n);
    exchange->buckets = thaw_calloc((size_t)n, sizeof *exchange->buckets);
    exchange->begun = thaw_calloc((size_t)n, sizeof *exchange->begun);
    exchange->order = thaw_calloc((size_t)n, sizeof *exchange->order);
    const bool loses = exchange->half && thaw_comm_size(comm) > 1;
    exchange->lost = loses ? thaw_calloc(exchange->extent, sizeof *exchange->lost) : NULL;
    if (!exchange->buckets || !exchange->begun || !exchange->order || (loses && !exchange->lost)) {
        thaw_exchange_free(exchange);
        return thaw_fail(THAW_RESOURCE, "exchange: not enough memory for %d buckets", n);
    }
    if (n > 0)
        memcpy(exchange->buckets, buckets, (size_t)n * sizeof *buckets);
    *out = exchange;
    if (kind == THAW_EXCHANGE_AUTO && !options && thaw_node_sum_fits(comm, block)) /* halves want messages */
        return thaw_node_sum_create(&exchange->node, comm, block, n, total(buckets, n));
    thaw_allreduce_options with = options ? *options : (thaw_allreduce_options){0};
    with.half = exchange->half;
    return kind == THAW_EXCHANGE_MPI ? THAW_OK : thaw_allreduce_create(&exchange->sums, comm, n, total(buckets, n), &with);
}

thaw_status thaw_exchange_create_with(thaw_exchange **out, thaw_comm *comm, float *block, const thaw_bucket *buckets,
                                      int n_buckets, thaw_exchange_kind kind, const thaw_allreduce_options *options) {
    thaw_status status = thaw_comm_agree(comm, build(out, comm, block, buckets, n_buckets, kind, options));
    const unsigned way = *out && (*out)->node ? 3 : kind == THAW_EXCHANGE_MPI ? 1 : kind == THAW_EXCHANGE_HALF ? 2 : 0;
    const uint64_t start = (uint64_t)n_buckets << 2 | way;
    if (status == THAW_OK)
        status = thaw_comm_same(comm, "division of the gradient into buckets",
                                thaw_hash(buckets, (size_t)n_buckets * sizeof *buckets, start), THAW_INTERNAL);
    if (status != THAW_OK) {
        thaw_exchange_free(*out);
        *out = NULL;
    }
    return status;
}

thaw_status thaw_exchange_create(thaw_exchange **out, thaw_comm *comm, float *block, const thaw_bucket *buckets,
                                 int n_buckets, thaw_exchange_kind kind) {
    return thaw_exchange_create_with(out, comm, block, buckets, n_buckets, kind, NULL);
}

void thaw_exchange_free(thaw_exchange *exchange) {
    if (!exchange)
        return;
    thaw_allreduce_free(exchange->sums);
    thaw_node_sum_free(exchange->node);
    thaw_free(exchange->lost);
    thaw_free(exchange->buckets);
    thaw_free(exchange->begun);
    thaw_free(exchange->order);
    thaw_free(exchange);
}

/* Bytes of a float on the wire. */
static size_t width(const thaw_exchange *exchange) { return exchange->half ? sizeof(uint16_t) : sizeof(float); }

thaw_status thaw_exchange_begin(thaw_exchange *exchange, int bucket) {
    if (bucket < 0 || bucket >= exchange->n_buckets)
        return thaw_fail(THAW_INTERNAL, "exchange: bucket %d begun, there are %d", bucket, exchange->n_buckets);
    if (exchange->begun[bucket])
        return thaw_fail(THAW_INTERNAL, "exchange: bucket %d begun twice before a finish", bucket);
    exchange->begun[bucket] = true;
    exchange->order[exchange->n_begun++] = bucket;
    const thaw_bucket *b = &exchange->buckets[bucket];
    exchange->bytes += (uint64_t)b->payload * width(exchange);
    if (exchange->node)
        thaw_node_sum_begin(exchange->node, b->offset, b->count);
    if (exchange->sums)
        thaw_allreduce_begin(exchange->sums, exchange->block + b->offset, exchange->lost ? exchange->lost + b->offset : NULL,
                             exchange->results ? exchange->results + b->offset : NULL, b->count);
    return THAW_OK;
}

bool thaw_exchange_poll(thaw_exchange *exchange) {
    return exchange->node ? thaw_node_sum_poll(exchange->node) : exchange->sums && thaw_allreduce_poll(exchange->sums);
}

/* All begun buckets one after the other. */
static thaw_status sum_now(thaw_exchange *exchange) {
    for (int i = 0; i < exchange->n_begun; i++) {
        const thaw_bucket *bucket = &exchange->buckets[exchange->order[i]];
        THAW_TRY(thaw_comm_sum_floats(exchange->comm, exchange->block + bucket->offset, bucket->count));
    }
    return THAW_OK;
}

thaw_status thaw_exchange_finish(thaw_exchange *exchange) {
    thaw_status status = THAW_OK;
    if (exchange->sums || exchange->node) {
        size_t begun = 0;
        for (int i = 0; i < exchange->n_begun && thaw_comm_size(exchange->comm) > 1; i++)
            begun += exchange->buckets[exchange->order[i]].count;
        const size_t left = exchange->node ? thaw_node_sum_left(exchange->node) : thaw_allreduce_left(exchange->sums);
        exchange->hidden += (begun - left) * width(exchange);
        thaw_watch_wait();
        if (exchange->node)
            thaw_node_sum_finish(exchange->node);
        else
            thaw_allreduce_finish(exchange->sums);
        thaw_watch_go_on();
    } else {
        status = sum_now(exchange);
    }
    memset(exchange->begun, 0, (size_t)exchange->n_buckets * sizeof *exchange->begun);
    exchange->n_begun = 0;
    return status;
}

uint64_t thaw_exchange_bytes(const thaw_exchange *exchange) { return exchange->bytes; }
uint64_t thaw_exchange_hidden(const thaw_exchange *exchange) { return exchange->hidden; }
int thaw_exchange_sharers(const thaw_exchange *exchange) { return exchange->node ? thaw_node_sum_parts(exchange->node) : 1; }
bool thaw_exchange_overlaps(const thaw_exchange *exchange) { return exchange->overlaps; }

bool thaw_exchange_for_owners(thaw_exchange *exchange, float *results, thaw_exchange_use *use, void *payload) {
    if (!exchange->sums || !thaw_allreduce_use(exchange->sums, use, payload))
        return false;
    exchange->results = results;
    return true;
}

void thaw_exchange_gather(thaw_exchange *exchange, float *block) {
    for (int i = 0; i < exchange->n_buckets; i++)
        thaw_allreduce_gather(exchange->sums, block + exchange->buckets[i].offset, exchange->buckets[i].count);
    thaw_watch_wait();
    thaw_allreduce_finish(exchange->sums);
    thaw_watch_go_on();
}

void thaw_exchange_forget(thaw_exchange *exchange) {
    if (exchange->lost)
        memset(exchange->lost, 0, exchange->extent * sizeof *exchange->lost);
}

size_t thaw_exchange_memory(const thaw_bucket *buckets, int n_buckets, int ranks, thaw_exchange_kind kind) {
    const bool half = kind == THAW_EXCHANGE_HALF && ranks > 1;
    return thaw_allreduce_memory(n_buckets, total(buckets, n_buckets), ranks, half) +
           (half ? extent_of(buckets, n_buckets) * sizeof(float) : 0);
}

size_t thaw_exchange_memory_common(const thaw_bucket *buckets, int n_buckets, int ranks, int sharers) {
    return thaw_node_sum_memory(n_buckets, total(buckets, n_buckets), ranks, sharers);
}
