/* Shared by the tests of src/base: cmocka, a folder of its own for each program, files in it. */
#ifndef THAW_TEST_BASE_CASE_H
#define THAW_TEST_BASE_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/memory.h"

static char folder[] = "/tmp/thaw-unit-XXXXXX";

__attribute__((unused)) static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

__attribute__((unused)) static int remove_folder(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

/* A path below the folder; valid until the fourth next call. */
__attribute__((unused)) static const char *in(const char *name) {
    static char paths[4][4096];
    static int at;
    at = (at + 1) % 4;
    snprintf(paths[at], sizeof paths[at], "%s/%s", folder, name);
    return paths[at];
}

__attribute__((unused)) static void put_file(const char *path, const char *text) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

__attribute__((unused)) static void expect_file(const char *path, const char *text) {
    void *bytes;
    size_t size;
    assert_int_equal(thaw_io_read(&bytes, &size, path, 0), THAW_OK);
    assert_string_equal(bytes, text);
    assert_int_equal(size, strlen(text));
    thaw_free(bytes);
}

/* Names in a folder as "a b c". */
__attribute__((unused)) static void expect_names(const char *path, const char *expected) {
    char **names, text[4096] = "";
    int n;
    assert_int_equal(thaw_io_list(&names, &n, path), THAW_OK);
    for (int i = 0; i < n; i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? " " : "", names[i]);
        thaw_free(names[i]);
    }
    thaw_free(names);
    assert_string_equal(text, expected);
}

/* The last message has the part, and is one line. */
__attribute__((unused)) static void expect_message(const char *part) {
    if (!strstr(thaw_message(), part) || strchr(thaw_message(), '\n'))
        fail_msg("no \"%s\" in the message: %s", part, thaw_message());
}
#endif
