/* Items of work: each is taken once, whatever the threads; a thread has its own run of neighbours first. */
#include "base/items.h"
#include "base_case.h"

static void test_each_once(void **state) {
    (void)state;
    for (int threads = 1; threads <= 70; threads += threads < 4 ? 1 : 33)
        for (int64_t n = 0; n <= 200; n += n < 3 ? 1 : 97) {
            int taken[200] = {0};
            thaw_items items;
            thaw_threads_set(threads);
            thaw_items_begin(&items, n);
#pragma omp parallel num_threads(threads)
            for (int64_t item; (item = thaw_items_take(&items)) >= 0;)
#pragma omp atomic
                taken[item]++;
            for (int64_t i = 0; i < 200; i++)
                assert_int_equal(taken[i], i < n);
            assert_int_equal(thaw_items_take(&items), -1);
        }
    thaw_threads_set(1);
}

/* A thread has its own run of neighbours first. */
static void test_own_first(void **state) {
    (void)state;
    enum { THREADS = 2, N = 10 };
    thaw_items items;
    thaw_threads_set(THREADS);
    thaw_items_begin(&items, N);
    int64_t first[THREADS] = {-1, -1};
#pragma omp parallel num_threads(THREADS)
    {
        const int64_t item = thaw_items_take(&items);
        first[omp_get_thread_num()] = item;
    }
    if (first[1] >= 0) { /* the machine gave two threads */
        assert_int_equal(first[0], 0);
        assert_int_equal(first[1], N / THREADS);
    }
    for (int64_t item = 1; item < N; item++) /* the rest, one behind the other: own items, then others' */
        if (item != N / THREADS)
            assert_int_equal(thaw_items_take(&items), item);
    thaw_threads_set(1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_once), cmocka_unit_test(test_own_first)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
