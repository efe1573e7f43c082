/* Blocks are aligned, zeroed, counted; requests can be made to fail. */
#include "base_case.h"

static const size_t SIZES[] = {0, 1, 63, 64, 65, 4096, 262143, 262144, 262145, 5000000};
enum { N_SIZES = sizeof SIZES / sizeof *SIZES };

static bool all(const char *bytes, size_t size, char value) {
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

static void test_aligned_and_zero(void **state) {
    (void)state;
    for (int round = 0; round < 2; round++) /* the second round takes used memory */
        for (int i = 0; i < N_SIZES; i++) {
            char *block = thaw_malloc(SIZES[i]);
            assert_non_null(block);
            assert_int_equal((uintptr_t)block % 64, 0);
            assert_true(all(block, SIZES[i], 0));
            memset(block, 0x5a, SIZES[i]);
            thaw_free(block);
        }
    thaw_free(NULL);
}

static void test_resize(void **state) {
    (void)state;
    for (int i = 0; i < N_SIZES; i++)
        for (int k = 0; k < N_SIZES; k++) {
            char *block = thaw_realloc(NULL, SIZES[i]);
            assert_non_null(block);
            memset(block, 0x5a, SIZES[i]);
            block = thaw_realloc(block, SIZES[k]);
            assert_int_equal((uintptr_t)block % 64, 0);
            const size_t kept = SIZES[i] < SIZES[k] ? SIZES[i] : SIZES[k];
            assert_true(all(block, kept, 0x5a));
            assert_true(all(block + kept, SIZES[k] - kept, 0));
            thaw_free(block);
        }
}

static void test_counts(void **state) {
    (void)state;
    const size_t live = thaw_memory_live();
    const uint64_t requests = thaw_memory_requests();
    void *a = thaw_malloc(1000), *b = thaw_calloc(1000, 1000);
    assert_int_equal(thaw_memory_live() - live, 1001000);
    assert_int_equal(thaw_memory_requests() - requests, 2);
    assert_true(thaw_memory_peak() >= live + 1001000);
    const size_t peak = thaw_memory_peak();
    thaw_free(b);
    assert_int_equal(thaw_memory_live() - live, 1000);
    a = thaw_realloc(a, 10);
    assert_int_equal(thaw_memory_live() - live, 10);
    thaw_free(a);
    assert_int_equal(thaw_memory_live(), live);
    assert_int_equal(thaw_memory_peak(), peak);
}

static void test_too_much(void **state) {
    (void)state;
    assert_null(thaw_malloc(SIZE_MAX));
    assert_null(thaw_malloc(SIZE_MAX - 64));
    assert_null(thaw_calloc(SIZE_MAX / 2, 3));
    assert_null(thaw_calloc((size_t)1 << 32, (size_t)1 << 32));
    char *block = thaw_malloc(8);
    memcpy(block, "kept", 5);
    assert_null(thaw_realloc(block, SIZE_MAX));
    assert_string_equal(block, "kept");
    thaw_free(block);
}

static void test_fail_after(void **state) {
    (void)state;
    for (int64_t n = 0; n <= 3; n++) {
        thaw_memory_fail_after(n);
        for (int64_t i = 1; i <= 5; i++) {
            void *block = i % 2 ? thaw_malloc(8) : thaw_calloc(2, 8);
            assert_int_equal(block == NULL, i == (n ? n : 1)); /* once */
            thaw_free(block);
        }
    }
    thaw_memory_fail_after(1);
    thaw_memory_fail_after(-1);
    char *text = thaw_strdup("x");
    assert_non_null(text);
    thaw_memory_fail_after(1);
    assert_null(thaw_realloc(text, 100));
    assert_string_equal(text, "x");
    thaw_memory_fail_after(1);
    assert_null(thaw_strdup("x"));
    thaw_memory_fail_after(1);
    assert_null(thaw_format("%d", 1));
    thaw_free(text);
}

static void test_text(void **state) {
    (void)state;
    char *a = thaw_strdup(""), *b = thaw_strndup("abcdef", 3), *c = thaw_strndup("ab", 100), *d = thaw_format("%s-%03d", "x", 7);
    char packed[2] = {'y', 'z'}, *e = thaw_strndup(packed, 2); /* no zero behind */
    assert_string_equal(a, "");
    assert_string_equal(b, "abc");
    assert_string_equal(c, "ab");
    assert_string_equal(d, "x-007");
    assert_string_equal(e, "yz");
    thaw_free(a);
    thaw_free(b);
    thaw_free(c);
    thaw_free(d);
    thaw_free(e);
}

static void test_overflow(void **state) {
    (void)state;
    size_t out;
    assert_false(thaw_mul_overflow(3, 4, &out));
    assert_int_equal(out, 12);
    assert_true(thaw_mul_overflow(SIZE_MAX, 2, &out));
    assert_false(thaw_add_overflow(SIZE_MAX, 0, &out));
    assert_true(thaw_add_overflow(SIZE_MAX, 1, &out));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aligned_and_zero), cmocka_unit_test(test_resize),    cmocka_unit_test(test_counts),
        cmocka_unit_test(test_too_much),         cmocka_unit_test(test_fail_after), cmocka_unit_test(test_text),
        cmocka_unit_test(test_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
