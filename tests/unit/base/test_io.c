/* Files: whole or not at all, limits, special files, failures of every operation in turn. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include "base_case.h"

static void test_read(void **state) {
    void *bytes = (void *)state;
    size_t size = 7;
    put_file(in("seven"), "1234567");
    expect_file(in("seven"), "1234567");
    assert_int_equal(thaw_io_read(&bytes, &size, in("seven"), 7), THAW_OK); /* exactly the limit */
    assert_int_equal(size, 7);
    thaw_free(bytes);
    assert_int_equal(thaw_io_read(&bytes, &size, in("seven"), 6), THAW_DATA);
    expect_message("seven has 7 bytes, more than the 6");
    assert_null(bytes);
    assert_int_equal(size, 0);
    put_file(in("empty"), "");
    expect_file(in("empty"), "");
    assert_int_equal(thaw_io_read(&bytes, &size, in("missing"), 0), THAW_NO_INPUT);
    expect_message("missing does not exist");
    assert_int_equal(thaw_io_read(&bytes, &size, in("seven/below"), 0), THAW_NO_INPUT);
    /* A file whose size is said to be 0. */
    assert_int_equal(thaw_io_read(&bytes, &size, "/proc/self/maps", 0), THAW_OK);
    assert_true(size > 100);
    assert_int_equal(strlen(bytes), size);
    thaw_free(bytes);
    assert_int_equal(thaw_io_read(&bytes, &size, "/proc/self/maps", 100), THAW_DATA);
    /* A hole of a terabyte is refused for its size, not tried. */
    put_file(in("hole"), "x");
    assert_int_equal(truncate(in("hole"), INT64_C(1) << 40), 0);
    assert_int_equal(thaw_io_read(&bytes, &size, in("hole"), 1 << 20), THAW_DATA);
    assert_int_equal(thaw_io_remove(in("hole")), THAW_OK);
}

/* None of these may wait. */
static void test_special_files(void **state) {
    (void)state;
    void *bytes;
    size_t size;
    char **names;
    int n;
    alarm(20);
    assert_int_equal(mkfifo(in("pipe"), 0666), 0);
    assert_int_equal(thaw_io_read(&bytes, &size, in("pipe"), 0), THAW_DATA);
    expect_message("pipe is a pipe, expected a file");
    assert_int_equal(thaw_io_append(in("pipe"), "x", 1), THAW_CANT_CREATE);
    assert_int_equal(thaw_io_list(&names, &n, in("pipe")), THAW_DATA);
    assert_int_equal(thaw_io_truncate(in("pipe"), 0), THAW_OK);
    assert_int_equal(thaw_io_read(&bytes, &size, folder, 0), THAW_DATA);
    expect_message("is a directory, expected a file");
    assert_int_equal(thaw_io_read(&bytes, &size, "/dev/zero", 0), THAW_DATA);
    expect_message("/dev/zero is a device");
    assert_int_equal(symlink(in("loop"), in("loop")), 0);
    assert_int_equal(thaw_io_read(&bytes, &size, in("loop"), 0), THAW_NO_INPUT);
    assert_int_equal(thaw_io_append("/dev/full", "x", 1), THAW_IO);
    expect_message("No space left");
    assert_int_equal(thaw_io_remove(in("pipe")), THAW_OK);
    assert_int_equal(thaw_io_remove(in("loop")), THAW_OK);
    alarm(0);
}

static void test_write(void **state) {
    (void)state;
    assert_int_equal(thaw_io_mkdirs(in("w")), THAW_OK);
    assert_int_equal(thaw_io_write_atomic(in("w/a"), "first", 5), THAW_OK);
    expect_file(in("w/a"), "first");
    assert_int_equal(thaw_io_write_atomic(in("w/a"), "", 0), THAW_OK);
    expect_file(in("w/a"), "");
    const size_t large = 9 << 20;
    char *many = thaw_malloc(large);
    memset(many, 'm', large - 1);
    assert_int_equal(thaw_io_write_atomic(in("w/a"), many, large - 1), THAW_OK);
    expect_file(in("w/a"), many);
    thaw_free(many);
    assert_int_equal(thaw_io_mkdirs(in("w/d")), THAW_OK);
    assert_int_equal(thaw_io_write_atomic(in("w/d"), "x", 1), THAW_CANT_CREATE); /* over a folder */
    expect_message("w/d cannot be replaced");
    assert_int_equal(thaw_io_write_atomic(in("w/none/x"), "x", 1), THAW_CANT_CREATE);
    assert_int_equal(thaw_io_write_atomic(in("w/"), "x", 1), THAW_CANT_CREATE);
    expect_message("does not name a file");
    expect_names(in("w"), "a d");
    /* Left behind by a killed process of this number. */
    char stale[64];
    snprintf(stale, sizeof stale, "w/.a.tmp.%ld", (long)getpid());
    put_file(in(stale), "half");
    assert_int_equal(thaw_io_write_atomic(in("w/a"), "new", 3), THAW_OK);
    expect_file(in("w/a"), "new");
    expect_names(in("w"), "a d");
    /* A name without a folder. */
    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(in("w")), 0);
    assert_int_equal(thaw_io_write_atomic("here", "h", 1), THAW_OK);
    assert_int_equal(chdir(before), 0);
    expect_file(in("w/here"), "h");
}

/* Each operation of a write fails in turn: the old file stays, nothing else is left. */
static void write_with_failures(const char *old, int error, thaw_status expected) {
    char path[64];
    snprintf(path, sizeof path, "%s", in("f/file"));
    bool reached_end = false;
    for (int64_t n = 1; !reached_end; n++) {
        thaw_io_fail_after(n, error);
        const thaw_status status = thaw_io_write_atomic(path, "new contents", 12);
        thaw_io_fail_after(-1, 0);
        reached_end = status == THAW_OK;
        /* folder, file, stat, write, sync, close, rename, sync of the folder */
        assert_int_equal(reached_end, n == 9);
        if (!reached_end)
            assert_int_equal(status, expected);
        /* Only the sync of the folder comes when the new file is there already. */
        const bool replaced = strstr(thaw_message(), "made durable") != NULL;
        if (status != THAW_OK && replaced) {
            expect_file(path, "new contents");
            put_file(path, old ? old : "");
            if (!old)
                unlink(path);
        } else if (status != THAW_OK && old) {
            expect_file(path, old);
        } else if (status != THAW_OK) {
            assert_false(thaw_io_exists(path));
        }
        if (!reached_end) {
            expect_names(in("f"), old ? "file" : "");
            thaw_fail(THAW_OK, "-");
        }
    }
    expect_file(path, "new contents");
}

static void test_write_failures(void **state) {
    (void)state;
    const int errors[] = {ENOSPC, EIO, EACCES, EDQUOT};
    const thaw_status expected[] = {THAW_IO, THAW_IO, THAW_CANT_CREATE, THAW_IO};
    assert_int_equal(thaw_io_mkdirs(in("f")), THAW_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(thaw_io_remove(in("f/file")), THAW_OK);
        write_with_failures(NULL, errors[i], expected[i]);
        put_file(in("f/file"), "old");
        write_with_failures("old", errors[i], expected[i]);
    }
    /* Memory too. */
    put_file(in("f/file"), "old");
    for (int64_t n = 1; n <= 2; n++) {
        thaw_memory_fail_after(n);
        assert_int_equal(thaw_io_write_atomic(in("f/file"), "x", 1), THAW_RESOURCE);
        expect_file(in("f/file"), "old");
    }
    thaw_memory_fail_after(-1);
    expect_names(in("f"), "file");
}

/* A signal interrupts: the operation is repeated, or, for close, counts as done. */
static void test_interrupted(void **state) {
    (void)state;
    for (int64_t n = 1; n <= 12; n++) {
        void *bytes;
        size_t size;
        thaw_io_fail_after(n, EINTR);
        assert_int_equal(thaw_io_write_atomic(in("i"), "abc", 3), THAW_OK);
        thaw_io_fail_after(n, EINTR);
        assert_int_equal(thaw_io_append(in("i"), "d", 1), THAW_OK);
        thaw_io_fail_after(n, EINTR);
        assert_int_equal(thaw_io_read(&bytes, &size, in("i"), 0), THAW_OK);
        assert_string_equal(bytes, "abcd");
        thaw_free(bytes);
        char **names;
        int found;
        thaw_io_fail_after(n, EINTR);
        assert_int_equal(thaw_io_list(&names, &found, folder), THAW_OK);
        for (int i = 0; i < found; i++)
            thaw_free(names[i]);
        thaw_free(names);
        thaw_io_fail_after(n, EINTR);
        assert_int_equal(thaw_io_truncate(in("i"), 2), THAW_OK);
        thaw_io_fail_after(-1, 0);
        expect_file(in("i"), "ab");
    }
}

static void test_read_failures(void **state) {
    (void)state;
    void *bytes;
    size_t size, live = thaw_memory_live();
    put_file(in("r"), "contents");
    int failures = 0;
    for (int64_t n = 1; n < 10; n++) {
        thaw_io_fail_after(n, EIO);
        const thaw_status status = thaw_io_read(&bytes, &size, in("r"), 0);
        failures += status != THAW_OK;
        if (status != THAW_OK) {
            assert_null(bytes);
            expect_message("r cannot be read: Input/output error");
        }
        thaw_free(bytes);
        char **names;
        int found = 0;
        thaw_io_fail_after(n, EIO);
        if (thaw_io_list(&names, &found, folder) != THAW_OK)
            assert_null(names);
        for (int i = 0; i < found; i++)
            thaw_free(names[i]);
        thaw_free(names);
    }
    thaw_io_fail_after(-1, 0);
    assert_int_equal(failures, 4); /* open, stat, two reads */
    for (int64_t n = 1; n < 8; n++) {
        thaw_memory_fail_after(n);
        thaw_io_read(&bytes, &size, in("r"), 0);
        thaw_free(bytes);
        char **names;
        int found = 0;
        thaw_memory_fail_after(n);
        thaw_io_list(&names, &found, folder);
        for (int i = 0; i < found; i++)
            thaw_free(names[i]);
        thaw_free(names);
    }
    thaw_memory_fail_after(-1);
    assert_int_equal(thaw_memory_live(), live);
}

static void test_append(void **state) {
    (void)state;
    assert_int_equal(thaw_io_append(in("log"), "one\n", 4), THAW_OK);
    assert_int_equal(thaw_io_append(in("log"), "two\n", 4), THAW_OK);
    expect_file(in("log"), "one\ntwo\n");
    thaw_io_fail_after(2, ENOSPC); /* open, write */
    assert_int_equal(thaw_io_append(in("log"), "three\n", 6), THAW_IO);
    expect_message("log cannot be written: No space left on device; free space");
    expect_file(in("log"), "one\ntwo\n");
    /* A write that comes half through is taken back. */
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 10;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(thaw_io_append(in("log"), "three\n", 6), THAW_IO);
    assert_int_equal(thaw_io_write_atomic(in("whole"), "0123456789abcdef", 16), THAW_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    expect_file(in("log"), "one\ntwo\n");
    assert_false(thaw_io_exists(in("whole")));
    thaw_io_fail_after(3, EDQUOT); /* close */
    assert_int_equal(thaw_io_append(in("log"), "x", 1), THAW_IO);
    assert_int_equal(thaw_io_append(in("none/log"), "x", 1), THAW_CANT_CREATE);
    assert_int_equal(thaw_io_append(folder, "x", 1), THAW_CANT_CREATE);
}

static void test_truncate(void **state) {
    (void)state;
    put_file(in("t"), "123456");
    assert_int_equal(thaw_io_truncate(in("t"), 9), THAW_OK); /* never longer */
    expect_file(in("t"), "123456");
    assert_int_equal(thaw_io_truncate(in("t"), UINT64_MAX), THAW_OK);
    assert_int_equal(thaw_io_truncate(in("t"), 6), THAW_OK);
    assert_int_equal(thaw_io_size(in("t")), 6);
    assert_int_equal(thaw_io_truncate(in("t"), 4), THAW_OK);
    expect_file(in("t"), "1234");
    assert_int_equal(thaw_io_truncate(in("missing"), 4), THAW_OK);
    assert_false(thaw_io_exists(in("missing")));
    assert_int_equal(thaw_io_size(in("missing")), 0);
    thaw_io_fail_after(2, EIO);
    assert_int_equal(thaw_io_truncate(in("t"), 1), THAW_IO);
    expect_file(in("t"), "1234");
}

static void test_folders(void **state) {
    (void)state;
    assert_int_equal(thaw_io_mkdirs(in("m/a//b/c/")), THAW_OK);
    assert_true(thaw_io_is_dir(in("m/a/b/c")));
    assert_int_equal(thaw_io_mkdirs(in("m/a/b/c")), THAW_OK);
    assert_int_equal(thaw_io_mkdirs("/"), THAW_OK);
    put_file(in("m/file"), "x");
    assert_false(thaw_io_is_dir(in("m/file")));
    assert_int_equal(thaw_io_mkdirs(in("m/file/d")), THAW_CANT_CREATE);
    expect_message("m/file exists and is not a folder");
    thaw_io_fail_after(1, EACCES); /* of a parent that is there */
    assert_int_equal(thaw_io_mkdirs(in("m/n")), THAW_OK);
    for (int64_t n = 1; n < 8; n++) {
        thaw_io_fail_after(n, ENOSPC);
        const thaw_status status = thaw_io_mkdirs(in("m/o"));
        thaw_io_fail_after(-1, 0);
        assert_int_equal(status, thaw_io_is_dir(in("m/o")) ? THAW_OK : THAW_IO);
        assert_int_equal(thaw_io_remove(in("m/o")), THAW_OK);
    }
}

static void test_list(void **state) {
    (void)state;
    /* By code point: digits, capitals, small letters, then letters beyond ASCII. */
    const char *names[] = {"b", "B", "a", "10", "9", "\xc3\xa4", ".hidden", "a.png", "a-1"};
    assert_int_equal(thaw_io_mkdirs(in("l")), THAW_OK);
    expect_names(in("l"), "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        snprintf(path, sizeof path, "l/%s", names[i]);
        put_file(in(path), "");
    }
    expect_names(in("l"), ".hidden 10 9 B a a-1 a.png b \xc3\xa4");
    for (int i = 0; i < 100; i++) {
        char path[64];
        snprintf(path, sizeof path, "l/many-%03d", i);
        put_file(in(path), "");
    }
    char **list;
    int n;
    assert_int_equal(thaw_io_list(&list, &n, in("l")), THAW_OK);
    assert_int_equal(n, 109);
    for (int i = 0; i < n; i++) {
        if (i > 0)
            assert_true(strcmp(list[i - 1], list[i]) < 0);
    }
    for (int i = 0; i < n; i++)
        thaw_free(list[i]);
    thaw_free(list);
    assert_int_equal(thaw_io_list(&list, &n, in("nowhere")), THAW_NO_INPUT);
    assert_null(list);
    assert_int_equal(thaw_io_list(&list, &n, in("l/a")), THAW_DATA);
    expect_message("l/a is a file, expected a folder");
}

static void test_rename_remove(void **state) {
    (void)state;
    put_file(in("from"), "x");
    assert_int_equal(thaw_io_rename(in("from"), in("to")), THAW_OK);
    assert_false(thaw_io_exists(in("from")));
    expect_file(in("to"), "x");
    assert_int_equal(thaw_io_rename(in("from"), in("to")), THAW_CANT_CREATE);
    expect_message("renamed to");
    thaw_io_fail_after(1, EIO);
    assert_int_equal(thaw_io_remove(in("to")), THAW_IO);
    assert_int_equal(thaw_io_remove(in("to")), THAW_OK);
    assert_int_equal(thaw_io_remove(in("to")), THAW_OK);
    assert_int_equal(thaw_io_mkdirs(in("full/x")), THAW_OK);
    assert_int_equal(thaw_io_remove(in("full")), THAW_CANT_CREATE);
}

static void test_sweep(void **state) {
    (void)state;
    assert_int_equal(thaw_io_mkdirs(in("sweep/.a.tmp")), THAW_OK);
    const char *names[] = {".model.h5.tmp.123", ".a.tmp.", ".a.tmp.1x", "b.tmp.7", ".tmp.7", ".x.tmp.7"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        snprintf(path, sizeof path, "sweep/%s", names[i]);
        put_file(in(path), "");
    }
    assert_int_equal(thaw_io_sweep(in("sweep")), THAW_OK);
    expect_names(in("sweep"), ".a.tmp .a.tmp. .a.tmp.1x .tmp.7 b.tmp.7");
    assert_int_equal(thaw_io_sweep(in("nowhere")), THAW_NO_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),          cmocka_unit_test(test_special_files), cmocka_unit_test(test_write),
        cmocka_unit_test(test_write_failures), cmocka_unit_test(test_interrupted),  cmocka_unit_test(test_read_failures),
        cmocka_unit_test(test_append),        cmocka_unit_test(test_truncate),      cmocka_unit_test(test_folders),
        cmocka_unit_test(test_list),          cmocka_unit_test(test_rename_remove), cmocka_unit_test(test_sweep),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
