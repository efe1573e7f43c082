/* The freeze language. */
#include "job_case.h"

#include "job/freeze_spec.h"

static thaw_selector one(const char *text) {
    static thaw_freeze_spec spec;
    thaw_freeze_spec_free(&spec); /* of the call before: the result's text lives until the next */
    if (thaw_freeze_spec_add(&spec, text, 7, "a.yaml:7") != THAW_OK)
        fail_msg("%s", thaw_message());
    assert_int_equal(spec.n, 1);
    assert_int_equal(spec.selectors[0].line, 7);
    return spec.selectors[0];
}

static void free_last(void) {
    one("all"); /* leaves no text behind; the array is freed here */
}

static void test_words(void **state) {
    (void)state;
    assert_int_equal(one("all").kind, THAW_SELECT_ALL);
    assert_int_equal(one(" none ").kind, THAW_SELECT_NONE);
    assert_int_equal(one("file").kind, THAW_SELECT_FILE);
    assert_int_equal(one("keep").kind, THAW_SELECT_KEEP);
    static const struct {
        const char *text;
        thaw_selector_kind kind;
        const char *name;
    } cases[] = {{"before:block5_conv1", THAW_SELECT_BEFORE, "block5_conv1"},
                 {"before: block5_conv1 ", THAW_SELECT_BEFORE, "block5_conv1"},
                 {"block5_conv1", THAW_SELECT_NAME, "block5_conv1"},
                 {"vgg16/block5_conv1", THAW_SELECT_NAME, "vgg16/block5_conv1"},
                 {"all_of_it", THAW_SELECT_NAME, "all_of_it"},
                 {"2a", THAW_SELECT_NAME, "2a"},
                 {"glob:block[1-4]_*", THAW_SELECT_GLOB, "block[1-4]_*"},
                 {"class:BatchNormalization", THAW_SELECT_CLASS, "BatchNormalization"},
                 {"[block1]", THAW_SELECT_NAME, "block1"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        thaw_selector selector = one(cases[i].text);
        assert_int_equal(selector.kind, cases[i].kind);
        assert_string_equal(selector.text, cases[i].name);
    }
    free_last();
}

static void test_numbers(void **state) {
    (void)state;
    assert_int_equal(one("3").kind, THAW_SELECT_INDEX);
    assert_int_equal(one("3").start, 3);
    assert_int_equal(one("-1").start, -1);
    assert_int_equal(one("[5]").start, 5);
    static const struct {
        const char *text;
        bool has_start, has_stop, whole;
        int64_t start, stop, step;
    } cases[] = {{"[:-5]", false, true, false, 0, -5, 1},   {"[0:15]", true, true, false, 0, 15, 1},
                 {"[3:]", true, false, false, 3, 0, 1},     {"[:]", false, false, false, 0, 0, 1},
                 {"[::2]", false, false, false, 0, 0, 2},   {"[ 1 : 9 : 3 ]", true, true, false, 1, 9, 3},
                 {"[-5:-1]", true, true, false, -5, -1, 1}, {"model[:-5]", false, true, true, 0, -5, 1},
                 {"model[2]", true, true, true, 2, 3, 1},   {"model[-1]", true, false, true, -1, 0, 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        thaw_selector selector = one(cases[i].text);
        assert_int_equal(selector.kind, THAW_SELECT_SLICE);
        assert_true(selector.has_start == cases[i].has_start && selector.has_stop == cases[i].has_stop);
        assert_true(selector.whole == cases[i].whole && selector.step == cases[i].step);
        assert_true(!selector.has_start || selector.start == cases[i].start);
        assert_true(!selector.has_stop || selector.stop == cases[i].stop);
    }
    free_last();
}

static void test_lists(void **state) {
    (void)state;
    thaw_freeze_spec spec = {0};
    assert_int_equal(
        thaw_freeze_spec_add(&spec, "[conv1, \"fc2\", 'x', 3, glob:block[1,2]_*, class:Dense]", 0, "--freeze"),
        THAW_OK);
    assert_int_equal(spec.n, 6);
    assert_string_equal(spec.selectors[1].text, "fc2");
    assert_string_equal(spec.selectors[2].text, "x");
    assert_int_equal(spec.selectors[3].kind, THAW_SELECT_INDEX);
    assert_string_equal(spec.selectors[4].text, "block[1,2]_*");
    assert_int_equal(spec.selectors[5].kind, THAW_SELECT_CLASS);
    assert_int_equal(thaw_freeze_spec_add(&spec, "none", 0, "--freeze"), THAW_OK); /* appends */
    assert_int_equal(spec.n, 7);
    thaw_freeze_spec_free(&spec);
    assert_int_equal(spec.n, 0);
    assert_null(spec.selectors);
}

static void test_errors(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"", "empty"},
                                           {"  ", "empty"},
                                           {"before:", "nothing follows 'before:'"},
                                           {"befor:x", "unknown selector 'befor:'|before:NAME"},
                                           {"block*", "pattern|glob:block*"},
                                           {"block[1-2]", "pattern|glob:"},
                                           {":-5", "slice without brackets|\"[:-5]\""},
                                           {"0:15", "\"[0:15]\""},
                                           {"[1:2:0]", "step 0|at least 1"},
                                           {"[1:2:-1]", "step -1"},
                                           {"[1:2:3:4]", "not a slice"},
                                           {"[1-2:3]", "not a slice"},
                                           {"[99999999999999999999:]", "not a slice"},
                                           {"[a, b", "closing bracket"},
                                           {"model[a]", "model[:-5]"},
                                           {"[]", "empty"},
                                           {"[a,,b]", "empty entry"},
                                           {"[a, [b]]", "list inside a list"},
                                           {"[a, 3:5]", "slice without brackets"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        thaw_freeze_spec spec = {0};
        thaw_status status = thaw_freeze_spec_add(&spec, cases[i][0], 0, "a.yaml:7");
        expect_parts(status, NULL, cases[i][1]);
        expect_parts(status, NULL, "a.yaml:7: ");
        thaw_freeze_spec_free(&spec);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
