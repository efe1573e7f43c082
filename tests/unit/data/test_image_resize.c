/* Resizing, mirroring and preprocessing: the bits of TensorFlow and Keras. */
#include "data_case.h"

static void test_resize_as_tensorflow(void **state) {
    (void)state;
    size_t size;
    char *list = (char *)fixture("images.txt", &size), *rest = list, *line;
    thaw_pixels pixels = {0};
    while ((line = strsep(&rest, "\n")) != NULL && *line) {
        char name[64], expected_name[80];
        thaw_tap taps[11 + 9];
        float out[11 * 9 * 3];
        assert_int_equal(sscanf(line, "%63s", name), 1);
        snprintf(expected_name, sizeof expected_name, "%s.f32", name);
        uint8_t *bytes = fixture(name, &size);
        succeed(thaw_pixels_decode(&pixels, bytes, size, name));
        thaw_free(bytes);
        thaw_resize(out, 11, 9, &pixels, taps);
        uint8_t *expected = fixture(expected_name, &size);
        assert_int_equal(size, sizeof out);
        if (memcmp(out, expected, size) != 0)
            fail_msg("%s at 11x9 differs from TensorFlow", name);
        thaw_free(expected);
    }
    thaw_pixels_free(&pixels);
    thaw_free(list);
}

static void test_equal_sizes(void **state) {
    (void)state;
    uint8_t data[2 * 3 * 3];
    float out[2 * 3 * 3];
    thaw_tap taps[5];
    for (int i = 0; i < 18; i++)
        data[i] = (uint8_t)(13 * i);
    thaw_resize(out, 2, 3, &(thaw_pixels){.data = data, .capacity = sizeof data, .height = 2, .width = 3}, taps);
    for (int i = 0; i < 18; i++)
        assert_true(out[i] == (float)data[i]);
}

static void test_flip(void **state) {
    (void)state;
    for (int w = 1; w < 5; w++)
        for (int c = 1; c < 4; c++) {
            float x[2 * 4 * 3];
            for (int i = 0; i < 2 * w * c; i++)
                x[i] = (float)i;
            thaw_flip(x, 2, w, c);
            for (int i = 0; i < 2 * w * c; i++)
                assert_true(x[i] == (float)((i / (w * c) * w + (w - 1 - i / c % w)) * c + i % c));
        }
}

static void test_preprocess_as_keras(void **state) {
    (void)state;
    static const thaw_preprocess modes[] = {THAW_PREPROCESS_CAFFE, THAW_PREPROCESS_TF, THAW_PREPROCESS_TORCH};
    size_t size;
    uint8_t *all = fixture("preprocess.f32", &size);
    const size_t part = 300 * sizeof(float);
    assert_int_equal(size, 4 * part);
    float x[300];
    for (size_t m = 0; m < 3; m++) {
        memcpy(x, all, part);
        thaw_preprocess_apply(x, 100, 3, modes[m]);
        if (memcmp(x, all + (m + 1) * part, part) != 0)
            fail_msg("mode %s differs from Keras", thaw_preprocess_name(modes[m]));
    }
    memcpy(x, all, part);
    thaw_preprocess_apply(x, 100, 3, THAW_PREPROCESS_NONE);
    assert_memory_equal(x, all, part);
    thaw_preprocess_apply(x, 300, 1, THAW_PREPROCESS_RESCALE);
    for (int i = 0; i < 300; i++)
        assert_true(x[i] == ((float *)(void *)all)[i] / 255.0f);
    thaw_free(all);
}

static void test_names(void **state) {
    (void)state;
    thaw_preprocess p;
    for (int i = THAW_PREPROCESS_NONE; i <= (int)THAW_PREPROCESS_RESCALE; i++) {
        assert_true(thaw_preprocess_parse(&p, thaw_preprocess_name((thaw_preprocess)i)));
        assert_int_equal(p, i);
    }
    assert_string_equal(thaw_preprocess_name(THAW_PREPROCESS_CAFFE), "caffe");
    assert_false(thaw_preprocess_parse(&p, "Caffe"));
    assert_false(thaw_preprocess_parse(&p, "auto"));
    assert_false(thaw_preprocess_parse(&p, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize_as_tensorflow), cmocka_unit_test(test_equal_sizes), cmocka_unit_test(test_flip),
        cmocka_unit_test(test_preprocess_as_keras),  cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
