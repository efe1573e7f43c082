/* Training steps as src/train/epoch.c orders them, with thaw's own exchange (mpi/) and measured seconds in place of kernels,
 * on the simulated ranks of SMPI.
 *
 *   simulate check                              sums of small integers by every scheme, against their known values
 *   simulate TABLE PLAN FORM STEPS IMAGES SPEED JITTER SEED POLL EVERY ADD
 *
 * FORM: overlap (as thaw: buckets begin during backward, the prefix of the next batch runs before finish), operations (that,
 * with polls only behind operations, none inside), backward (without that prefix: only backward hides), ring (one blocking ring
 * all-reduce of what is trained, behind backward) or ring-all (of all weights of the network). SPEED: how often faster than the
 * measured machine a host computes. JITTER: standard deviation of an operation's seconds, relative. POLL: seconds of a poll
 * while sums are under way; EVERY: least seconds of an operation between two polls inside it; ADD: bytes a second of sums. Rank 0
 * prints one line of JSON. */
#include <math.h>
#include <smpi/smpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/progress.h"
#include "counting.h"
#include "exchange.h"
#include "thaw/comm.h"

/* Phases of the table, in the order of a step. */
typedef enum phase { PREFIX, FORWARD, LOSS, BACKWARD, UPDATE, PHASES } phase;

static const char *const phase_names[PHASES] = {"prefix", "forward", "loss", "backward", "update"};

enum { OPERATIONS = 1024, CONTROL_WORDS = 12, POLLS = 2 /* of epoch.c around the loader */ };

typedef struct operation {
    phase phase;
    double seconds;         /* for IMAGES images at SPEED */
    size_t floats, payload; /* of the bucket that ends with this operation's backward; 0: none does */
} operation;

typedef struct simulation {
    thaw_comm *comm;
    thaw_exchange *exchange; /* NULL with a ring */
    operation operations[OPERATIONS];
    int n_operations, n_buckets;
    thaw_bucket buckets[OPERATIONS];
    size_t floats, all_floats; /* of the exchanged block; weights of the network */
    bool run_ahead;
    double jitter, poll, every, interval, computed, waited; /* seconds */
    long polls;
    uint64_t seed;
    int step;
    float *block, *staging; /* staging: of the ring */
} simulation;

static void must(thaw_comm *comm, thaw_status status) {
    if (status != THAW_OK)
        thaw_comm_abort(comm, status, thaw_message());
}

static uint64_t mix(uint64_t x) { /* splitmix64, https://doi.org/10.1145/2660193.2660195 */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Standard normal, a function of seed, rank, step and operation (Box and Muller). */
static double normal(const simulation *s, int op) {
    const uint64_t a = mix(mix(mix(s->seed ^ (uint64_t)thaw_comm_rank(s->comm)) + (uint64_t)s->step) + (uint64_t)op);
    const double u = ((double)(a >> 11) + 0.5) * 0x1p-53, v = (double)(mix(a) >> 11) * 0x1p-53;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

/* Sums that are under way have messages under way: only then a poll looks at anything. What it finds decides when the next one
 * comes. */
static void poll(simulation *s) {
    if (!s->exchange || counted.pending == 0)
        return;
    s->polls++;
    if (s->poll > 0.0)
        smpi_execute_benched(s->poll);
    const bool moved = thaw_exchange_poll(s->exchange);
    s->interval = thaw_progress_next(s->interval, s->every, thaw_comm_sum_poll(s->comm) || moved);
}

static void compute(simulation *s, int op) {
    const double factor = 1.0 + s->jitter * normal(s, op);
    double seconds = s->operations[op].seconds * (factor > 0.5 ? factor : 0.5);
    s->computed += seconds;
    while (s->every > 0.0 && seconds > s->interval && counted.pending > 0) {
        smpi_execute_benched(s->interval);
        seconds -= s->interval;
        poll(s);
    }
    if (seconds > 0.0)
        smpi_execute_benched(seconds);
}

/* What the engine does: an operation, the bucket that it completes, a poll. */
static void run(simulation *s, phase now) {
    int bucket = 0;
    for (int i = 0; i < s->n_operations; i++) {
        const operation *op = &s->operations[i];
        if (op->phase != now)
            continue;
        compute(s, i);
        if (op->floats > 0 && s->exchange)
            must(s->comm, thaw_exchange_begin(s->exchange, bucket++));
        if (now != UPDATE && now != LOSS)
            poll(s);
    }
}

static void prepare(simulation *s) {
    for (int i = 0; i < POLLS; i++)
        poll(s);
    run(s, PREFIX);
}

/* Ring all-reduce: P-1 rounds of sums of 1/P of the block, P-1 rounds that hand them on. */
static void ring(simulation *s) {
    const int rank = thaw_comm_rank(s->comm), size = thaw_comm_size(s->comm);
    const int next = (rank + 1) % size, before = (rank + size - 1) % size;
    for (int round = 0; round < 2 * (size - 1); round++) {
        const bool sums = round < size - 1;
        const int give = ((rank - round + (sums ? 0 : 1)) % size + 2 * size) % size, take = (give + size - 1) % size;
        const size_t from = s->floats * (size_t)give / (size_t)size, to = s->floats * ((size_t)give + 1) / (size_t)size;
        const size_t at = s->floats * (size_t)take / (size_t)size, end = s->floats * ((size_t)take + 1) / (size_t)size;
        MPI_Request requests[2];
        int ended, which[2];
        MPI_Irecv(sums ? s->staging : s->block + at, (int)(end - at), MPI_FLOAT, before, 0, MPI_COMM_WORLD, &requests[0]);
        MPI_Isend(s->block + from, (int)(to - from), MPI_FLOAT, next, 0, MPI_COMM_WORLD, &requests[1]);
        for (int left = 2; left > 0; left -= ended)
            MPI_Waitsome(2, requests, &ended, which, MPI_STATUSES_IGNORE);
        for (size_t i = 0; sums && i < end - at; i++)
            s->block[at + i] += s->staging[i];
    }
}

static void train_step(simulation *s, bool *ready) {
    if (!*ready)
        prepare(s);
    *ready = false;
    run(s, FORWARD);
    run(s, LOSS);
    run(s, BACKWARD);
    s->step++; /* the prefix is of the next one */
    double control[CONTROL_WORDS] = {0}, room[CONTROL_WORDS];
    thaw_comm_sum_begin(s->comm, control, room, CONTROL_WORDS);
    if (s->run_ahead) {
        prepare(s);
        *ready = true;
    }
    const double began = MPI_Wtime();
    if (s->exchange)
        must(s->comm, thaw_exchange_finish(s->exchange));
    else if (s->floats > 0)
        ring(s);
    thaw_comm_sum_end(s->comm);
    s->waited += MPI_Wtime() - began;
    run(s, UPDATE);
}

/* Lines "plan,phase,layer,seconds,floats,payload"; phase "network" gives images of the measured batch and weights. Seconds but
 * for the update's are taken as proportional to images. */
static void read_table(simulation *s, const char *path, const char *plan, double images, double speed) {
    FILE *file = fopen(path, "r");
    char line[512], name[64], phase_name[64], layer[128];
    double measured = 0.0, seconds;
    size_t floats, payload;
    if (!file)
        thaw_comm_abort(s->comm, THAW_NO_INPUT, "no table of seconds");
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%63[^,],%63[^,],%127[^,],%lf,%zu,%zu", name, phase_name, layer, &seconds, &floats, &payload) != 6 ||
            strcmp(name, plan) != 0)
            continue;
        if (strcmp(phase_name, "network") == 0) {
            measured = seconds;
            s->all_floats = floats;
            continue;
        }
        int at = 0;
        while (at < PHASES && strcmp(phase_name, phase_names[at]) != 0)
            at++;
        if (at == PHASES || measured <= 0.0 || s->n_operations == OPERATIONS)
            thaw_comm_abort(s->comm, THAW_DATA, line);
        const double part = at == UPDATE ? 1.0 : images / measured;
        s->operations[s->n_operations++] = (operation){(phase)at, seconds * part / speed, floats, payload};
        if (floats > 0) {
            s->buckets[s->n_buckets++] = (thaw_bucket){s->floats, floats, payload};
            s->floats += floats;
        }
    }
    fclose(file);
    if (s->n_operations == 0)
        thaw_comm_abort(s->comm, THAW_DATA, "the table does not have this plan");
}

static void simulate(thaw_comm *comm, char **argv) {
    const char *form = argv[3];
    const int steps = atoi(argv[4]), ranks = thaw_comm_size(comm);
    simulation *s = thaw_calloc(1, sizeof *s);
    s->comm = comm;
    s->jitter = atof(argv[7]);
    s->seed = mix(strtoull(argv[8], NULL, 10));
    s->poll = atof(argv[9]);
    s->every = strcmp(form, "operations") == 0 ? 0.0 : atof(argv[10]);
    s->interval = s->every;
    s->run_ahead = strcmp(form, "overlap") == 0 || strcmp(form, "operations") == 0;
    read_table(s, argv[1], argv[2], atof(argv[5]), atof(argv[6]));
    const bool rings = strncmp(form, "ring", 4) == 0;
    if (strcmp(form, "ring-all") == 0)
        s->floats = s->all_floats;
    counted_fold();
    const size_t before = thaw_memory_live();
    s->block = thaw_comm_alloc(comm, s->floats);
    const size_t block = thaw_memory_live() - before;
    if (rings)
        s->staging = thaw_calloc(s->floats / (size_t)ranks + 1, sizeof *s->staging);
    else
        must(comm, thaw_exchange_create(&s->exchange, comm, s->block, s->buckets, s->n_buckets, THAW_EXCHANGE_OVERLAP));
    if (!s->block || (rings && !s->staging))
        thaw_comm_abort(comm, THAW_RESOURCE, "no memory");
    const size_t held = thaw_memory_live() - before - block;
    counted_block(s->block, s->floats, atof(argv[11]));

    bool ready = false;
    if (s->run_ahead) /* as the step before the first one would have left it */
        prepare(s);
    ready = s->run_ahead;
    s->computed = 0.0;
    s->polls = 0;
    thaw_comm_barrier(comm);
    const double began = MPI_Wtime();
    for (int i = 0; i < steps; i++)
        train_step(s, &ready);
    const double seconds = MPI_Wtime() - began;
    double most[] = {seconds, (double)counted.messages, (double)counted.bytes,
                     (double)held, (double)counted.receives, s->waited};
    double sums[] = {s->computed, s->waited, 0.0, counted.adding, (double)s->polls};
    if (s->exchange && s->floats > 0)
        sums[2] = (double)thaw_exchange_hidden(s->exchange) / (double)(s->floats * sizeof(float)) / steps;
    must(comm, thaw_comm_max(comm, most, sizeof most / sizeof *most));
    must(comm, thaw_comm_sum(comm, sums, sizeof sums / sizeof *sums));
    double alone = 0.0; /* a step of one rank without jitter */
    for (int i = 0; i < s->n_operations; i++)
        alone += s->operations[i].seconds;
    if (thaw_comm_rank(comm) == 0)
        printf("{\"ranks\": %d, \"seconds\": %.9g, \"alone\": %.9g, \"computed\": %.9g, \"waited\": %.9g, "
               "\"waited_most\": %.9g, \"adding\": %.9g, \"hidden\": %.6f, \"messages\": %.17g, \"bytes\": %.17g, "
               "\"memory\": %.17g, \"requests\": %.17g, \"payload\": %.17g, \"polls\": %.9g}\n",
               ranks, most[0] / steps, alone, sums[0] / ranks / steps, sums[1] / ranks / steps, most[5] / steps,
               sums[3] / ranks / steps, sums[2] / ranks, most[1] / steps, most[2] / steps, most[3], most[4],
               (double)(s->floats * sizeof(float)), sums[4] / ranks / steps);
    thaw_exchange_free(s->exchange);
    thaw_comm_free(comm, s->block);
    thaw_free(s->staging);
    thaw_free(s);
}

/* Element i of rank r; sums over 512 ranks stay below 2^24, so that every order gives the same bits. */
static float value(int rank, size_t i) { return (float)((i * 7 + (size_t)rank * 13) % 29) - 14.0f; }

static void check(thaw_comm *comm) {
    enum { BUCKETS = 4, FLOATS = 60000 };
    static const thaw_scheme schemes[] = {THAW_SCHEME_AUTO, THAW_SCHEME_DOUBLING, THAW_SCHEME_HALVING};
    const thaw_bucket buckets[BUCKETS] = {{0, 1, 1}, {16, 41001, 41001}, {41024, 8191, 8000}, {50000, 9999, 9999}};
    const int rank = thaw_comm_rank(comm), ranks = thaw_comm_size(comm);
    float *block = thaw_comm_alloc(comm, FLOATS);
    long wrong = 0;
    for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++) {
        const thaw_allreduce_options options = {.scheme = schemes[k], .chunk = 20000, .window = 3};
        thaw_exchange *exchange;
        must(comm, thaw_exchange_create_with(&exchange, comm, block, buckets, BUCKETS, THAW_EXCHANGE_OVERLAP, &options));
        counted_block(block, FLOATS, 1e9);
        for (int step = 0; step < 2; step++) {
            for (size_t i = 0; i < FLOATS; i++)
                block[i] = value(rank, i);
            for (int b = 0; b < BUCKETS; b++) {
                smpi_execute_benched(1e-5 * (1 + (rank + b) % 3)); /* ranks come at different times */
                must(comm, thaw_exchange_begin(exchange, b));
                for (int i = 0; i < rank % 4; i++)
                    thaw_exchange_poll(exchange);
            }
            must(comm, thaw_exchange_finish(exchange));
            for (int b = 0; b < BUCKETS; b++)
                for (size_t i = buckets[b].offset; i < buckets[b].offset + buckets[b].count; i++) {
                    float sum = 0.0f;
                    for (int r = 0; r < ranks; r++)
                        sum += value(r, i);
                    wrong += block[i] != sum;
                }
        }
        thaw_exchange_free(exchange);
    }
    double total = (double)wrong;
    must(comm, thaw_comm_sum(comm, &total, 1));
    if (rank == 0)
        printf("{\"ranks\": %d, \"wrong\": %.0f, \"messages\": %llu}\n", ranks, total, (unsigned long long)counted.messages);
    thaw_comm_free(comm, block);
}

int main(int argc, char **argv) {
    thaw_comm *comm;
    if (thaw_comm_init(&comm, &argc, &argv) != THAW_OK) {
        fprintf(stderr, "simulate: %s\n", thaw_message());
        return 71;
    }
    if (argc == 2 && strcmp(argv[1], "check") == 0)
        check(comm);
    else if (argc == 12)
        simulate(comm, argv);
    else
        thaw_comm_abort(comm, THAW_USAGE, "simulate: see the head of simulate.c");
    thaw_comm_finalize(comm);
    return 0;
}
