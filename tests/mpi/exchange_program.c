/* The gradient exchange, checked by every rank of a small job: exchange_program SEED [common]. Run by test_exchange.py.
 *
 * Every rank knows what all ranks hold, so it takes the documented sums by itself and compares bits. Prints "ok P checks" on
 * rank 0; a failed check prints its line and makes the status 1. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "mpi/exchange.h"

enum { MOST_BUCKETS = 24, MOST_RANKS = 16, PATIENCE = 60 };

static int rank, size, checks, failures;
static uint64_t seed;

static void check(bool good, const char *what, int line) {
    checks++;
    if (good)
        return;
    failures++;
    fprintf(stderr, "rank %d of %d: line %d: %s (%s)\n", rank, size, line, what, thaw_message());
}
#define CHECK(condition) check((condition), #condition, __LINE__)

/* SplitMix64 (Steele, Lea, Flood 2014) of a counter. */
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* What rank r holds at i in a step: whole numbers, or numbers over many orders of magnitude, whose sum shows its order. */
static float held(int r, size_t i, int step, bool whole) {
    const uint64_t bits = mix(seed ^ (uint64_t)r << 52 ^ (uint64_t)step << 40 ^ i);
    const float number = (float)(bits >> 44) - 524288.0f;
    return whole ? (float)((int)(number / 64.0f)) : ldexpf(number, (int)(bits % 24) - 12);
}

/* The tree of thaw/comm.h, written down as it is said there. */
static float tree_sum(const float *values) {
    float row[MOST_RANKS];
    int n = 0, power = 1;
    while (2 * power <= size)
        power *= 2;
    for (int r = 0; r < size; n++) {
        const bool folded = n < size - power;
        row[n] = folded ? values[r] + values[r + 1] : values[r];
        r += folded ? 2 : 1;
    }
    for (; n > 1; n /= 2)
        for (int i = 0; i < n / 2; i++)
            row[i] = row[2 * i] + row[2 * i + 1];
    return row[0];
}

static bool summed(const float *block, size_t begin, size_t end, int step, bool whole) {
    for (size_t i = begin; i < end; i++) {
        float values[MOST_RANKS];
        double sum = 0.0, most = 0.0;
        for (int r = 0; r < size; r++) {
            values[r] = held(r, i, step, whole);
            sum += (double)values[r];
            most += fabs((double)values[r]);
        }
        const float want = tree_sum(values);
        if (memcmp(&want, &block[i], sizeof want) != 0 || (whole && (double)want != sum) ||
            fabs((double)want - sum) > most * 1e-6)
            return false;
    }
    return true;
}

/* Buckets of all sizes with gaps between them; returns the floats of the block. */
static size_t draw_buckets(thaw_bucket *buckets, int n, uint64_t draw, size_t largest) {
    size_t at = 0;
    for (int b = 0; b < n; b++) {
        const uint64_t bits = mix(draw + (uint64_t)b);
        const size_t sizes[] = {0, 1, (size_t)size, 16 * (size_t)size + 1, bits % 97, bits % (largest / 8), bits % largest};
        const size_t count = b < 7 ? sizes[b] : sizes[bits >> 40 & 1 ? 6 : 5];
        buckets[b] = (thaw_bucket){at, count, count};
        at = (at + count + 15 + 16 * (bits >> 50 & 1)) / 16 * 16;
    }
    return at + 16;
}

/* How much a rank polls. */
typedef enum manner { NEVER, OFTEN, AT_TIMES } manner;

static void dawdle(thaw_exchange *exchange, manner how, uint64_t draw) {
    const uint64_t bits = mix(draw ^ (uint64_t)rank << 32);
    if (how == AT_TIMES && bits % 3 == 0)
        usleep((useconds_t)(bits >> 20) % 1000);
    for (int i = 0; how == OFTEN ? i < 20 : how == AT_TIMES && i < (int)(bits >> 8) % 4; i++)
        thaw_exchange_poll(exchange);
}

/* Steps with one exchange: every bucket in an order of the step, or some of them. options NULL: with a block in common memory,
 * where hosts have such; `sharers` ranks of a host are then to sum there. */
static void check_steps(thaw_comm *comm, const thaw_allreduce_options *options, int n, size_t largest, uint64_t draw,
                        int sharers) {
    thaw_bucket buckets[MOST_BUCKETS];
    const size_t floats = draw_buckets(buckets, n, draw, largest);
    float *block = options ? thaw_comm_alloc(comm, floats) : thaw_comm_alloc_common(comm, floats);
    thaw_exchange *exchange = NULL;
    CHECK(thaw_exchange_create_with(&exchange, comm, block, buckets, n, options ? THAW_EXCHANGE_OVERLAP : THAW_EXCHANGE_AUTO,
                                    options) == THAW_OK);
    CHECK(thaw_exchange_sharers(exchange) == sharers);
    const uint64_t requests = thaw_memory_requests();
    for (int step = 0; step < 4; step++) {
        const manner how = step == 3 ? (rank % 2 ? NEVER : OFTEN) : (manner)step;
        const bool whole = step == 1;
        bool right = true;
        for (size_t i = 0; i < floats; i++)
            block[i] = held(rank, i, step, whole);
        for (int b = 0; b < n; b++) {
            const int bucket = step % 2 ? n - 1 - b : b;
            if (step == 2 && bucket == n / 2)
                continue;
            dawdle(exchange, how, draw + (uint64_t)(step * n + b));
            CHECK(thaw_exchange_begin(exchange, bucket) == THAW_OK);
            if (b == n / 3 && step % 2) { /* a batch norm in between */
                double one[2] = {1.0, rank};
                CHECK(thaw_comm_sum(comm, one, 2) == THAW_OK);
                right = right && one[0] == size && one[1] == size * (size - 1) / 2;
            }
        }
        dawdle(exchange, how, draw + (uint64_t)step);
        CHECK(thaw_exchange_finish(exchange) == THAW_OK);
        size_t at = 0;
        for (int b = 0; b < n; b++) {
            for (; at < buckets[b].offset; at++)
                right = right && block[at] == held(rank, at, step, whole); /* gaps stay as they are */
            const bool begun = step != 2 || b != n / 2;
            for (; !begun && at < buckets[b].offset + buckets[b].count; at++)
                right = right && block[at] == held(rank, at, step, whole);
            right = right && summed(block, at, buckets[b].offset + buckets[b].count, step, whole);
            at = buckets[b].offset + buckets[b].count;
        }
        CHECK(right);
        if (!right && options)
            fprintf(stderr, "  step %d scheme %d chunk %zu window %d\n", step, (int)options->scheme, options->chunk,
                    options->window);
    }
    CHECK(thaw_memory_requests() == requests); /* nothing is allocated between creation and end */
    CHECK(thaw_exchange_hidden(exchange) <= 4 * thaw_exchange_bytes(exchange));
    thaw_exchange_free(exchange);
    thaw_comm_free(comm, block);
}

/* Blocks as long as the exchange's: what owners keep, and results. */
typedef struct owned {
    float *kept, *results;
} owned;

static void use_sums(void *payload, float *sums, float *results, size_t count) {
    const owned *o = payload;
    float *kept = o->kept + (results - o->results);
    for (size_t i = 0; i < count; i++) {
        kept[i] += sums[i];
        results[i] = results[i] * 0.5f - kept[i];
        sums[i] = NAN; /* which nobody may want any more */
    }
}

/* Owners make results of their sums, with what they keep from step to step, once of each. All ranks have all of these, and of
 * what is kept only after a gather. */
static void check_owners(thaw_comm *comm, const thaw_allreduce_options *options, int n, size_t largest, uint64_t draw) {
    enum { STEPS = 3 };
    thaw_bucket buckets[MOST_BUCKETS];
    const size_t floats = draw_buckets(buckets, n, draw, largest);
    float *block = thaw_comm_alloc(comm, floats), *want = thaw_calloc(2 * floats, sizeof *want);
    owned mine = {thaw_comm_alloc(comm, floats), thaw_comm_alloc(comm, floats)};
    thaw_exchange *exchange = NULL;
    CHECK(thaw_exchange_create_with(&exchange, comm, block, buckets, n, THAW_EXCHANGE_OVERLAP, options) == THAW_OK);
    CHECK(thaw_exchange_for_owners(exchange, mine.results, use_sums, &mine) == (size > 1));
    for (int step = 0; step < STEPS && size > 1; step++) {
        for (size_t i = 0; i < floats; i++)
            block[i] = held(rank, i, step, false);
        for (int b = 0; b < n; b++) {
            dawdle(exchange, (manner)step, draw + (uint64_t)(step * n + b));
            CHECK(thaw_exchange_begin(exchange, n - 1 - b) == THAW_OK);
            for (size_t i = buckets[b].offset; i < buckets[b].offset + buckets[b].count; i++) {
                float values[MOST_RANKS];
                for (int r = 0; r < size; r++)
                    values[r] = held(r, i, step, false);
                want[i] += tree_sum(values);
                want[floats + i] = want[floats + i] * 0.5f - want[i];
            }
        }
        CHECK(thaw_exchange_finish(exchange) == THAW_OK);
        CHECK(memcmp(mine.results, want + floats, floats * sizeof(float)) == 0);
    }
    if (size > 1) {
        thaw_exchange_gather(exchange, mine.kept);
        CHECK(memcmp(mine.kept, want, floats * sizeof(float)) == 0);
    }
    thaw_exchange_free(exchange);
    thaw_comm_free(comm, block);
    thaw_comm_free(comm, mine.kept);
    thaw_comm_free(comm, mine.results);
    thaw_free(want);
}

static void check_schemes(thaw_comm *comm) {
    static const struct {
        size_t chunk;
        int window, buckets;
        size_t largest;
    } cases[] = {{1, 0, 8, 100}, {37, 1, 8, 500}, {37, 3, 12, 1500}, {1024, 3, 24, 30000}, {0, 0, 24, 30000}};
    uint64_t draw = mix(seed);
    for (int scheme = THAW_SCHEME_AUTO; scheme <= THAW_SCHEME_HALVING + 2; scheme++) /* behind it: halving of other groups */
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const int levels = scheme > THAW_SCHEME_HALVING ? scheme - THAW_SCHEME_HALVING : 0;
            const thaw_allreduce_options options = {levels ? THAW_SCHEME_HALVING : (thaw_scheme)scheme, cases[i].chunk,
                                                    cases[i].window, levels, false};
            check_steps(comm, &options, cases[i].buckets, cases[i].largest, draw = mix(draw), 1);
            check_owners(comm, &options, cases[i].buckets, cases[i].largest, draw = mix(draw));
        }
    /* More chunks of the usual size than go at once, in every scheme that is chosen for such. */
    const thaw_allreduce_options usual = {0};
    check_steps(comm, &usual, 9, 3000000, mix(draw), 1);
    check_owners(comm, &usual, 9, 3000000, mix(draw + 1));
}

/* Sums in common memory, between hosts of some ranks that are all on this machine: the same tree. Hosts that are no subtrees of
 * it exchange messages. */
static void check_common(thaw_comm *comm) {
    uint64_t draw = mix(seed + 1);
    for (int run = 0; run <= 4; run++) { /* 0: as it is */
        thaw_comm_pretend_hosts(comm, run);
        const int sharers = run == 0 || run >= size ? size : run != 3 && size % run == 0 ? run : 1;
        check_steps(comm, NULL, 8, 100, draw = mix(draw), sharers);
        check_steps(comm, NULL, 12, 30000, draw = mix(draw), sharers);
        if (run % 2 == 0)
            check_steps(comm, NULL, 8, 400000, draw = mix(draw), sharers);
        /* One block, two exchanges after each other; the other way refuses no block. */
        const thaw_bucket bucket = {16, 5000, 5000};
        float *block = thaw_comm_alloc_common(comm, 5016);
        for (int kind = THAW_EXCHANGE_AUTO; kind <= THAW_EXCHANGE_OVERLAP; kind++)
            for (int step = 0; step < 2; step++) {
                thaw_exchange *exchange = NULL;
                CHECK(thaw_exchange_create(&exchange, comm, block, &bucket, 1, (thaw_exchange_kind)kind) == THAW_OK);
                for (size_t i = 0; i < 5016; i++)
                    block[i] = held(rank, i, step, false);
                CHECK(thaw_exchange_sharers(exchange) == (kind == THAW_EXCHANGE_AUTO ? sharers : 1));
                CHECK(thaw_exchange_begin(exchange, 0) == THAW_OK && thaw_exchange_finish(exchange) == THAW_OK);
                CHECK(summed(block, 16, 5016, step, false) && block[15] == held(rank, 15, step, false));
                thaw_exchange_free(exchange);
            }
        thaw_exchange *exchange = NULL; /* halves go by messages wherever the block lies */
        CHECK(thaw_exchange_create(&exchange, comm, block, &bucket, 1, THAW_EXCHANGE_HALF) == THAW_OK);
        for (size_t i = 0; i < 5016; i++)
            block[i] = 0x1.003p0f; /* a half holds its neighbours alone */
        CHECK(thaw_exchange_sharers(exchange) == 1);
        CHECK(thaw_exchange_begin(exchange, 0) == THAW_OK && thaw_exchange_finish(exchange) == THAW_OK);
        CHECK(size == 1 ? block[100] == 0x1.003p0f : block[100] != (float)size * 0x1.003p0f);
        thaw_exchange_free(exchange);
        for (int n = 1; n <= 5 && sharers > 1; n++) { /* one rank without memory: all refuse */
            if (rank == size - 1)
                thaw_memory_fail_after(n);
            CHECK(thaw_exchange_create(&exchange, comm, block, &bucket, 1, THAW_EXCHANGE_AUTO) == THAW_RESOURCE && !exchange);
        }
        if (sharers > 1) { /* ranks that want other ways */
            const thaw_exchange_kind mine = rank ? THAW_EXCHANGE_AUTO : THAW_EXCHANGE_OVERLAP;
            CHECK(thaw_exchange_create(&exchange, comm, block, &bucket, 1, mine) == THAW_INTERNAL && !exchange);
        }
        thaw_memory_fail_after(-1);
        thaw_comm_free(comm, block);
    }
    thaw_comm_pretend_hosts(comm, 0);
}

/* Polls alone bring a sum of common memory to its end too. */
static void check_common_progress(thaw_comm *comm, int run) {
    enum { FLOATS = 500016 };
    thaw_comm_pretend_hosts(comm, run);
    const thaw_bucket bucket = {0, FLOATS, FLOATS};
    const size_t live = thaw_memory_live();
    float *block = thaw_comm_alloc_common(comm, FLOATS);
    const size_t taken = thaw_memory_live() - live;
    thaw_exchange *exchange = NULL;
    CHECK(thaw_exchange_create(&exchange, comm, block, &bucket, 1, THAW_EXCHANGE_AUTO) == THAW_OK);
    const size_t said = thaw_exchange_memory_common(&bucket, 1, size, thaw_exchange_sharers(exchange));
    CHECK(thaw_exchange_sharers(exchange) == 1 || thaw_memory_live() - live - taken - said < 1 << 16);
    for (size_t i = 0; i < FLOATS; i++)
        block[i] = held(rank, i, 9, false);
    CHECK(thaw_exchange_begin(exchange, 0) == THAW_OK);
    double seen[2] = {0.0, 0.0}; /* ranks whose block is summed, ranks that have waited long enough */
    for (const double start = thaw_clock(); seen[0] < size && seen[1] == 0.0;) {
        usleep(1000);
        for (int i = 0; i < 10; i++)
            thaw_exchange_poll(exchange);
        seen[0] = summed(block, 0, FLOATS, 9, false);
        seen[1] = thaw_clock() - start > PATIENCE;
        thaw_comm_sum(comm, seen, 2);
    }
    CHECK(seen[0] == size);
    CHECK(thaw_exchange_finish(exchange) == THAW_OK);
    thaw_exchange_free(exchange);
    thaw_comm_free(comm, block);
    CHECK(thaw_memory_live() == live);
    thaw_comm_pretend_hosts(comm, 0);
}

/* A whole number that a half holds, as it does the sum of 16 of them: sums by halves are exact whatever their tree. */
static float small_whole(int r, size_t i, int step) {
    return (float)((int)(mix(seed ^ (uint64_t)r << 52 ^ (uint64_t)step << 40 ^ i) % 201) - 100);
}

/* Every float of every bucket comes back, in all schemes, with rounds of any shape. */
static void check_half_steps(thaw_comm *comm, const thaw_allreduce_options *options, int n, size_t largest, uint64_t draw) {
    thaw_bucket buckets[MOST_BUCKETS];
    const size_t floats = draw_buckets(buckets, n, draw, largest);
    float *block = thaw_comm_alloc(comm, floats);
    thaw_exchange *exchange = NULL;
    uint64_t payload = 0;
    CHECK(thaw_exchange_create_with(&exchange, comm, block, buckets, n, THAW_EXCHANGE_HALF, options) == THAW_OK);
    CHECK(thaw_exchange_overlaps(exchange));
    const uint64_t requests = thaw_memory_requests();
    for (int step = 0; step < 3; step++) {
        bool right = true;
        for (size_t i = 0; i < floats; i++)
            block[i] = small_whole(rank, i, step);
        for (int b = 0; b < n; b++) {
            dawdle(exchange, (manner)step, draw + (uint64_t)(step * n + b));
            CHECK(thaw_exchange_begin(exchange, b) == THAW_OK);
            payload += buckets[b].payload;
        }
        CHECK(thaw_exchange_finish(exchange) == THAW_OK);
        for (int b = 0; b < n; b++)
            for (size_t i = buckets[b].offset; i < buckets[b].offset + buckets[b].count; i++) {
                float sum = 0.0f;
                for (int r = 0; r < size; r++)
                    sum += small_whole(r, i, step);
                right = right && block[i] == sum;
            }
        for (int b = 0; b + 1 < n; b++) /* gaps stay as they are */
            for (size_t i = buckets[b].offset + buckets[b].count; i < buckets[b + 1].offset; i++)
                right = right && block[i] == small_whole(rank, i, step);
        CHECK(right);
        if (!right)
            fprintf(stderr, "  halves: step %d scheme %d chunk %zu window %d\n", step, (int)options->scheme, options->chunk,
                    options->window);
    }
    CHECK(thaw_memory_requests() == requests);
    CHECK(thaw_exchange_bytes(exchange) == 2 * payload);
    CHECK(thaw_exchange_hidden(exchange) <= 2 * thaw_exchange_bytes(exchange));
    thaw_exchange_free(exchange);
    thaw_comm_free(comm, block);
}

static uint64_t hash_floats(const float *values, size_t n) {
    uint64_t hash = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        hash = mix(hash ^ bits);
    }
    return hash;
}

/* Gradients of any size, the same in each step. With feedback, the sum over the steps misses about one rounding of one step;
 * without, one of each step, always in the same direction. Bits are equal on all ranks. */
static void check_feedback(thaw_comm *comm, const thaw_allreduce_options *options) {
    enum { FLOATS = 20011, STEPS = 12 };
    static double total[FLOATS], want[FLOATS];
    const thaw_bucket bucket = {0, FLOATS, FLOATS};
    float *block = thaw_comm_alloc(comm, FLOATS);
    for (int magnitude = -110; magnitude <= 110; magnitude += 110) {
        double missed[2] = {0.0, 0.0}, most = 0.0;
        for (size_t i = 0; i < FLOATS; i++) {
            want[i] = 0.0;
            for (int r = 0; r < size; r++)
                want[i] += (double)ldexpf(held(r, i, 7, false), magnitude - 26);
            most = fmax(most, fabs(want[i]));
        }
        for (int forget = 0; forget < 2; forget++) {
            thaw_exchange *exchange = NULL;
            CHECK(thaw_exchange_create_with(&exchange, comm, block, &bucket, 1, THAW_EXCHANGE_HALF, options) == THAW_OK);
            memset(total, 0, sizeof total);
            bool equal = true;
            for (int step = 0; step < STEPS; step++) {
                for (size_t i = 0; i < FLOATS; i++)
                    block[i] = ldexpf(held(rank, i, 7, false), magnitude - 26);
                CHECK(thaw_exchange_begin(exchange, 0) == THAW_OK);
                dawdle(exchange, (manner)(step % 3), seed + (uint64_t)step);
                CHECK(thaw_exchange_finish(exchange) == THAW_OK);
                equal = equal && thaw_comm_same(comm, "sums of halves", hash_floats(block, FLOATS), THAW_REPLICAS) == THAW_OK;
                for (size_t i = 0; i < FLOATS; i++)
                    total[i] += (double)block[i];
                if (forget)
                    thaw_exchange_forget(exchange);
            }
            CHECK(equal);
            for (size_t i = 0; i < FLOATS; i++)
                missed[forget] = fmax(missed[forget], fabs(total[i] - STEPS * want[i]) / most);
            thaw_exchange_free(exchange);
        }
        CHECK(size == 1 ? missed[0] == 0.0 && missed[1] == 0.0 : missed[0] < 2.0 * size * 0x1p-11);
        CHECK(size == 1 || missed[1] > 4.0 * missed[0]);
    }
    thaw_comm_free(comm, block);
}

/* Where rank r would have the weights: far from where others would. */
static float wanted(int r, size_t i) {
    return sinf((float)i) + (r == 0 ? 900.3f + small_whole(0, i, 1) : r == 1 ? -700.17f - 0.7f * small_whole(0, i, 1) : 0.0f);
}

/* Least squares by gradient descent, where the gradients of the ranks are large against their sum. Distance to the solution. */
static double descend(thaw_comm *comm, thaw_exchange_kind kind, bool forget) {
    enum { FLOATS = 3000, STEPS = 150 };
    const thaw_bucket bucket = {0, FLOATS, FLOATS};
    static float w[FLOATS];
    float *block = thaw_comm_alloc(comm, FLOATS);
    thaw_exchange *exchange = NULL;
    CHECK(thaw_exchange_create(&exchange, comm, block, &bucket, 1, kind) == THAW_OK);
    memset(w, 0, sizeof w);
    for (int step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < FLOATS; i++)
            block[i] = w[i] - wanted(rank, i);
        CHECK(thaw_exchange_begin(exchange, 0) == THAW_OK && thaw_exchange_finish(exchange) == THAW_OK);
        for (size_t i = 0; i < FLOATS; i++)
            w[i] -= 0.1f / (float)size * block[i];
        if (forget)
            thaw_exchange_forget(exchange);
    }
    double error = 0.0;
    for (size_t i = 0; i < FLOATS; i++) {
        double solution = 0.0;
        for (int r = 0; r < size; r++)
            solution += (double)wanted(r, i) / size;
        error += pow((double)w[i] - solution, 2.0) / FLOATS;
    }
    thaw_exchange_free(exchange);
    thaw_comm_free(comm, block);
    return sqrt(error);
}

static void check_descent(thaw_comm *comm) {
    const double floats = descend(comm, THAW_EXCHANGE_AUTO, false), fed = descend(comm, THAW_EXCHANGE_HALF, false);
    const double plain = descend(comm, THAW_EXCHANGE_HALF, true);
    CHECK(floats < 1e-3);
    CHECK(size == 1 ? fed == floats && plain == floats : fed < 0.02 && plain > 3.0 * fed);
    if (rank == 0 && getenv("EXCHANGE_SHOW"))
        fprintf(stderr, "descent on %d ranks: floats %g, halves %g, without feedback %g\n", size, floats, fed, plain);
}

/* What is not finite on one rank is not on any, and its neighbours in the block are not harmed for good. */
static void check_not_finite(thaw_comm *comm) {
    enum { FLOATS = 100 };
    const float odd[] = {INFINITY, -INFINITY, NAN};
    const thaw_bucket bucket = {0, FLOATS, FLOATS};
    float *block = thaw_comm_alloc(comm, FLOATS);
    thaw_exchange *exchange = NULL;
    CHECK(thaw_exchange_create(&exchange, comm, block, &bucket, 1, THAW_EXCHANGE_HALF) == THAW_OK);
    for (int step = 0; step < 4; step++) {
        for (size_t i = 0; i < FLOATS; i++)
            block[i] = 1.0f;
        if (step < 3 && rank == size - 1)
            block[50] = odd[step];
        CHECK(thaw_exchange_begin(exchange, 0) == THAW_OK && thaw_exchange_finish(exchange) == THAW_OK);
        CHECK(step == 3 ? block[50] == (float)size : step == 2 ? isnan(block[50]) : block[50] == odd[step]);
        CHECK(block[49] == (float)size && block[51] == (float)size);
    }
    thaw_exchange_free(exchange);
    thaw_comm_free(comm, block);
}

static void check_half(thaw_comm *comm) {
    static const struct {
        size_t chunk;
        int window, buckets;
        size_t largest;
    } cases[] = {{1, 0, 8, 100}, {37, 1, 8, 500}, {37, 3, 12, 1500}, {1024, 3, 24, 30000}, {0, 0, 8, 300000}};
    static const thaw_allreduce_options schemes[] = {{THAW_SCHEME_AUTO, 0, 0, 0, false},    {THAW_SCHEME_OWNERS, 0, 0, 0, false},
                                                     {THAW_SCHEME_HALVING, 0, 0, 0, false}, {THAW_SCHEME_HALVING, 0, 0, 1, false},
                                                     {THAW_SCHEME_HALVING, 0, 0, 2, false}};
    uint64_t draw = mix(seed + 1);
    for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++) {
        thaw_allreduce_options options = schemes[k];
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            options.chunk = cases[i].chunk;
            options.window = cases[i].window;
            check_half_steps(comm, &options, cases[i].buckets, cases[i].largest, draw = mix(draw));
        }
        options.chunk = 3001;
        check_feedback(comm, &options);
    }
    check_not_finite(comm);
    check_descent(comm);
    const thaw_bucket bucket = {0, 64, 64};
    const thaw_allreduce_options doubling = {.scheme = THAW_SCHEME_DOUBLING};
    float *block = thaw_comm_alloc(comm, 64);
    thaw_exchange *exchange = NULL;
    CHECK(thaw_exchange_create_with(&exchange, comm, block, &bucket, 1, THAW_EXCHANGE_HALF, &doubling) == THAW_INTERNAL);
    CHECK(!exchange);
    thaw_comm_free(comm, block);
}

/* Polls alone bring a sum to its end, with no rank waiting in a call. */
static void check_progress(thaw_comm *comm) {
    enum { FLOATS = 1000003 };
    float *values = thaw_comm_alloc(comm, FLOATS);
    thaw_allreduce *sums = NULL;
    CHECK(thaw_allreduce_create(&sums, comm, 1, FLOATS, NULL) == THAW_OK);
    for (size_t i = 0; i < FLOATS; i++)
        values[i] = held(rank, i, 9, false);
    thaw_allreduce_begin(sums, values, NULL, NULL, FLOATS);
    CHECK(thaw_allreduce_left(sums) == (size > 1 ? FLOATS : 0));
    for (const double start = thaw_clock(); thaw_allreduce_left(sums) > 0 && thaw_clock() - start < PATIENCE;) {
        thaw_allreduce_poll(sums);
        usleep(100);
    }
    CHECK(thaw_allreduce_left(sums) == 0);
    CHECK(size == 1 || summed(values, 0, FLOATS, 9, false));
    thaw_allreduce_finish(sums);
    thaw_allreduce_free(sums);
    thaw_comm_free(comm, values);
}

static void check_mpi(thaw_comm *comm) {
    const thaw_bucket buckets[] = {{0, 1000, 990}, {1008, 40000, 40000}};
    float *block = thaw_comm_alloc(comm, 41008);
    for (int kind = THAW_EXCHANGE_AUTO; kind <= THAW_EXCHANGE_MPI; kind++) {
        thaw_exchange *exchange = NULL;
        CHECK(thaw_exchange_create(&exchange, comm, block, buckets, 2, (thaw_exchange_kind)kind) == THAW_OK);
        CHECK(thaw_exchange_overlaps(exchange) == (kind != THAW_EXCHANGE_MPI));
        for (size_t i = 0; i < 41008; i++)
            block[i] = held(rank, i, 5, true);
        for (int b = 0; b < 2; b++) {
            CHECK(thaw_exchange_begin(exchange, b) == THAW_OK);
            thaw_exchange_poll(exchange);
        }
        CHECK(thaw_exchange_finish(exchange) == THAW_OK);
        CHECK(summed(block, 0, 1000, 5, true) && summed(block, 1008, 41008, 5, true));
        CHECK(thaw_exchange_bytes(exchange) == 4 * UINT64_C(40990));
        CHECK(kind != THAW_EXCHANGE_MPI || thaw_exchange_hidden(exchange) == 0);
        thaw_exchange_free(exchange);
    }
    thaw_comm_free(comm, block);
}

static void check_refusals(thaw_comm *comm) {
    const thaw_bucket bucket = {0, 64, 64};
    const thaw_allreduce_options wide = {.window = 1000}, long_chunk = {.chunk = (size_t)1 << 40};
    float *block = thaw_comm_alloc(comm, 64);
    thaw_exchange *exchange = NULL;
    if (size > 1) {
        const thaw_exchange_kind mine = rank ? THAW_EXCHANGE_MPI : THAW_EXCHANGE_OVERLAP;
        CHECK(thaw_exchange_create(&exchange, comm, block, &bucket, 1, mine) == THAW_INTERNAL && !exchange);
        for (int n = 1; n <= 10; n++) { /* one rank without memory: all refuse */
            if (rank == size - 1)
                thaw_memory_fail_after(n);
            CHECK(thaw_exchange_create(&exchange, comm, block, &bucket, 1, THAW_EXCHANGE_AUTO) == THAW_RESOURCE && !exchange);
        }
        thaw_memory_fail_after(-1);
        const size_t bytes = thaw_exchange_memory(&bucket, 1, size, THAW_EXCHANGE_AUTO);
        CHECK(bytes >= 256 && bytes < 4096);
    }
    CHECK(thaw_exchange_memory(&bucket, 1, 1, THAW_EXCHANGE_HALF) == 0);
    CHECK(thaw_exchange_create_with(&exchange, comm, block, &bucket, 1, THAW_EXCHANGE_AUTO, &wide) == THAW_INTERNAL);
    CHECK(thaw_exchange_create_with(&exchange, comm, block, &bucket, 1, THAW_EXCHANGE_AUTO, &long_chunk) == THAW_INTERNAL);
    thaw_comm_free(comm, block);
}

/* What the estimate says is what is held. */
static void check_memory(thaw_comm *comm, thaw_exchange_kind kind) {
    const thaw_bucket buckets[] = {{0, 1 << 20, 1 << 20}, {1 << 20, 5 << 20, 5 << 20}};
    const size_t live = thaw_memory_live(), floats = (size_t)6 << 20;
    float *block = thaw_comm_alloc(comm, floats);
    thaw_exchange *exchange = NULL;
    CHECK(thaw_exchange_create(&exchange, comm, block, buckets, 2, kind) == THAW_OK);
    const size_t taken = thaw_memory_live() - live - floats * sizeof *block;
    const size_t said = thaw_exchange_memory(buckets, 2, size, kind);
    CHECK(taken >= said && taken < said + (1 << 16));
    thaw_exchange_free(exchange);
    thaw_comm_free(comm, block);
    CHECK(thaw_memory_live() == live);
}

int main(int argc, char **argv) {
    thaw_comm *comm = NULL;
    if (thaw_comm_init(&comm, &argc, &argv) != THAW_OK) {
        fprintf(stderr, "%s\n", thaw_message());
        return 2;
    }
    rank = thaw_comm_rank(comm);
    size = thaw_comm_size(comm);
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    if (size > MOST_RANKS)
        thaw_comm_abort(comm, THAW_USAGE, "exchange_program: 16 ranks at most");
    check_common(comm);
    check_common_progress(comm, 0);
    check_common_progress(comm, 2);
    if (argc > 2) /* common memory alone */
        goto out;
    check_schemes(comm);
    check_half(comm);
    check_progress(comm);
    check_mpi(comm);
    check_refusals(comm);
    check_memory(comm, THAW_EXCHANGE_AUTO);
    check_memory(comm, THAW_EXCHANGE_HALF);
out:;
    double total[2] = {failures, checks};
    thaw_comm_sum(comm, total, 2);
    if (rank == 0 && total[0] == 0.0)
        printf("ok %d %d\n", size, (int)total[1]);
    thaw_comm_finalize(comm);
    return total[0] == 0.0 ? 0 : 1;
}
