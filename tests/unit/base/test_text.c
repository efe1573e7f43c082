/* Buffer, reader, nearest names, globs. */
#include "base_case.h"

#include "base/text.h"

static void test_buffer(void **state) {
    (void)state;
    thaw_buffer buffer = {0};
    thaw_buffer_put(&buffer, "ab", 2);
    assert_string_equal(buffer.data, "ab");
    thaw_buffer_put(&buffer, NULL, 0);
    thaw_buffer_printf(&buffer, "%d%s", 12, "x");
    assert_string_equal(buffer.data, "ab12x");
    thaw_buffer_printf(&buffer, "%s", "");
    assert_int_equal(buffer.size, 5);
    for (int i = 0; i < 1000; i++)
        thaw_buffer_put(&buffer, "0123456789", 10);
    assert_int_equal(buffer.size, 10005);
    assert_int_equal(strlen(buffer.data), 10005);
    assert_false(buffer.failed);
    thaw_buffer_free(&buffer);
    assert_null(buffer.data);
    assert_int_equal(buffer.size, 0);
}

static void test_buffer_failure(void **state) {
    (void)state;
    thaw_buffer buffer = {0};
    thaw_buffer_put(&buffer, "kept", 4);
    thaw_memory_fail_after(1);
    for (int i = 0; i < 100; i++)
        thaw_buffer_printf(&buffer, "%s", "more");
    thaw_memory_fail_after(-1);
    assert_true(buffer.failed);
    assert_memory_equal(buffer.data, "kept", 4);
    const size_t size = buffer.size;
    thaw_buffer_put(&buffer, "x", 1); /* stays failed: contents with holes would be worse */
    assert_int_equal(buffer.size, size);
    thaw_buffer_put(&buffer, "x", SIZE_MAX);
    assert_true(buffer.failed);
    thaw_buffer_free(&buffer);
    thaw_buffer_put(&buffer, "x", SIZE_MAX); /* overflow of an empty one */
    assert_true(buffer.failed);
    thaw_buffer_free(&buffer);
}

static void test_reader(void **state) {
    (void)state;
    thaw_buffer buffer = {0};
    thaw_buffer_i64(&buffer, INT64_MIN);
    thaw_buffer_f64(&buffer, -0.1);
    thaw_buffer_text(&buffer, "text");
    thaw_buffer_text(&buffer, NULL);
    thaw_buffer_text(&buffer, "");
    thaw_buffer_put(&buffer, "raw", 3);
    thaw_reader reader = {.data = buffer.data, .size = buffer.size};
    assert_true(thaw_reader_i64(&reader) == INT64_MIN);
    assert_true(thaw_reader_f64(&reader) == -0.1);
    char *text = thaw_reader_text(&reader), *none = thaw_reader_text(&reader), *empty = thaw_reader_text(&reader);
    assert_string_equal(text, "text");
    assert_null(none);
    assert_string_equal(empty, "");
    assert_memory_equal(thaw_reader_borrow(&reader, 3), "raw", 3);
    assert_false(reader.failed);
    assert_int_equal(reader.at, reader.size);
    assert_true(thaw_reader_i64(&reader) == 0);
    assert_true(reader.failed);
    thaw_free(text);
    thaw_free(empty);
    thaw_buffer_free(&buffer);
}

static void test_reader_hostile(void **state) {
    (void)state;
    const int64_t lengths[] = {-2, INT64_MIN, INT64_MAX, 9};
    for (int i = 0; i < 4; i++) {
        char bytes[16] = {0};
        memcpy(bytes, &lengths[i], 8);
        thaw_reader reader = {.data = bytes, .size = sizeof bytes};
        assert_null(thaw_reader_text(&reader));
        assert_true(reader.failed);
        assert_null(thaw_reader_borrow(&reader, 0)); /* nothing after a failure */
    }
    thaw_reader reader = {.data = "1234", .size = 4};
    char out[8];
    memset(out, 'x', sizeof out);
    thaw_reader_get(&reader, out, 8);
    assert_memory_equal(out, "\0\0\0\0\0\0\0\0", 8);
    thaw_reader nothing = {0};
    thaw_reader_get(&nothing, out, 0);
    assert_false(nothing.failed);
    assert_true(thaw_reader_f64(&nothing) == 0.0);
    assert_true(nothing.failed);
}

static const char *const NAMES[] = {"learning_rate", "momentum",     "epochs", "epoch_size",
                                    "block5_conv1",  "block5_conv2", NULL,     "fc"};
enum { N_NAMES = sizeof NAMES / sizeof *NAMES };

static void nearest(const char *wrong, const char *expected) {
    assert_string_equal(thaw_nearest(wrong, NAMES, N_NAMES), expected);
}

static void test_nearest(void **state) {
    (void)state;
    nearest("lerning_rate", "'learning_rate'");
    nearest("Learning_Rate", "'learning_rate'");
    nearest("momentun", "'momentum'");
    nearest("block5_conv3", "'block5_conv1' or 'block5_conv2'");
    nearest("lr", "");
    nearest("cf", "'fc'"); /* a swap is one edit */
    nearest("learning", "'learning_rate'"); /* a beginning */
    nearest("entirely_other", "");
    nearest("", "");
    assert_string_equal(thaw_nearest("x", NULL, 0), "");
    char large[3000];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    const char *const many[] = {large, large, large, large};
    assert_true(strlen(thaw_nearest(large, many, 4)) < 512); /* three names of 128 bytes */
}

static void test_glob(void **state) {
    (void)state;
    assert_true(thaw_glob("block[1-4]_*", "block3_conv1"));
    assert_false(thaw_glob("block[1-4]_*", "block5_conv1"));
    assert_true(thaw_glob("*", ""));
    assert_true(thaw_glob("a?c", "abc"));
    assert_false(thaw_glob("a?c", "ac"));
    assert_true(thaw_glob("*_bn", "vgg16/conv1_bn")); /* a slash is a letter */
    assert_false(thaw_glob("conv", "conv1"));
    /* Many stars end in time. */
    alarm(20);
    char text[101] = "";
    memset(text, 'a', 100);
    assert_false(thaw_glob("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", text));
    alarm(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffer),         cmocka_unit_test(test_buffer_failure), cmocka_unit_test(test_reader),
        cmocka_unit_test(test_reader_hostile), cmocka_unit_test(test_nearest),        cmocka_unit_test(test_glob),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
