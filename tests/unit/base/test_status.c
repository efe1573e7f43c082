/* One message per thread and failure; statuses are exit statuses. */
#include <pthread.h>

#include "base_case.h"

static void test_message(void **state) {
    (void)state;
    assert_string_equal(thaw_message(), "");
    assert_int_equal(thaw_fail(THAW_DATA, "%s: %d", "a.png", 7), THAW_DATA);
    assert_string_equal(thaw_message(), "a.png: 7");
    assert_int_equal(thaw_fail(THAW_IO, "rank 0: %s", thaw_message()), THAW_IO); /* may quote itself */
    assert_string_equal(thaw_message(), "rank 0: a.png: 7");
}

static void test_one_line(void **state) {
    (void)state;
    thaw_fail(THAW_DATA, "a\nb\r\nc\033[2Jd\x7f\tä");
    assert_string_equal(thaw_message(), "a b  c [2Jd  ä");
}

static void test_long(void **state) {
    (void)state;
    char *text = malloc(10001);
    memset(text, 'x', 10000);
    text[10000] = 0;
    thaw_fail(THAW_DATA, "%s", text);
    assert_int_equal(strlen(thaw_message()), 4095);
    assert_string_equal(thaw_message() + 4092, "...");
    text[4095] = 0;
    thaw_fail(THAW_DATA, "%s", text);
    assert_string_equal(thaw_message(), text);
    free(text);
}

static void *other_thread(void *seen) {
    *(bool *)seen = strcmp(thaw_message(), "") == 0;
    thaw_fail(THAW_IO, "of the other thread");
    return NULL;
}

static void test_threads_apart(void **state) {
    (void)state;
    pthread_t thread;
    bool empty = false;
    thaw_fail(THAW_DATA, "mine");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, &empty), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(empty);
    assert_string_equal(thaw_message(), "mine");
}

static thaw_status tries(thaw_status status) {
    THAW_TRY(status);
    return thaw_fail(THAW_INTERNAL, "went on");
}

static thaw_status jumps(thaw_status first, bool *cleaned) {
    thaw_status status;
    THAW_GOTO(first);
    status = THAW_MISMATCH;
out:
    *cleaned = true;
    return status;
}

static void test_macros(void **state) {
    (void)state;
    bool cleaned = false;
    assert_int_equal(tries(THAW_DATA), THAW_DATA);
    assert_int_equal(tries(THAW_OK), THAW_INTERNAL);
    assert_int_equal(jumps(THAW_IO, &cleaned), THAW_IO);
    assert_true(cleaned);
    assert_int_equal(jumps(THAW_OK, &cleaned), THAW_MISMATCH);
}

static void test_meanings(void **state) {
    (void)state;
#define EXPECT(name, code, meaning)         \
    assert_int_equal(THAW_##name, code);    \
    assert_string_equal(thaw_status_meaning(THAW_##name), meaning);
    THAW_STATUS_LIST(EXPECT)
#undef EXPECT
    assert_string_equal(thaw_status_meaning((thaw_status)3), "unknown status");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message),       cmocka_unit_test(test_one_line), cmocka_unit_test(test_long),
        cmocka_unit_test(test_threads_apart), cmocka_unit_test(test_macros),   cmocka_unit_test(test_meanings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
