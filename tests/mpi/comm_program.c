/* thaw/comm.h on MPI, checked by every rank of a small job: comm_program check | abort RANK STATUS | init
 * Run by test_comm.py. Prints "ok P checks" on rank 0; each failed check prints its line and makes the status 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "thaw/comm.h"

static int rank, size, checks, failures;

static void check(bool good, const char *what, int line) {
    checks++;
    if (good)
        return;
    failures++;
    fprintf(stderr, "rank %d of %d: line %d: %s (%s)\n", rank, size, line, what, thaw_message());
}
#define CHECK(condition) check((condition), #condition, __LINE__)

/* Bytes of a pattern that differs by rank. */
static void fill(char *bytes, size_t n, int from) {
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * 7 + (size_t)from * 31 + 1);
}

static bool filled(const char *bytes, size_t n, int from) {
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != (char)(i * 7 + (size_t)from * 31 + 1))
            return false;
    return true;
}

/* Equal bits on all ranks, asked with the calls that are under test elsewhere. */
static bool equal_everywhere(thaw_comm *comm, const void *bytes, size_t n) {
    char *all = malloc(n * (size_t)size);
    bool equal = all && thaw_comm_allgather(comm, bytes, n, all) == THAW_OK;
    for (int r = 0; equal && r < size; r++)
        equal = memcmp(all + (size_t)r * n, all, n) == 0;
    free(all);
    return equal;
}

static void check_world(thaw_comm *comm) {
    CHECK(thaw_comm_local_size(comm) == size); /* the test runs on one machine */
    CHECK(thaw_comm_local_rank(comm) == rank);
    CHECK(thaw_comm_hosts(comm) == 1);
    CHECK(strlen(thaw_comm_host(comm)) > 0);
    CHECK(strlen(thaw_comm_library(comm)) > 3 && !strchr(thaw_comm_library(comm), '\n'));
}

static void check_broadcasts(thaw_comm *comm) {
    const size_t sizes[] = {0, 1, 1000, 3000000};
    for (int root = 0; root < size; root++)
        for (int s = 0; s < 4; s++) {
            char *bytes = malloc(sizes[s] + 1);
            fill(bytes, sizes[s], rank);
            CHECK(thaw_comm_broadcast(comm, bytes, sizes[s], root) == THAW_OK);
            CHECK(filled(bytes, sizes[s], root));
            fill(bytes, sizes[s], rank);
            void *data = rank == root ? bytes : NULL;
            size_t got = rank == root ? sizes[s] : 99;
            CHECK(thaw_comm_broadcast_buffer(comm, &data, &got, root) == THAW_OK);
            CHECK(got == sizes[s] && data && filled(data, sizes[s], root));
            if (rank != root) {
                CHECK(((char *)data)[got] == 0); /* text can be read as such */
                thaw_free(data);
            }
            free(bytes);
        }
    CHECK(thaw_comm_broadcast(comm, NULL, 0, size) == THAW_INTERNAL);
    CHECK(thaw_comm_broadcast(comm, NULL, 0, -1) == THAW_INTERNAL);
    if (size == 1)
        return;
    /* One rank has no memory for the buffer: all fail, and nobody waits. */
    char text[] = "text";
    void *data = rank == 0 ? text : NULL;
    size_t got = sizeof text;
    if (rank == size - 1)
        thaw_memory_fail_after(1);
    CHECK(thaw_comm_broadcast_buffer(comm, &data, &got, 0) == THAW_RESOURCE);
    CHECK(rank == 0 ? data == text : data == NULL && got == 0);
}

static void check_reductions(thaw_comm *comm) {
    double values[4] = {rank + 1.0, -0.5 * rank, 1e300, rank == size - 1 ? (double)NAN : 0.0};
    const double expected[3] = {size * (size + 1) / 2.0, -0.25 * size * (size - 1), 1e300 * size};
    CHECK(thaw_comm_sum(comm, values, 4) == THAW_OK);
    CHECK(memcmp(values, expected, sizeof expected) == 0);
    CHECK(isnan(values[3]));
    CHECK(equal_everywhere(comm, values, sizeof values));

    /* Numbers whose sum depends on its order: equal bits all the same. */
    enum { MANY = 10000 };
    double *many = malloc(MANY * sizeof *many);
    for (int i = 0; i < MANY; i++)
        many[i] = sin(i * 1.1 + rank) * pow(10.0, i % 17 - 8);
    CHECK(thaw_comm_sum(comm, many, MANY) == THAW_OK);
    CHECK(equal_everywhere(comm, many, MANY * sizeof *many));
    free(many);

    /* Two kinds of NaN meet: still one kind on all ranks. */
    double mixed[2] = {rank % 2 ? -(double)NAN : (double)NAN, rank % 2 ? (double)INFINITY : -(double)INFINITY};
    CHECK(thaw_comm_sum(comm, mixed, 2) == THAW_OK);
    CHECK(isnan(mixed[0]) && (size == 1 ? isinf(mixed[1]) : isnan(mixed[1])));
    CHECK(equal_everywhere(comm, mixed, sizeof mixed));

    double most[7] = {rank, -rank - 1.0, rank == 0 ? (double)NAN : 1e308, rank ? -0.0 : 0.0,
                      rank == size - 1 ? (double)INFINITY : 5.0, -(double)INFINITY, -1e-310 * (rank + 1)};
    CHECK(thaw_comm_max(comm, most, 7) == THAW_OK);
    CHECK(most[0] == size - 1.0);
    CHECK(most[1] == -1.0);
    CHECK(isnan(most[2])); /* a NaN is above all, whoever brings it */
    CHECK(most[3] == 0.0 && !signbit(most[3]));
    CHECK(isinf(most[4]) && most[4] > 0.0);
    CHECK(isinf(most[5]) && most[5] < 0.0);
    CHECK(most[6] == -1e-310);
    CHECK(equal_everywhere(comm, most, sizeof most));
    CHECK(thaw_comm_sum(comm, NULL, 0) == THAW_OK && thaw_comm_max(comm, NULL, 0) == THAW_OK);
}

/* Sums that move on by polls, each rank at another pace: the next one is begun as soon as the last has ended, while others still
 * are at it. */
static void check_sums_ahead(thaw_comm *comm) {
    double values[3], room[3];
    for (int again = 0; again < 50; again++) {
        values[0] = rank + 1.0 + again;
        values[1] = sin(rank * 1.7 + again) * pow(10.0, rank % 5); /* whose sum depends on its order */
        values[2] = again == 7 && rank == size - 1 ? -(double)NAN : again == 8 && rank % 2 ? (double)NAN : 1.0;
        thaw_comm_sum_begin(comm, values, room, 3);
        for (int i = 0; i < (rank * 5 + again) % 4; i++)
            thaw_comm_sum_poll(comm);
        if (again % 10 == 3)
            usleep(1000 * (unsigned)((rank * 7 + again) % 5));
        if (again % 5 == 2)
            thaw_comm_barrier(comm); /* other collectives in between */
        thaw_comm_sum_end(comm);
        CHECK(values[0] == size * (size + 1) / 2.0 + (double)again * size);
        CHECK(again == 7 || (again == 8 && size > 1) ? isnan(values[2]) : values[2] == size);
        if (again % 10 > 6)
            CHECK(equal_everywhere(comm, values, sizeof values));
    }
    thaw_comm_sum_poll(comm);
    /* Polls alone bring it to its end, here and, for it takes several rounds, on the others. */
    values[0] = rank + 1.0;
    thaw_comm_sum_begin(comm, values, room, 1);
    for (int i = 0; i < 20000 && values[0] != size * (size + 1) / 2.0; i++) {
        thaw_comm_sum_poll(comm);
        usleep(100);
    }
    CHECK(values[0] == size * (size + 1) / 2.0);
    thaw_comm_sum_end(comm);
    thaw_comm_sum_begin(comm, NULL, NULL, 0);
    thaw_comm_sum_end(comm);
}

static void check_gathers(thaw_comm *comm) {
    int32_t mine[2] = {rank, rank * rank}, all[2 * 64] = {0};
    CHECK(thaw_comm_allgather(comm, mine, sizeof mine, all) == THAW_OK);
    for (int r = 0; r < size; r++)
        CHECK(all[2 * r] == r && all[2 * r + 1] == r * r);
    CHECK(thaw_comm_allgather(comm, NULL, 0, NULL) == THAW_OK);

    const size_t lengths[] = {0, 5, 2000000, 1}; /* by rank */
    char *bytes = malloc(lengths[rank % 4] + 1);
    fill(bytes, lengths[rank % 4], rank);
    void *gathered = bytes;
    size_t *sizes = (size_t *)(void *)bytes;
    CHECK(thaw_comm_gather_buffers(comm, rank % 4 ? bytes : NULL, lengths[rank % 4], &gathered, &sizes) == THAW_OK);
    if (rank == 0) {
        const char *at = gathered;
        CHECK(gathered && sizes);
        for (int r = 0; r < size; at += lengths[r % 4], r++)
            CHECK(sizes[r] == lengths[r % 4] && filled(at, sizes[r], r));
    } else {
        CHECK(!gathered && !sizes);
    }
    thaw_free(gathered);
    thaw_free(sizes);
    for (int64_t n = 1; n <= 2; n++) { /* rank 0 has no memory */
        if (rank == 0)
            thaw_memory_fail_after(n);
        CHECK(thaw_comm_gather_buffers(comm, bytes, lengths[rank % 4], &gathered, &sizes) == THAW_RESOURCE);
        CHECK(!gathered && !sizes);
    }
    thaw_memory_fail_after(-1);
    free(bytes);
}

static void check_agreement(thaw_comm *comm) {
    char expected[512];
    CHECK(thaw_comm_agree(comm, THAW_OK) == THAW_OK);
    /* All fail, or all from one rank on: the lowest one's status and message win. */
    for (int first = 0; first < size; first++) {
        const thaw_status mine = rank < first ? THAW_OK : thaw_fail(rank == first ? THAW_DATA : THAW_IO, "of rank %d", rank);
        CHECK(thaw_comm_agree(comm, mine) == THAW_DATA);
        snprintf(expected, sizeof expected, "rank %d (%s): of rank %d", first, thaw_comm_host(comm), first);
        CHECK(strcmp(thaw_message(), size > 1 ? expected : "of rank 0") == 0);
        /* Agreed again by a caller further up: still one prefix. */
        CHECK(thaw_comm_agree(comm, THAW_DATA) == THAW_DATA);
        CHECK(strcmp(thaw_message(), size > 1 ? expected : "of rank 0") == 0);
    }
    CHECK(thaw_comm_same(comm, "the job", UINT64_C(0xffffffff00000001), THAW_USAGE) == THAW_OK);
    for (int other = 1; other < size; other++) {
        const uint64_t value = rank >= other ? UINT64_MAX : 0;
        CHECK(thaw_comm_same(comm, "the job", value, THAW_USAGE) == THAW_USAGE);
        snprintf(expected, sizeof expected, "rank %d (%s): the job differs from rank 0's", other, thaw_comm_host(comm));
        CHECK(strncmp(thaw_message(), expected, strlen(expected)) == 0);
    }
    thaw_comm_barrier(comm);
}

static void check_exchange(thaw_comm *comm) {
    const thaw_bucket buckets[] = {{0, 16, 13}, {16, 100000, 100000}, {100032, 16, 16}};
    float *block = thaw_comm_alloc(comm, 100048);
    CHECK(block && (uintptr_t)block % 64 == 0 && block[0] == 0.0f && block[100047] == 0.0f);
    thaw_exchange *exchange = NULL;
    CHECK(thaw_exchange_create(&exchange, comm, block, buckets, 3, THAW_EXCHANGE_AUTO) == THAW_OK);
    for (int step = 0; step < 3; step++) {
        for (int i = 0; i < 100048; i++)
            block[i] = (float)(i % 100 + rank);
        const int order[] = {1, 0, 2};
        for (int i = 0; i < 3; i++) {
            if (step == 2 && i == 2) /* a bucket that is not begun stays as it is */
                continue;
            CHECK(thaw_exchange_begin(exchange, order[i]) == THAW_OK);
            thaw_exchange_poll(exchange);
        }
        CHECK(thaw_exchange_finish(exchange) == THAW_OK);
        bool right = true;
        for (int i = 0; i < 100048; i++) {
            const bool summed = i < 100016 || (i >= 100032 && step < 2);
            const int sum = size * (i % 100) + size * (size - 1) / 2;
            right = right && block[i] == (float)(summed ? sum : i % 100 + rank);
        }
        CHECK(right);
    }
    CHECK(thaw_exchange_bytes(exchange) == 4 * (3 * UINT64_C(100013) + 2 * 16));
    thaw_exchange_free(exchange);
    if (size > 1) { /* ranks that cut differently */
        thaw_bucket mine = {0, rank ? 32 : 16, 16};
        CHECK(thaw_exchange_create(&exchange, comm, block, &mine, 1, THAW_EXCHANGE_AUTO) == THAW_INTERNAL);
        CHECK(!exchange && strstr(thaw_message(), "rank 1 ("));
        if (rank == size - 1)
            thaw_memory_fail_after(1);
        CHECK(thaw_exchange_create(&exchange, comm, block, buckets, 1, THAW_EXCHANGE_AUTO) == THAW_RESOURCE);
        if (rank == size - 1)
            thaw_memory_fail_after(1);
        CHECK(thaw_comm_alloc(comm, 16) == NULL); /* all have the block or none */
    }
    thaw_comm_free(comm, block);
}

/* Blocks that the ranks of a host have in common: each writes its part, all read the same. */
static void check_common(thaw_comm *comm) {
    static const size_t bytes[] = {0, 1, 64, 1000003, 5 << 20};
    for (int i = 0; i < 5; i++) {
        thaw_common *common = NULL;
        CHECK(thaw_common_create(&common, comm, bytes[i], "block") == THAW_OK);
        unsigned char *block = thaw_common_block(common);
        const int part = thaw_common_part(common), parts = thaw_common_parts(common);
        CHECK(block && (uintptr_t)block % 64 == 0 && part == (bytes[i] ? rank : 0) && parts == (bytes[i] ? size : 1));
        bool right = true;
        for (size_t at = bytes[i] * (size_t)part / (size_t)parts; at < bytes[i] * (size_t)(part + 1) / (size_t)parts; at++) {
            right = right && block[at] == 0;
            block[at] = (unsigned char)(at % 251);
        }
        thaw_common_seal(common);
        for (size_t at = 0; at < bytes[i]; at++)
            right = right && block[at] == at % 251;
        CHECK(right);
        if (rank == 0) { /* the others still have it */
            thaw_common_free(common);
            common = NULL;
        }
        thaw_comm_barrier(comm);
        CHECK(rank == 0 || bytes[i] == 0 || block[bytes[i] - 1] == (bytes[i] - 1) % 251);
        thaw_common_free(common);
    }
    thaw_common *common = NULL;
    if (rank == size - 1)
        thaw_memory_fail_after(1);
    CHECK(thaw_common_create(&common, comm, 64, "block") == THAW_RESOURCE && !common);
    thaw_memory_fail_after(-1);
    thaw_common_seal(NULL);
    thaw_common_free(NULL);
}

/* Worlds of the first ranks: sums, agreement and exchange stay among them, while the others rest. */
static void check_parts(thaw_comm *comm) {
    thaw_comm *part = comm;
    for (int wrong = 0; wrong <= size + 1; wrong += size + 1) {
        CHECK(thaw_comm_first(&part, comm, wrong) == THAW_INTERNAL);
        CHECK(!part);
    }
    for (int ranks = 1; ranks <= size; ranks++) {
        CHECK(thaw_comm_first(&part, comm, ranks) == THAW_OK);
        CHECK((part != NULL) == (rank < ranks));
        if (part) {
            double one = 1.0;
            CHECK(thaw_comm_rank(part) == rank && thaw_comm_size(part) == ranks);
            CHECK(thaw_comm_local_rank(part) == rank && thaw_comm_local_size(part) == ranks && thaw_comm_hosts(part) == 1);
            CHECK(thaw_comm_sum(part, &one, 1) == THAW_OK && one == ranks);
            CHECK(thaw_comm_agree(part, rank == ranks - 1 ? thaw_fail(THAW_DATA, "last") : THAW_OK) == THAW_DATA);
            float *block = thaw_comm_alloc(part, 64);
            const thaw_bucket bucket = {0, 64, 64};
            thaw_exchange *exchange = NULL;
            CHECK(thaw_exchange_create(&exchange, part, block, &bucket, 1, THAW_EXCHANGE_AUTO) == THAW_OK);
            for (int i = 0; i < 64; i++)
                block[i] = (float)i;
            CHECK(thaw_exchange_begin(exchange, 0) == THAW_OK && thaw_exchange_finish(exchange) == THAW_OK);
            CHECK(block[0] == 0.0f && block[63] == 63.0f * (float)ranks);
            thaw_exchange_free(exchange);
            thaw_comm_free(part, block);
        }
        thaw_comm_rest(comm);
        thaw_comm_finalize(part);
        double all = 1.0; /* the whole world is as it was */
        CHECK(thaw_comm_sum(comm, &all, 1) == THAW_OK && all == size);
    }
}

/* Nobody leaves before all are there. */
static void check_rest(thaw_comm *comm) {
    if (rank == size - 1)
        usleep(100000);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    double late = (double)before.tv_sec + 1e-9 * (double)before.tv_nsec;
    thaw_comm_rest(comm);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK(thaw_comm_max(comm, &late, 1) == THAW_OK);
    CHECK((double)after.tv_sec + 1e-9 * (double)after.tv_nsec >= late);
}

int main(int argc, char **argv) {
    thaw_comm *comm = NULL;
    if (thaw_comm_init(&comm, &argc, &argv) != THAW_OK) {
        fprintf(stderr, "%s\n", thaw_message());
        return 2;
    }
    rank = thaw_comm_rank(comm);
    size = thaw_comm_size(comm);
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "abort") == 0 && argc == 4) {
        thaw_comm_barrier(comm);
        if (rank == atoi(argv[2])) {
            printf("buffered line\n"); /* comes out all the same */
            thaw_comm_abort(comm, (thaw_status)atoi(argv[3]), "gave up");
        }
        sleep(100);
        return 3;
    }
    if (strcmp(mode, "start") == 0) { /* for tests/bench/startup.py */
        thaw_comm_finalize(comm);
        return 0;
    }
    if (strcmp(mode, "check") != 0)
        thaw_comm_abort(comm, THAW_USAGE, "usage: comm_program check | start | abort RANK STATUS");
    check_world(comm);
    check_broadcasts(comm);
    check_reductions(comm);
    check_sums_ahead(comm);
    check_gathers(comm);
    check_agreement(comm);
    check_exchange(comm);
    check_common(comm);
    check_parts(comm);
    check_rest(comm);
    double total[2] = {failures, checks};
    thaw_comm_sum(comm, total, 2);
    if (rank == 0 && total[0] == 0.0)
        printf("ok %d %d\n", size, (int)total[1]);
    thaw_comm_finalize(comm);
    return total[0] == 0.0 ? 0 : 1;
}
