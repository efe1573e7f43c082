/* All file input and output of thaw. Tests can make the n-th operation fail. */
#ifndef THAW_BASE_IO_H
#define THAW_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "thaw/status.h"

/* Whole file into memory. Refuses what is not a regular file (THAW_DATA), missing files (THAW_NO_INPUT) and files above
 * `limit` bytes (THAW_DATA; 0: no limit). One zero byte is added behind the contents. [out] bytes: thaw_free. */
thaw_status thaw_io_read(void **bytes, size_t *size, const char *path, size_t limit);
/* Writes a file whole or not at all: temporary name in the same folder, checked full writes, fsync, close, rename, fsync
 * of the folder. On failure the old file stays and nothing half-written is left; only if the last step fails, syncing
 * the folder, the new file is there, whole, but a loss of power may undo it. THAW_CANT_CREATE / THAW_IO. */
thaw_status thaw_io_write_atomic(const char *path, const void *bytes, size_t size);
/* Removes what writers of thaw_io_write_atomic left in a folder when they were killed. Only where no writer is at work. */
thaw_status thaw_io_sweep(const char *folder);
/* Appends bytes to a file (created if missing) and flushes. For logs. THAW_CANT_CREATE / THAW_IO. */
thaw_status thaw_io_append(const char *path, const void *bytes, size_t size);
/* Cuts a file to `size` bytes if it is longer (missing is fine). */
thaw_status thaw_io_truncate(const char *path, uint64_t size);
thaw_status thaw_io_mkdirs(const char *path); /* with parents; existing is fine. THAW_CANT_CREATE */
thaw_status thaw_io_rename(const char *from, const char *to);
thaw_status thaw_io_remove(const char *path); /* missing is fine */
bool thaw_io_exists(const char *path);
bool thaw_io_is_dir(const char *path);
uint64_t thaw_io_size(const char *path); /* 0 if missing */
/* Names in a folder, sorted by code point, without . and ..; [out] names: each and the array by thaw_free. */
thaw_status thaw_io_list(char ***names, int *n, const char *path);
/* Path arithmetic. Results by thaw_free. */
char *thaw_path_join(const char *folder, const char *name); /* absolute `name` stays */
char *thaw_path_dirname(const char *path);
/* Without links, . and .. where the path exists; else a copy. */
char *thaw_path_real(const char *path);
/* $VAR, ${VAR} and a leading ~ expanded; an unset variable is THAW_USAGE. */
thaw_status thaw_path_expand(char **out, const char *path);
/* The n-th operation of the system from now fails, once (1 or 0: the next), with `error` (errno value); n negative:
 * never. For tests. */
void thaw_io_fail_after(int64_t n, int error);
#endif
