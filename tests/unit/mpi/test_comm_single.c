/* thaw/comm.h for one process, and the exchange on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "thaw/comm.h"

static thaw_comm *start(void) {
    thaw_comm *comm = NULL;
    assert_int_equal(thaw_comm_init(&comm, NULL, NULL), THAW_OK);
    assert_non_null(comm);
    return comm;
}

static void test_world(void **state) {
    (void)state;
    thaw_comm *comm = start();
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    assert_int_equal(thaw_comm_rank(comm), 0);
    assert_int_equal(thaw_comm_size(comm), 1);
    assert_int_equal(thaw_comm_local_rank(comm), 0);
    assert_int_equal(thaw_comm_local_size(comm), 1);
    assert_int_equal(thaw_comm_hosts(comm), 1);
    assert_string_equal(thaw_comm_host(comm), host);
    assert_string_equal(thaw_comm_library(comm), "single process");
    thaw_comm_barrier(comm);
    thaw_comm_finalize(comm);
    thaw_comm_finalize(NULL);
}

static void test_part(void **state) {
    (void)state;
    thaw_comm *comm = start(), *part = comm;
    assert_int_equal(thaw_comm_first(&part, comm, 2), THAW_INTERNAL);
    assert_null(part);
    assert_int_equal(thaw_comm_first(&part, comm, 1), THAW_OK);
    assert_int_equal(thaw_comm_size(part), 1);
    assert_string_equal(thaw_comm_host(part), thaw_comm_host(comm));
    thaw_comm_rest(comm);
    thaw_comm_finalize(part);
    thaw_memory_fail_after(1);
    assert_int_equal(thaw_comm_first(&part, comm, 1), THAW_RESOURCE);
    assert_null(part);
    thaw_comm_finalize(comm);
}

static void test_init_failure(void **state) {
    (void)state;
    thaw_comm *comm = (thaw_comm *)(void *)state;
    thaw_memory_fail_after(1);
    assert_int_equal(thaw_comm_init(&comm, NULL, NULL), THAW_RESOURCE);
    assert_null(comm);
}

static void test_collectives(void **state) {
    (void)state;
    thaw_comm *comm = start();
    double values[3] = {1.5, -2.0, 3.25};
    const double before[3] = {1.5, -2.0, 3.25};
    assert_int_equal(thaw_comm_sum(comm, values, 3), THAW_OK);
    thaw_comm_sum_begin(comm, values, values, 3);
    thaw_comm_sum_poll(comm);
    thaw_comm_sum_end(comm);
    assert_int_equal(thaw_comm_max(comm, values, 3), THAW_OK);
    assert_int_equal(thaw_comm_broadcast(comm, values, sizeof values, 0), THAW_OK);
    assert_memory_equal(values, before, sizeof values);
    assert_int_equal(thaw_comm_broadcast(comm, values, sizeof values, 1), THAW_INTERNAL);
    double all[3] = {0};
    assert_int_equal(thaw_comm_allgather(comm, values, sizeof values, all), THAW_OK);
    assert_memory_equal(all, before, sizeof all);
    assert_int_equal(thaw_comm_allgather(comm, NULL, 0, NULL), THAW_OK);

    char text[] = "mine";
    void *data = text;
    size_t size = 5;
    assert_int_equal(thaw_comm_broadcast_buffer(comm, &data, &size, 0), THAW_OK);
    assert_ptr_equal(data, text);
    assert_int_equal(size, 5);

    for (size_t bytes = 0; bytes <= 5; bytes += 5) {
        void *gathered = NULL;
        size_t *sizes = NULL;
        assert_int_equal(thaw_comm_gather_buffers(comm, bytes ? text : NULL, bytes, &gathered, &sizes), THAW_OK);
        assert_non_null(gathered);
        assert_int_equal(sizes[0], bytes);
        assert_memory_equal(gathered, text, bytes);
        thaw_free(gathered);
        thaw_free(sizes);
    }
    for (int64_t n = 1; n <= 2; n++) {
        void *gathered;
        size_t *sizes;
        thaw_memory_fail_after(n);
        assert_int_equal(thaw_comm_gather_buffers(comm, text, 5, &gathered, &sizes), THAW_RESOURCE);
        assert_null(gathered);
        assert_null(sizes);
    }
    thaw_memory_fail_after(-1);

    assert_int_equal(thaw_comm_agree(comm, THAW_OK), THAW_OK);
    thaw_fail(THAW_DATA, "a.png is bad");
    assert_int_equal(thaw_comm_agree(comm, THAW_DATA), THAW_DATA);
    assert_string_equal(thaw_message(), "a.png is bad"); /* no rank: there is one */
    assert_int_equal(thaw_comm_same(comm, "weights", 7, THAW_REPLICAS), THAW_OK);
    thaw_comm_finalize(comm);
}

static void test_alloc(void **state) {
    (void)state;
    thaw_comm *comm = start();
    float *block = thaw_comm_alloc(comm, 1000);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % 64, 0);
    for (int i = 0; i < 1000; i++)
        assert_true(block[i] == 0.0f);
    thaw_comm_free(comm, block);
    assert_null(thaw_comm_alloc(comm, SIZE_MAX / 2));
    float *none = thaw_comm_alloc(comm, 0);
    assert_non_null(none);
    thaw_comm_free(comm, none);
    thaw_comm_free(comm, NULL);
    thaw_comm_finalize(comm);
}

static void test_exchange(void **state) {
    (void)state;
    thaw_comm *comm = start();
    float *block = thaw_comm_alloc(comm, 48);
    const thaw_bucket buckets[] = {{0, 16, 10}, {16, 32, 32}};
    for (int i = 0; i < 48; i++)
        block[i] = (float)i;
    thaw_exchange *exchange = NULL;
    assert_int_equal(thaw_exchange_create(&exchange, comm, block, buckets, 2, THAW_EXCHANGE_AUTO), THAW_OK);
    for (int step = 1; step <= 2; step++) {
        assert_int_equal(thaw_exchange_begin(exchange, 0), THAW_OK);
        thaw_exchange_poll(exchange);
        assert_int_equal(thaw_exchange_begin(exchange, 0), THAW_INTERNAL); /* twice in a step */
        assert_int_equal(thaw_exchange_begin(exchange, 1), THAW_OK);
        assert_int_equal(thaw_exchange_begin(exchange, 2), THAW_INTERNAL);
        assert_int_equal(thaw_exchange_begin(exchange, -1), THAW_INTERNAL);
        assert_int_equal(thaw_exchange_finish(exchange), THAW_OK);
        assert_int_equal(thaw_exchange_bytes(exchange), step * 4 * (10 + 32)); /* pads are no payload */
    }
    for (int i = 0; i < 48; i++)
        assert_true(block[i] == (float)i);
    thaw_exchange_free(exchange);
    thaw_exchange_free(NULL);
    thaw_comm_free(comm, block);
    thaw_comm_finalize(comm);
}

static void test_exchange_refusals(void **state) {
    (void)state;
    thaw_comm *comm = start();
    float *block = thaw_comm_alloc(comm, 48);
    thaw_exchange *exchange = (thaw_exchange *)(void *)block;
    const thaw_bucket overlap[] = {{0, 17, 17}, {16, 32, 32}}, huge[] = {{SIZE_MAX - 3, 8, 8}}, wide[] = {{0, SIZE_MAX / 2, 1}};
    const thaw_bucket good[] = {{0, 16, 16}}, more[] = {{0, 16, 17}};
    assert_int_equal(thaw_exchange_create(&exchange, comm, block, overlap, 2, THAW_EXCHANGE_AUTO), THAW_INTERNAL);
    assert_null(exchange);
    assert_int_equal(thaw_exchange_create(&exchange, comm, block, huge, 1, THAW_EXCHANGE_AUTO), THAW_INTERNAL);
    assert_int_equal(thaw_exchange_create(&exchange, comm, block, wide, 1, THAW_EXCHANGE_AUTO), THAW_INTERNAL);
    assert_int_equal(thaw_exchange_create(&exchange, comm, block, more, 1, THAW_EXCHANGE_AUTO), THAW_INTERNAL);
    assert_int_equal(thaw_exchange_create(&exchange, comm, NULL, good, 1, THAW_EXCHANGE_AUTO), THAW_INTERNAL);
    assert_int_equal(thaw_exchange_create(&exchange, comm, block, good, -1, THAW_EXCHANGE_AUTO), THAW_INTERNAL);
    for (int64_t n = 1; n <= 4; n++) {
        thaw_memory_fail_after(n);
        assert_int_equal(thaw_exchange_create(&exchange, comm, block, good, 1, THAW_EXCHANGE_AUTO), THAW_RESOURCE);
        assert_null(exchange);
    }
    thaw_memory_fail_after(-1);
    assert_int_equal(thaw_exchange_create(&exchange, comm, NULL, NULL, 0, THAW_EXCHANGE_AUTO), THAW_OK); /* nothing is trained */
    assert_int_equal(thaw_exchange_finish(exchange), THAW_OK);
    thaw_exchange_free(exchange);
    thaw_comm_free(comm, block);
    thaw_comm_finalize(comm);
}

static void test_abort(void **state) {
    (void)state;
    int out[2];
    assert_int_equal(pipe(out), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 2);
        thaw_comm *comm = NULL;
        if (thaw_comm_init(&comm, NULL, NULL) == THAW_OK)
            thaw_comm_abort(comm, THAW_HUNG, "gave up");
        _exit(1);
    }
    close(out[1]);
    char text[1024] = {0}, expected[1024], host[256] = "";
    size_t got = 0;
    for (ssize_t n; got < sizeof text - 1 && (n = read(out[0], text + got, sizeof text - 1 - got)) > 0;)
        got += (size_t)n;
    close(out[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 76);
    gethostname(host, sizeof host - 1);
    snprintf(expected, sizeof expected, "thaw: rank 0 (%s): gave up\n", host);
    assert_string_equal(text, expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_world),
        cmocka_unit_test(test_part),    cmocka_unit_test(test_init_failure),      cmocka_unit_test(test_collectives),
        cmocka_unit_test(test_alloc),    cmocka_unit_test(test_exchange),          cmocka_unit_test(test_exchange_refusals),
        cmocka_unit_test(test_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
