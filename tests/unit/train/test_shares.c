/* Work for ranks of unequal speed: everything once, batches that fit, as much as each rank is fast. */
#include "train_case.h"

#include "train/shares.h"

enum { RANKS = 5, BATCH = 8 };

static int64_t share(const int64_t *bounds, int rank) { return bounds[rank + 1] - bounds[rank]; }

/* Rows [0, bounds[ranks]) once, at most a batch in each step. */
static void expect_sound(int64_t n, int ranks, int64_t batch, int64_t most, int64_t steps, const int64_t *bounds) {
    assert_int_equal(bounds[0], 0);
    assert_true(bounds[ranks] <= n && (bounds[ranks] > 0) == (n > 0));
    assert_true(steps <= most && (steps > 0) == (n > 0));
    for (int r = 0; r < ranks; r++)
        assert_true(share(bounds, r) >= 0 && share(bounds, r) <= steps * batch);
}

static void test_equal_speeds(void **state) {
    (void)state;
    int64_t bounds[RANKS + 1];
    const double unknown[RANKS] = {0}, known[RANKS] = {0.5, 0.5, 0.5, 0.5, 0.5};
    for (int64_t n = 0; n < 300; n++)
        for (int ranks = 1; ranks <= RANKS; ranks++)
            for (int which = 0; which < 2; which++) {
                const int64_t steps = thaw_shares_plan(n, ranks, which ? known : unknown, BATCH, 1000, bounds);
                expect_sound(n, ranks, BATCH, 1000, steps, bounds);
                assert_int_equal(bounds[ranks], n);
                assert_int_equal(steps, (n + ranks * BATCH - 1) / (ranks * BATCH));
                for (int r = 0; r < ranks; r++)
                    assert_true(share(bounds, r) == n / ranks || share(bounds, r) == (n + ranks - 1) / ranks);
            }
}

/* Twice as slow: half as many. Not known: as the fastest. */
static void test_unequal_speeds(void **state) {
    (void)state;
    int64_t bounds[RANKS + 1];
    const double seconds[4] = {0.2, 0.1, 0.0, 0.4};
    const int64_t steps = thaw_shares_plan(10000, 4, seconds, BATCH, 16, bounds);
    assert_int_equal(steps, 16);
    assert_int_equal(share(bounds, 0), 64);
    assert_int_equal(share(bounds, 1), 128);
    assert_int_equal(share(bounds, 2), 128);
    assert_int_equal(share(bounds, 3), 32);
    assert_int_equal(thaw_shares_plan(88, 4, seconds, BATCH, 16, bounds), 4); /* 22 rows a step */
    assert_int_equal(bounds[4], 88);
    assert_int_equal(share(bounds, 3), 8);
}

/* A rank that stood still gets a little, so that it is measured again. */
static void test_stood_still(void **state) {
    (void)state;
    int64_t bounds[3];
    const double seconds[2] = {0.001, 1000.0};
    const int64_t steps = thaw_shares_plan(1000, 2, seconds, BATCH, 64, bounds);
    expect_sound(1000, 2, BATCH, 64, steps, bounds);
    assert_int_equal(share(bounds, 0), 64 * BATCH);
    assert_int_equal(share(bounds, 1), BATCH);
}

static void test_any_speeds(void **state) {
    (void)state;
    int64_t bounds[RANKS + 1];
    double seconds[RANKS];
    unsigned seed = 1;
    for (int i = 0; i < 20000; i++) {
        for (int r = 0; r < RANKS; r++) {
            seed = seed * 1664525u + 1013904223u;
            seconds[r] = (double)(seed >> 16 & 1023) * 1e-3;
        }
        const int64_t n = seed >> 8 & 4095, batch = 1 + (seed >> 4 & 15), most = 1 + (seed >> 20 & 63);
        const int64_t steps = thaw_shares_plan(n, RANKS, seconds, batch, most, bounds);
        expect_sound(n, RANKS, batch, most, steps, bounds);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_speeds),
        cmocka_unit_test(test_unequal_speeds),
        cmocka_unit_test(test_stood_still),
        cmocka_unit_test(test_any_speeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
