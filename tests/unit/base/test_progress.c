/* Progress inside of loops: who makes the call, how often, and not from inside of itself. */
#include <omp.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/progress.h"
#include "base_case.h"

static double now;
static double told(void) { return now; }

static int calls;
static pthread_t caller;

static bool finds; /* what the call says */

static bool count(void *payload) {
    *(int *)payload += 1;
    caller = pthread_self();
    return finds;
}

/* A call that comes to a loop itself, for longer than the interval. */
static bool nested(void *payload) {
    const bool found = count(payload);
    for (int i = 0; i < 10; i++) {
        now += 1.0;
        thaw_progress();
    }
    return found;
}

static void test_none(void **state) {
    (void)state;
    thaw_progress_set(NULL, NULL);
    thaw_progress();
}

static void test_interval(void **state) {
    (void)state;
    calls = 0;
    finds = true;
    now = 100.0;
    thaw_clock_set(told);
    thaw_progress_set(count, &calls);
    thaw_progress();
    assert_int_equal(calls, 1); /* the first is due */
    for (int i = 0; i < 1000; i++, now += 1e-6)
        thaw_progress();
    assert_true(calls >= 2 && calls <= 3); /* one millisecond */
    now = 1.0; /* another clock */
    thaw_progress();
    thaw_progress_set(NULL, NULL);
    const int before = calls;
    now += 1.0;
    thaw_progress();
    assert_int_equal(calls, before);
    thaw_clock_set(NULL);
}

/* Calls in `seconds` of looks every 10 us. */
static int calls_in(double seconds) {
    const int before = calls;
    for (const double end = now + seconds; now < end; now += 1e-5)
        thaw_progress();
    return calls - before;
}

/* Calls that find nothing come more and more seldom, until one finds something. */
static void test_in_vain(void **state) {
    (void)state;
    calls = 0;
    finds = false;
    now = 100.0;
    thaw_clock_set(told);
    thaw_progress_set(count, &calls);
    thaw_progress();
    assert_in_range(calls_in(3.1e-3), 2, 2); /* after 1 ms and 2 more */
    assert_in_range(calls_in(20e-3), 9, 10); /* every 2 ms */
    finds = true;
    assert_in_range(calls_in(10e-3), 16, 20); /* every 0.5 ms from the first on */
    thaw_progress_set(NULL, NULL);
    thaw_clock_set(NULL);
}

static void test_not_inside_itself(void **state) {
    (void)state;
    calls = 0;
    thaw_clock_set(told);
    thaw_progress_set(nested, &calls);
    thaw_progress();
    assert_int_equal(calls, 1);
    now += 1.0;
    thaw_progress();
    assert_int_equal(calls, 2);
    thaw_progress_set(NULL, NULL);
    thaw_clock_set(NULL);
}

/* In a team only its master calls, whoever takes the pieces. */
static void test_master_alone(void **state) {
    (void)state;
    int others = 0;
    calls = 0;
    finds = true;
    thaw_progress_set(count, &calls);
    for (int turn = 0; turn < 20; turn++) {
#pragma omp parallel num_threads(4) reduction(+ : others)
        {
            const int before = calls;
            for (const double start = thaw_clock(); thaw_clock() - start < 1e-3;)
                thaw_progress();
            if (omp_get_thread_num() == 0)
                others += calls == before; /* nothing came */
        }
        assert_true(pthread_equal(caller, pthread_self()));
    }
    assert_int_equal(others, 0);
    thaw_progress_set(NULL, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_none), cmocka_unit_test(test_interval),
                                       cmocka_unit_test(test_in_vain), cmocka_unit_test(test_not_inside_itself),
                                       cmocka_unit_test(test_master_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
