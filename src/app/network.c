#include "network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "bench.h"
#include "graph/tape.h"

/* As in mpi/allreduce.c: chunks of so few floats are summed by doubling; up to so many ranks by owners. */
enum { SMALL = 8192, OWNERS_MOST = 8 };

typedef struct unit {
    const char *name;
    double value;
} unit;

/* A positive number with one of the units, up to `end`; 0 if it is none. */
static double parse_quantity(const char *text, const char *end, const unit *units, size_t n) {
    char *rest;
    const double value = strtod(text, &rest);
    if (rest == text || rest > end || !isfinite(value) || value <= 0.0)
        return 0.0;
    for (size_t i = 0; i < n; i++)
        if (strlen(units[i].name) == (size_t)(end - rest) && strncmp(units[i].name, rest, (size_t)(end - rest)) == 0)
            return value * units[i].value;
    return 0.0;
}

thaw_status thaw_network_parse(thaw_network *out, const char *text, const char *what) {
    static const unit seconds[] = {{"", 1.0}, {"s", 1.0}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}};
    static const unit rates[] = {{"", 1.0},      {"B", 1.0},         {"kB", 1e3},         {"MB", 1e6},        {"GB", 1e9},
                                 {"bit", 0.125}, {"kbit", 0.125e3}, {"Mbit", 0.125e6}, {"Gbit", 0.125e9}};
    const char *comma = strchr(text, ',');
    *out = (thaw_network){0};
    if (comma) {
        out->latency = parse_quantity(text, comma, seconds, sizeof seconds / sizeof *seconds);
        out->bandwidth = parse_quantity(comma + 1, comma + strlen(comma), rates, sizeof rates / sizeof *rates);
    }
    if (out->latency > 0.0 && out->bandwidth > 0.0)
        return THAW_OK;
    return thaw_fail(THAW_USAGE, "%s: expected LATENCY,BANDWIDTH above 0 in seconds and bytes/s, such as 2e-6,12.5e9 or "
                                 "2us,100Gbit (units: s ms us ns; B kB MB GB bit kbit Mbit Gbit), found '%s'", what, text);
}

/* What the sum of a bucket costs a rank, in messages one behind the other and in sizes of the bucket. */
typedef struct scheme {
    double rounds, sent, added;
} scheme;

static scheme scheme_of(size_t floats, int64_t ranks, bool half) {
    if (ranks == 1)
        return (scheme){0.0, 0.0, 0.0};
    int levels = 0;
    while ((int64_t)2 << levels <= ranks)
        levels++;
    const double p = (double)ranks, inner = (double)((int64_t)1 << levels), log2 = (double)levels;
    scheme s;
    if (!half && (floats <= SMALL || ranks == 2))
        s = (scheme){log2, log2, log2};
    else if (ranks <= OWNERS_MOST)
        return (scheme){2.0, 2.0 * (p - 1.0) / p, (p - 1.0) / p};
    else
        s = (scheme){2.0 * log2, 2.0 * (inner - 1.0) / inner, (inner - 1.0) / inner};
    if (ranks != (int64_t)1 << levels) /* ranks beyond a power of two hand theirs to a neighbour, and get the sums back */
        s = (scheme){s.rounds + 2.0, s.sent + 2.0, s.added + 1.0};
    return s;
}

/* FLOP of an operation's backward pass, as products; one at least, so that networks without products have an order too. */
static double backward_flop(const thaw_op *op) {
    return 1.0 + op->flop * ((op->wants_dx ? 1.0 : 0.0) + (op->wants_dw ? 1.0 : 0.0));
}

thaw_forecast thaw_forecast_step(const thaw_plan *plan, const thaw_pace *pace, double images, int64_t ranks,
                                 const thaw_network *network) {
    const thaw_tape *tape = plan->tape_train;
    const double backward = images * pace->backward, prefix = images * pace->prefix;
    double flop = 0.0, done = 0.0, wire = 0.0, added = 0.0, payload = 0.0, early = 0.0;
    thaw_forecast f = {0};
    for (int b = 0; b < plan->n_buckets; b++)
        added += scheme_of(plan->buckets[b].count, ranks, pace->half).added * (double)(plan->buckets[b].count * sizeof(float));
    const double work = backward + prefix + added * pace->add; /* until the exchange is waited for */
    for (int i = 0; i < tape->n_ops; i++)
        flop += tape->ops[i].wants_dw || tape->ops[i].wants_dx ? backward_flop(&tape->ops[i]) : 0.0;
    for (int i = tape->n_ops - 1; i >= 0; i--) {
        const thaw_op *op = &tape->ops[i];
        if (!op->wants_dw && !op->wants_dx)
            continue;
        done += backward_flop(op);
        const double ready = backward * done / flop;
        for (int b = op->ready_first; b < op->ready_first + op->ready_count; b++) {
            const scheme s = scheme_of(plan->buckets[b].count, ranks, pace->half);
            const double bytes = (double)(plan->buckets[b].count * (pace->half ? sizeof(uint16_t) : sizeof(float)));
            const double seconds = s.rounds * network->latency + s.sent * bytes / network->bandwidth;
            const double begin = wire > ready ? wire : ready;
            wire = begin + seconds;
            f.exchange += seconds;
            f.sent += s.sent * bytes;
            payload += bytes;
            if (wire <= work)
                early += bytes;
            else if (begin < work)
                early += bytes * (work - begin) / seconds;
        }
    }
    /* The control word is one more sum, of few numbers. */
    const double control = ceil(log2((double)ranks)) * network->latency;
    f.hidden = payload > 0.0 ? early / payload : 0.0;
    f.wait = (wire > work ? wire - work : 0.0) + control;
    f.seconds = images * pace->forward + work + f.wait + pace->update;
    return f;
}

double thaw_pace_add(void) {
    enum { FLOATS = 1 << 20, TIMES = 4 };
    float *to = thaw_bench_values(FLOATS, 1), *from = thaw_bench_values(FLOATS, 2);
    double least = 0.0;
    for (int run = 0; to && from && run < TIMES; run++) {
        const double began = thaw_clock();
#pragma omp parallel for simd schedule(static)
        for (int i = 0; i < FLOATS; i++)
            to[i] += from[i];
        const double seconds = thaw_clock() - began;
        least = run == 0 || seconds < least ? seconds : least;
    }
    thaw_free(to);
    thaw_free(from);
    return least / (FLOATS * sizeof(float));
}
