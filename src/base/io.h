/* All file input and output of thaw. Tests can make the n-th operation fail. */
#ifndef THAW_BASE_IO_H
#define THAW_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/piece.h"
#include "thaw/status.h"

/* Whole file into memory. Refuses what is not a regular file (THAW_DATA), missing files (THAW_NO_INPUT) and files above
 * `limit` bytes (THAW_DATA; 0: no limit). One zero byte is added behind the contents. [out] bytes: thaw_free. */
thaw_status thaw_io_read(void **bytes, size_t *size, const char *path, size_t limit);
/* Writes a file whole or not at all: temporary name in the same folder, checked full writes, fsync, close, rename, fsync
 * of the folder. On failure the old file stays and nothing half-written is left; only if the last step fails, syncing
 * the folder, the new file is there, whole, but a loss of power may undo it. THAW_CANT_CREATE / THAW_IO. */
thaw_status thaw_io_write_atomic(const char *path, const void *bytes, size_t size);
/* The same for bytes that lie in several places. */
thaw_status thaw_io_write_pieces(const char *path, const thaw_piece *pieces, size_t n);
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
/* When a file was last written, in nanoseconds since 1970; 0 if missing. */
int64_t thaw_io_modified(const char *path);

/* A file that is read and written in place, by any thread. */
typedef struct thaw_file thaw_file;
/* Opens or creates (readable by this user alone) and sets the size; new bytes are zero, and the disk has room for them
 * where the file system can say so. Refuses links and files of other users. THAW_CANT_CREATE / THAW_IO (full). */
thaw_status thaw_file_open(thaw_file **out, const char *path, uint64_t size);
/* Opens a regular file to be read alone. THAW_NO_INPUT, THAW_DATA (not a regular file). */
thaw_status thaw_file_view(thaw_file **out, const char *path);
/* The same in memory, without a name in any folder: it is gone with the last process that holds it, however that ends. */
thaw_status thaw_file_memory(thaw_file **out, const char *name, uint64_t size);
/* What another process of this host and user needs to hold the same file, and how it does. */
void thaw_file_share(const thaw_file *file, int64_t *process, int64_t *number);
thaw_status thaw_file_attach(thaw_file **out, int64_t process, int64_t number);
const char *thaw_file_name(const thaw_file *file);
void thaw_file_close(thaw_file *file); /* NULL is accepted */
/* Exactly `size` bytes at `offset`. THAW_IO (an end of file too), THAW_CANT_CREATE. */
thaw_status thaw_file_read(const thaw_file *file, void *bytes, size_t size, uint64_t offset);
thaw_status thaw_file_write(const thaw_file *file, const void *bytes, size_t size, uint64_t offset);

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
