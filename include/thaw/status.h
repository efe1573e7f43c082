/* Status codes, exit statuses and the one message of a failure. */
#ifndef THAW_STATUS_H
#define THAW_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* The error list: name, exit status, meaning. A status is its exit status, so nothing has to be mapped. */
#define THAW_STATUS_LIST(X)                                                     \
    X(OK, 0, "done")                                                            \
    X(USAGE, 64, "command line or job file is wrong")                           \
    X(DATA, 65, "bad data: image, HDF5 or JSON content")                        \
    X(NO_INPUT, 66, "an input is missing")                                      \
    X(RESOURCE, 69, "not enough memory or another resource")                    \
    X(INTERNAL, 70, "internal error, a bug in thaw")                            \
    X(SYSTEM, 71, "MPI or operating system error")                              \
    X(CANT_CREATE, 73, "an output cannot be created")                           \
    X(IO, 74, "input/output error while writing")                               \
    X(STOPPED, 75, "stopped on request with a checkpoint: run again to resume") \
    X(HUNG, 76, "a rank hung or died")                                          \
    X(DIVERGED, 77, "training diverged: a non-finite loss or gradient")         \
    X(MISMATCH, 78, "resume does not match the job or the data")                \
    X(REPLICAS, 79, "ranks hold different weights, or a frozen tensor moved")

typedef enum thaw_status {
#define THAW_STATUS_ENUM(name, code, meaning) THAW_##name = code,
    THAW_STATUS_LIST(THAW_STATUS_ENUM)
#undef THAW_STATUS_ENUM
} thaw_status;

/* Sets the calling thread's message (printf form; one line: what, where, what was found, what to do) and returns
 * `status`. Called once, where the failure happens; callers pass the status upward unchanged. Not collective. */
thaw_status thaw_fail(thaw_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The message of the calling thread's last failure, "" if none. Borrowed; valid until the next thaw_fail. */
const char *thaw_message(void);

/* Meaning of a status, for `thaw help exit-codes`. Borrowed, static. */
const char *thaw_status_meaning(thaw_status status);

/* Returns the failure of `expr` to the caller, if it fails. */
#define THAW_TRY(expr)                          \
    do {                                        \
        thaw_status thaw_try_status_ = (expr);  \
        if (thaw_try_status_ != THAW_OK)        \
            return thaw_try_status_;            \
    } while (0)

/* Stores the status of `expr` in a local `status` and jumps to `out` (cleanup) if it fails. */
#define THAW_GOTO(expr)               \
    do {                              \
        status = (expr);              \
        if (status != THAW_OK)        \
            goto out;                 \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
