/* Threads, log, clock, hash. */
#include <fenv.h>
#include <math.h>
#include <omp.h>
#include <sched.h>
#include <time.h>

#include "base_case.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/threads.h"

static void test_mask(void **state) {
    (void)state;
    uint64_t words[4];
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    const int cores = thaw_threads_mask(words, 4);
    assert_int_equal(cores, CPU_COUNT(&set));
    for (int core = 0; core < 256; core++)
        assert_int_equal(words[core / 64] >> core % 64 & 1, CPU_ISSET(core, &set) != 0);
    assert_int_equal(thaw_threads_mask(words, 0), cores); /* counted beyond the words too */
    int first = 0;
    while (!CPU_ISSET(first, &set))
        first++;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(thaw_threads_mask(words, 4), 1);
    assert_int_equal(sched_setaffinity(0, sizeof set, &set), 0);
}

static void test_threads(void **state) {
    (void)state;
    assert_int_equal(thaw_threads(), 1);
    thaw_threads_set(0);
    assert_int_equal(thaw_threads(), 1);
    thaw_threads_set(3);
    assert_int_equal(thaw_threads(), 3);
    int n = 0;
#pragma omp parallel
#pragma omp single
    n = omp_get_num_threads();
    assert_int_equal(n, 3);
    int busy = 0;
    assert_false(thaw_threads_busy());
#pragma omp parallel reduction(+ : busy)
    busy += thaw_threads_busy() != 0;
    assert_int_equal(busy, 3);
    /* Every thread rounds as the caller does. */
    fesetround(FE_UPWARD);
    thaw_threads_set(3);
    int upward = 0;
#pragma omp parallel reduction(+ : upward)
    upward += fegetround() == FE_UPWARD;
    assert_int_equal(upward, 3);
    fesetround(FE_TONEAREST);
    thaw_threads_set(2);
}

typedef struct seen {
    int n;
    thaw_log_level level;
    char line[5000];
} seen;

static void sink(thaw_log_level level, const char *line, void *payload) {
    seen *s = payload;
    s->n++;
    s->level = level;
    snprintf(s->line, sizeof s->line, "%s", line);
}

static void test_log(void **state) {
    (void)state;
    seen s = {0};
    thaw_info("nobody hears %d", 1);
    thaw_log_set(sink, &s);
    thaw_info("epoch %d", 3);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.level, THAW_LOG_INFO);
    assert_string_equal(s.line, "epoch 3");
    thaw_warn("%s", "careful");
    assert_int_equal(s.level, THAW_LOG_WARNING);
    assert_string_equal(s.line, "careful");
    thaw_info("%*s", 10000, "x"); /* a long line is cut */
    assert_int_equal(strlen(s.line), 4095);
    thaw_log_set(NULL, NULL);
    thaw_warn("nobody");
    assert_int_equal(s.n, 3);
}

static double fixed_clock(void) { return 12.5; }

static void test_clock(void **state) {
    (void)state;
    const double a = thaw_clock(), b = thaw_clock();
    assert_true(a > 0.0 && b >= a);
    thaw_clock_set(fixed_clock);
    assert_true(thaw_clock() == 12.5);
    thaw_clock_set(NULL);
    assert_true(thaw_clock() >= b && thaw_clock() != 12.5);
    assert_true(fabs(thaw_clock_unix() - (double)time(NULL)) < 5.0);
}

/* Known answers of XXH3 (xxHash 0.8: XXH3_64bits of nothing and of "abc" with seed 0). */
static void test_hash(void **state) {
    (void)state;
    assert_true(thaw_hash(NULL, 0, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(thaw_hash("abc", 3, 0) == UINT64_C(0x78af5f94892f3950));
    assert_true(thaw_hash_text("abc", 0) == thaw_hash("abc", 3, 0));
    assert_true(thaw_hash("abc", 3, 1) != thaw_hash("abc", 3, 0));
    const thaw_piece pieces[] = {{"a", 1}, {NULL, 0}, {"bc", 2}};
    assert_true(thaw_hash_pieces(pieces, 3, 0) == thaw_hash("abc", 3, 0));
    assert_true(thaw_hash_pieces(pieces, 3, 7) == thaw_hash("abc", 3, 7));
    assert_true(thaw_hash_pieces(pieces, 0, 0) == thaw_hash("", 0, 0));
    assert_true(thaw_hash_text("b", thaw_hash_text("a", 0)) != thaw_hash_text("a", thaw_hash_text("b", 0)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mask),  cmocka_unit_test(test_threads), cmocka_unit_test(test_log),
        cmocka_unit_test(test_clock), cmocka_unit_test(test_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
