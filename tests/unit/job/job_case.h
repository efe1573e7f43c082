/* Shared by the tests of job files: a small valid job, and short ways to parse and to expect a message. */
#ifndef THAW_TEST_JOB_CASE_H
#define THAW_TEST_JOB_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "job/job.h"

/* Line numbers matter to the tests: model 1, base 2, data 3, train 4, training 5, batch_size 6, stages 7. */
static const char *const MINIMAL = "model:\n"
                                   "  base: vgg16\n"
                                   "data:\n"
                                   "  train: photos\n"
                                   "training:\n"
                                   "  batch_size: 8\n"
                                   "stages:\n"
                                   "  - freeze: all\n";

__attribute__((unused)) static thaw_job *parse(const char *text, const char *const *set, int n_set) {
    thaw_job *job = NULL;
    thaw_status status = thaw_job_parse(&job, "/jobs/a.yaml", text, set, n_set);
    if (status != THAW_OK)
        fail_msg("unexpected: %s\n%s", thaw_message(), text);
    assert_non_null(job);
    return job;
}

__attribute__((unused)) static thaw_job *parse_set(const char *option) {
    return parse(MINIMAL, &option, 1);
}

/* Parsing fails as usage error, and the message holds every part ('|' separates parts). */
__attribute__((unused)) static void expect_parts(thaw_status status, thaw_job *job, const char *parts) {
    if (status == THAW_OK)
        fail_msg("accepted; expected a message with: %s", parts);
    assert_int_equal(status, THAW_USAGE);
    assert_null(job);
    char *copy = strdup(parts), *rest = copy, *part;
    while ((part = strsep(&rest, "|")) != NULL)
        if (strstr(thaw_message(), part) == NULL)
            fail_msg("no \"%s\" in the message: %s", part, thaw_message());
    if (strchr(thaw_message(), '\n') != NULL)
        fail_msg("more than one line: %s", thaw_message());
    free(copy);
}

__attribute__((unused)) static void refuse(const char *text, const char *parts) {
    thaw_job *job = NULL;
    thaw_status status = thaw_job_parse(&job, "a.yaml", text, NULL, 0);
    expect_parts(status, job, parts);
}

__attribute__((unused)) static void refuse_set(const char *option, const char *parts) {
    thaw_job *job = NULL;
    thaw_status status = thaw_job_parse(&job, "a.yaml", MINIMAL, &option, 1);
    expect_parts(status, job, parts);
}
#endif
