/* The gradient exchange: which buckets of the flat block are begun, in which order, and how many bytes went in.
 *
 * A bucket is idle, then begun, and idle again once thaw_exchange_finish has summed it. The sums are taken in the order in
 * which the buckets were begun, which is the same on all ranks. */
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "exchange.h"

struct thaw_exchange {
    thaw_comm *comm;
    float *block;
    int n_buckets, n_begun;
    thaw_bucket *buckets; /* n_buckets */
    bool *begun;          /* n_buckets */
    int *order;           /* the first n_begun: buckets in the order of their beginning */
    uint64_t bytes;
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

/* Everything of a creation that can fail on one rank alone. */
static thaw_status build(thaw_exchange **out, thaw_comm *comm, float *block, const thaw_bucket *buckets, int n) {
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
    exchange->buckets = thaw_calloc((size_t)n, sizeof *exchange->buckets);
    exchange->begun = thaw_calloc((size_t)n, sizeof *exchange->begun);
    exchange->order = thaw_calloc((size_t)n, sizeof *exchange->order);
    if (!exchange->buckets || !exchange->begun || !exchange->order) {
        thaw_exchange_free(exchange);
        return thaw_fail(THAW_RESOURCE, "exchange: not enough memory for %d buckets", n);
    }
    if (n > 0)
        memcpy(exchange->buckets, buckets, (size_t)n * sizeof *buckets);
    *out = exchange;
    return THAW_OK;
}

thaw_status thaw_exchange_create(thaw_exchange **out, thaw_comm *comm, float *block, const thaw_bucket *buckets,
                                 int n_buckets) {
    thaw_status status = thaw_comm_agree(comm, build(out, comm, block, buckets, n_buckets));
    if (status == THAW_OK)
        status = thaw_comm_same(comm, "division of the gradient into buckets",
                                thaw_hash(buckets, (size_t)n_buckets * sizeof *buckets, (uint64_t)n_buckets),
                                THAW_INTERNAL);
    if (status != THAW_OK) {
        thaw_exchange_free(*out);
        *out = NULL;
    }
    return status;
}

void thaw_exchange_free(thaw_exchange *exchange) {
    if (!exchange)
        return;
    thaw_free(exchange->buckets);
    thaw_free(exchange->begun);
    thaw_free(exchange->order);
    thaw_free(exchange);
}

thaw_status thaw_exchange_begin(thaw_exchange *exchange, int bucket) {
    if (bucket < 0 || bucket >= exchange->n_buckets)
        return thaw_fail(THAW_INTERNAL, "exchange: bucket %d begun, there are %d", bucket, exchange->n_buckets);
    if (exchange->begun[bucket])
        return thaw_fail(THAW_INTERNAL, "exchange: bucket %d begun twice before a finish", bucket);
    exchange->begun[bucket] = true;
    exchange->order[exchange->n_begun++] = bucket;
    exchange->bytes += (uint64_t)exchange->buckets[bucket].payload * sizeof(float);
    return THAW_OK;
}

void thaw_exchange_poll(thaw_exchange *exchange) {
    /* Sums are taken by thaw_exchange_finish: between the operations nothing is in flight that could be pushed. */
    (void)exchange;
}

thaw_status thaw_exchange_finish(thaw_exchange *exchange) {
    thaw_status status = THAW_OK;
    for (int i = 0; i < exchange->n_begun && status == THAW_OK; i++) {
        const thaw_bucket *bucket = &exchange->buckets[exchange->order[i]];
        status = thaw_comm_sum_floats(exchange->comm, exchange->block + bucket->offset, bucket->count);
    }
    memset(exchange->begun, 0, (size_t)exchange->n_buckets * sizeof *exchange->begun);
    exchange->n_begun = 0;
    return status;
}

uint64_t thaw_exchange_bytes(const thaw_exchange *exchange) { return exchange->bytes; }
