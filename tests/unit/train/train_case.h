/* Shared by the tests of training: cmocka, a temporary folder, text of a file, caught warnings. */
#ifndef THAW_TEST_TRAIN_CASE_H
#define THAW_TEST_TRAIN_CASE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "thaw/status.h"

#define assert_ok(expr)                                       \
    do {                                                      \
        thaw_status ok_status_ = (expr);                      \
        if (ok_status_ != THAW_OK)                            \
            fail_msg("%s: %d: %s", #expr, ok_status_, thaw_message()); \
    } while (0)
#define assert_says(text, part)                                              \
    do {                                                                     \
        if (!strstr(text, part))                                             \
            fail_msg("\"%s\" is not in \"%s\"", part, text);                 \
    } while (0)
#define assert_near(a, b, tolerance)                                                        \
    do {                                                                                    \
        double near_a_ = (a), near_b_ = (b);                                                \
        if (!(fabs(near_a_ - near_b_) <= (tolerance)))                                      \
            fail_msg("%s = %.9g, expected %s = %.9g", #a, near_a_, #b, near_b_);            \
    } while (0)

/* A new empty folder, in memory if the machine has such a place; its name stays valid until the next call. */
__attribute__((unused)) static const char *temporary_folder(void) {
    static char path[64];
    snprintf(path, sizeof path, "%s/thaw-train-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

__attribute__((unused)) static void remove_folder(const char *path) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

/* Contents of a file of a folder, as text; thaw_free. */
__attribute__((unused, noinline)) static char *file_text(const char *folder, const char *name) {
    void *bytes = NULL;
    size_t size;
    char *path = thaw_path_join(folder, name);
    assert_ok(thaw_io_read(&bytes, &size, path, 0));
    thaw_free(path);
    return bytes;
}

/* Warnings since the last catch_warnings, one a line. */
static char caught[16384];
__attribute__((unused)) static int n_caught;

__attribute__((unused)) static void keep_line(thaw_log_level level, const char *line, void *payload) {
    (void)payload;
    if (level != THAW_LOG_WARNING)
        return;
    size_t at = strlen(caught);
    snprintf(caught + at, sizeof caught - at, "%s\n", line);
    n_caught++;
}

__attribute__((unused)) static void catch_warnings(void) {
    caught[0] = '\0';
    n_caught = 0;
    thaw_log_set(keep_line, NULL);
}
#endif
