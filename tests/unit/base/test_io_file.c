/* Files that are read and written in place. */
#include <errno.h>
#include <sys/wait.h>

#include "base_case.h"

static void test_in_place(void **state) {
    (void)state;
    thaw_file *file;
    char bytes[8] = "";
    assert_int_equal(thaw_file_open(&file, in("a"), 100), THAW_OK);
    assert_string_equal(thaw_file_name(file), in("a"));
    assert_int_equal(thaw_io_size(in("a")), 100);
    assert_int_equal(thaw_file_write(file, "hello", 5, 95), THAW_OK);
    assert_int_equal(thaw_file_read(file, bytes, 5, 95), THAW_OK);
    assert_string_equal(bytes, "hello");
    assert_int_equal(thaw_file_read(file, bytes, 6, 95), THAW_IO);
    expect_message("ends at byte 100");
    thaw_file_close(file);
    assert_int_equal(thaw_file_open(&file, in("a"), 98), THAW_OK); /* cut, and what is left stays */
    assert_int_equal(thaw_file_read(file, bytes, 3, 95), THAW_OK);
    assert_memory_equal(bytes, "hel", 3);
    thaw_file_close(file);
    thaw_file_close(NULL);
    assert_true(thaw_io_modified(in("a")) > INT64_C(1600000000) * 1000000000);
    assert_int_equal(thaw_io_modified(in("none")), 0);
}

static void test_refused(void **state) {
    (void)state;
    thaw_file *file;
    assert_int_equal(thaw_file_open(&file, in("no/folder"), 1), THAW_CANT_CREATE);
    assert_int_equal(symlink(in("a"), in("link")), 0);
    assert_int_equal(thaw_file_open(&file, in("link"), 1), THAW_CANT_CREATE);
    assert_int_equal(mkfifo(in("pipe"), 0600), 0);
    assert_int_equal(thaw_file_open(&file, in("pipe"), 1), THAW_CANT_CREATE);
    expect_message("not a file of this user");
    assert_int_equal(thaw_file_open(&file, folder, 1), THAW_CANT_CREATE);
    assert_int_equal(thaw_file_open(&file, in("huge"), UINT64_MAX), THAW_CANT_CREATE);
    assert_null(file);
    if (geteuid() == 0) {
        put_file(in("other"), "x");
        assert_int_equal(chown(in("other"), 12345, 12345), 0);
        assert_int_equal(thaw_file_open(&file, in("other"), 1), THAW_CANT_CREATE);
        expect_message("not a file of this user");
    }
}

/* Another process holds the same memory, also when the first one has closed it. */
static void test_shared_memory(void **state) {
    (void)state;
    thaw_file *file, *same;
    int64_t process, number;
    char bytes[6] = "";
    assert_int_equal(thaw_file_memory(&file, "test", 1000), THAW_OK);
    thaw_file_share(file, &process, &number);
    assert_int_equal(thaw_file_write(file, "first", 5, 0), THAW_OK);
    pid_t child = fork();
    if (child == 0) {
        bool good = thaw_file_attach(&same, process, number) == THAW_OK && thaw_file_read(same, bytes, 5, 0) == THAW_OK &&
                    strcmp(bytes, "first") == 0 && thaw_file_write(same, "other", 5, 995) == THAW_OK;
        _exit(!good);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(thaw_file_attach(&same, process, number), THAW_OK);
    thaw_file_close(file);
    assert_int_equal(thaw_file_read(same, bytes, 5, 995), THAW_OK);
    assert_string_equal(bytes, "other");
    thaw_file_close(same);
    assert_int_equal(thaw_file_attach(&same, process, 99999), THAW_CANT_CREATE);
}

static void test_failures(void **state) {
    (void)state;
    thaw_file *file;
    size_t live = thaw_memory_live();
    int failures = 0;
    for (int n = 1; n <= 6; n++) {
        thaw_io_fail_after(n, n % 2 ? ENOSPC : EINTR); /* the second kind is tried again */
        thaw_status status = thaw_file_open(&file, in("b"), 10 + (uint64_t)n);
        if (status == THAW_OK) {
            status = thaw_file_write(file, "abc", 3, 0);
            thaw_file_close(file);
        }
        failures += status == THAW_IO;
        thaw_io_fail_after(-1, 0);
        assert_int_equal(thaw_memory_live(), live);
    }
    assert_int_equal(failures, 3); /* open, ftruncate, write; fallocate between them was interrupted */
    for (int n = 1; n <= 2; n++) {
        thaw_memory_fail_after(n);
        assert_int_equal(thaw_file_open(&file, in("b"), 10), THAW_RESOURCE);
        assert_null(file);
    }
    thaw_memory_fail_after(-1);
    assert_int_equal(thaw_memory_live(), live);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_place), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_shared_memory), cmocka_unit_test(test_failures)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
