/* Path arithmetic and expansion. */
#include "base_case.h"

static void expect(char *path, const char *expected) {
    assert_non_null(path);
    assert_string_equal(path, expected);
    thaw_free(path);
}

static void test_join(void **state) {
    (void)state;
    expect(thaw_path_join("a", "b"), "a/b");
    expect(thaw_path_join("a/", "b"), "a/b");
    expect(thaw_path_join("/", "b"), "/b");
    expect(thaw_path_join("", "b"), "b");
    expect(thaw_path_join("a", "/b"), "/b");
}

static void test_dirname(void **state) {
    (void)state;
    expect(thaw_path_dirname("a/b"), "a");
    expect(thaw_path_dirname("a/b/"), "a");
    expect(thaw_path_dirname("a//b//"), "a");
    expect(thaw_path_dirname("a"), ".");
    expect(thaw_path_dirname(""), ".");
    expect(thaw_path_dirname("/"), "/");
    expect(thaw_path_dirname("/a"), "/");
    expect(thaw_path_dirname("//a"), "/");
    expect(thaw_path_dirname("/a/b"), "/a");
}

static void expand(const char *path, const char *expected) {
    char *out;
    assert_int_equal(thaw_path_expand(&out, path), THAW_OK);
    expect(out, expected);
}

static void refuse(const char *path, const char *part) {
    char *out = (char *)path;
    assert_int_equal(thaw_path_expand(&out, path), THAW_USAGE);
    assert_null(out);
    expect_message(part);
}

static void test_expand(void **state) {
    (void)state;
    setenv("THAW_A", "alpha", 1);
    setenv("THAW_EMPTY", "", 1);
    setenv("HOME", "/home/x", 1);
    unsetenv("THAW_NONE");
    expand("", "");
    expand("a/b", "a/b");
    expand("$THAW_A/b", "alpha/b");
    expand("x/${THAW_A}b", "x/alphab");
    expand("$THAW_A$THAW_A", "alphaalpha");
    expand("$THAW_EMPTY", "");
    expand("~", "/home/x");
    expand("~/d", "/home/x/d");
    expand("a~", "a~");
    expand("5$", "5$");
    expand("$5/$$", "$5/$$"); /* no names */
    setenv("THAW_A", "$HOME", 1);
    expand("$THAW_A", "$HOME"); /* values are taken as they are */
    refuse("$THAW_NONE/x", "variable THAW_NONE is not set");
    refuse("${THAW_NONE}", "variable THAW_NONE is not set");
    refuse("${THAW_A", "write ${NAME}");
    refuse("${}", "write ${NAME}");
    refuse("~user/x", "only ~ alone");
    unsetenv("HOME");
    refuse("~/x", "HOME is not set");
    char *out;
    for (int64_t n = 1; n <= 2; n++) {
        thaw_memory_fail_after(n);
        assert_int_equal(thaw_path_expand(&out, "a/$THAW_A"), THAW_RESOURCE);
        assert_null(out);
    }
    thaw_memory_fail_after(-1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_dirname),
        cmocka_unit_test(test_expand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
