/* Calls of the system that can fail: where tests inject failures. Private to the files of base/io.h. */
#ifndef THAW_BASE_IO_TRY_H
#define THAW_BASE_IO_TRY_H

#include <errno.h>
#include <stdbool.h>

/* True for the one operation that a test wants to fail; sets errno. */
bool thaw_io_must_fail(void);

/* The call's result, -1 where a test wants it to fail; repeated when a signal interrupted it. */
#define THAW_RETRY(result, call)                         \
    do {                                                 \
        (result) = thaw_io_must_fail() ? -1 : (call);    \
    } while ((result) < 0 && errno == EINTR)
#endif
