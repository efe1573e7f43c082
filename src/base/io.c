/* Reading, writing and listing of files. Each call of the system that can fail goes through a `try_` function or THAW_RETRY,
 * where tests inject failures; it is repeated when a signal interrupted it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/io_try.h"
#include "base/memory.h"

static _Atomic int64_t countdown = -1;
static _Atomic int injected;

void thaw_io_fail_after(int64_t n, int error) {
    atomic_store(&injected, error);
    atomic_store(&countdown, n);
}

bool thaw_io_must_fail(void) {
    int64_t left = atomic_load_explicit(&countdown, memory_order_relaxed);
    while (left >= 0) {
        const int64_t next = left <= 1 ? -1 : left - 1;
        if (!atomic_compare_exchange_weak(&countdown, &left, next))
            continue;
        if (next >= 0)
            return false;
        errno = atomic_load(&injected);
        return true;
    }
    return false;
}

static int try_open(const char *path, int flags) {
    int file;
    THAW_RETRY(file, open(path, flags | O_CLOEXEC | O_NOCTTY, 0666));
    return file;
}

static ssize_t try_read(int file, void *bytes, size_t size) {
    ssize_t got;
    THAW_RETRY(got, read(file, bytes, size < SSIZE_MAX ? size : SSIZE_MAX));
    return got;
}

static int try_stat(int file, struct stat *info) {
    int result;
    THAW_RETRY(result, fstat(file, info));
    return result;
}

static int try_sync(int file) {
    int result;
    THAW_RETRY(result, fsync(file));
    return result;
}

/* The descriptor is gone whatever close says (Linux), so it is never retried; network file systems report a full disk
 * or a quota here. */
static int try_close(int file) {
    const bool fails = thaw_io_must_fail();
    const int error = errno;
    const int result = close(file);
    if (fails)
        errno = error;
    return (fails || result != 0) && errno != EINTR ? -1 : 0;
}

static int try_rename(const char *from, const char *to) {
    int result;
    THAW_RETRY(result, rename(from, to));
    return result;
}

/* Writes all of `bytes`, however the system cuts the writes. */
static int try_write_all(int file, const void *bytes, size_t size) {
    const char *at = bytes;
    while (size > 0) {
        ssize_t put;
        THAW_RETRY(put, write(file, at, size < SSIZE_MAX ? size : SSIZE_MAX));
        if (put == 0)
            errno = EIO;
        if (put <= 0)
            return -1;
        at += put;
        size -= (size_t)put;
    }
    return 0;
}

static thaw_status fail_memory(const char *path) {
    return thaw_fail(THAW_RESOURCE, "%s: not enough memory; use more ranks or a smaller input", path);
}

/* Sets the message of a failed input operation. */
static thaw_status fail_input(const char *path, int error) {
    switch (error) {
    case ENOENT:
        return thaw_fail(THAW_NO_INPUT, "%s does not exist; check the path", path);
    case EACCES:
    case EPERM:
        return thaw_fail(THAW_NO_INPUT, "%s cannot be read: %s; check its permissions", path, strerror(error));
    case ENXIO:
        return thaw_fail(THAW_DATA, "%s is not a regular file, expected a file", path);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return thaw_fail(THAW_RESOURCE, "%s cannot be read: %s; raise the limit (ulimit -n, -v)", path,
                         strerror(error));
    default:
        return thaw_fail(THAW_NO_INPUT, "%s cannot be read: %s; check the path and the file system", path,
                         strerror(error));
    }
}

/* Sets the message of a failed output operation. `verb`: what could not be done to `path`. */
static thaw_status fail_output(const char *path, const char *verb, int error) {
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return thaw_fail(THAW_IO, "%s cannot be %s: %s; free space or choose another output folder", path, verb,
                         strerror(error));
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EEXIST:
    case ENXIO:
    case ELOOP:
    case ENAMETOOLONG:
    case ENOTEMPTY:
    case EXDEV:
    case EINVAL:
        return thaw_fail(THAW_CANT_CREATE, "%s cannot be %s: %s; check that its folder exists and may be written",
                         path, verb, strerror(error));
    default:
        return thaw_fail(THAW_IO, "%s cannot be %s: %s; check the file system", path, verb, strerror(error));
    }
}

static const char *kind_name(mode_t mode) {
    return S_ISDIR(mode) ? "directory" : S_ISFIFO(mode) ? "pipe" : S_ISSOCK(mode) ? "socket" : "device";
}

/* Contents of an open file up to its end, which may lie elsewhere than its size said. */
static thaw_status read_all(char **bytes, size_t *size, int file, size_t expected, const char *path, size_t limit) {
    /* One byte behind the contents is zero; one more lets the last read find the end without growing. */
    size_t capacity = expected + 2, used = 0;
    char *data = thaw_malloc(capacity);
    if (!data)
        return fail_memory(path);
    for (;;) {
        if (used + 1 == capacity) {
            char *more = capacity > SIZE_MAX / 4 ? NULL : thaw_realloc(data, capacity * 2 + 4096);
            if (!more) {
                thaw_free(data);
                return fail_memory(path);
            }
            data = more;
            capacity = capacity * 2 + 4096;
        }
        const ssize_t got = try_read(file, data + used, capacity - 1 - used);
        if (got < 0) {
            const int error = errno;
            thaw_free(data);
            return fail_input(path, error);
        }
        if (got == 0)
            break;
        used += (size_t)got;
        if (limit && used > limit) {
            thaw_free(data);
            return thaw_fail(THAW_DATA, "%s has more than the %zu bytes that are accepted", path, limit);
        }
    }
    data[used] = 0;
    *bytes = data;
    *size = used;
    return THAW_OK;
}

thaw_status thaw_io_read(void **bytes, size_t *size, const char *path, size_t limit) {
    *bytes = NULL;
    *size = 0;
    /* Without O_NONBLOCK, opening a pipe that nobody writes would wait for ever. */
    const int file = try_open(path, O_RDONLY | O_NONBLOCK);
    if (file < 0)
        return fail_input(path, errno);
    thaw_status status = THAW_OK;
    struct stat info;
    char *data = NULL;
    if (try_stat(file, &info) != 0)
        status = fail_input(path, errno);
    else if (!S_ISREG(info.st_mode))
        status = thaw_fail(THAW_DATA, "%s is a %s, expected a file", path, kind_name(info.st_mode));
    else if (limit && (uint64_t)info.st_size > limit)
        status = thaw_fail(THAW_DATA, "%s has %lld bytes, more than the %zu that are accepted", path,
                           (long long)info.st_size, limit);
    else
        status = read_all(&data, size, file, (size_t)info.st_size, path, limit);
    close(file); /* of a file that was only read: nothing can be lost */
    *bytes = data;
    return status;
}

/* Makes the names in a folder durable. Some file systems cannot; they say EINVAL and order renames by themselves. */
static int sync_folder(int folder) { return try_sync(folder) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : -1; }

/* Opens a new file; one left behind by a killed process of the same number is in nobody's use and is replaced. */
static int create_new(const char *path) {
    int file = try_open(path, O_WRONLY | O_CREAT | O_EXCL);
    if (file < 0 && errno == EEXIST && unlink(path) == 0)
        file = try_open(path, O_WRONLY | O_CREAT | O_EXCL);
    return file;
}

/* Network file systems may report failure of a rename that a repeated request has done: the inode tells. */
static bool is_inode(const char *path, const struct stat *wanted) {
    struct stat found;
    return stat(path, &found) == 0 && found.st_dev == wanted->st_dev && found.st_ino == wanted->st_ino;
}

/* The protocol of thaw_io_write_atomic on names that exist in memory. */
static thaw_status write_atomic(const char *path, const char *temporary, int folder, const thaw_piece *pieces, size_t n) {
    const int file = create_new(temporary);
    if (file < 0)
        return fail_output(path, "created", errno);
    struct stat info;
    int error = 0;
    if (try_stat(file, &info) != 0)
        error = errno;
    for (size_t i = 0; i < n && !error; i++)
        if (try_write_all(file, pieces[i].bytes, pieces[i].size) != 0)
            error = errno;
    if (!error && try_sync(file) != 0)
        error = errno; /* never retried: the kernel may have dropped the pages that it could not write */
    if (try_close(file) != 0 && !error)
        error = errno;
    thaw_status status = error ? fail_output(path, "written", error) : THAW_OK;
    if (!error && try_rename(temporary, path) != 0) {
        error = errno;
        if (!is_inode(path, &info))
            status = fail_output(path, "replaced", error);
    }
    if (status != THAW_OK)
        unlink(temporary);
    else if (sync_folder(folder) != 0)
        status = fail_output(path, "made durable", errno);
    return status;
}

thaw_status thaw_io_write_atomic(const char *path, const void *bytes, size_t size) {
    return thaw_io_write_pieces(path, &(thaw_piece){bytes, size}, 1);
}

thaw_status thaw_io_write_pieces(const char *path, const thaw_piece *pieces, size_t n) {
    thaw_status status = THAW_OK;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (!*name)
        return thaw_fail(THAW_CANT_CREATE, "'%s' does not name a file; give a path that ends in a file name", path);
    char *parent = thaw_path_dirname(path);
    char *temporary = thaw_format("%.*s.%s.tmp.%ld", (int)(name - path), path, name, (long)getpid());
    int folder = -1;
    if (!parent || !temporary) {
        status = fail_memory(path);
        goto out;
    }
    /* Opened first, so that a folder that cannot be made durable is known before the old file is gone. */
    folder = try_open(parent, O_RDONLY | O_DIRECTORY);
    if (folder < 0) {
        status = fail_output(path, "created", errno);
        goto out;
    }
    status = write_atomic(path, temporary, folder, pieces, n);
out:
    if (folder >= 0)
        close(folder);
    thaw_free(parent);
    thaw_free(temporary);
    return status;
}

/* ".NAME.tmp.PID", as thaw_io_write_atomic names its files. */
static bool is_temporary(const char *name) {
    const char *mark = strstr(name, ".tmp.");
    if (name[0] != '.' || !mark || mark == name)
        return false;
    const char *pid = mark + strlen(".tmp.");
    return *pid && pid[strspn(pid, "0123456789")] == 0;
}

thaw_status thaw_io_sweep(const char *folder) {
    char **names;
    int n;
    THAW_TRY(thaw_io_list(&names, &n, folder));
    thaw_status status = THAW_OK;
    for (int i = 0; i < n; i++) {
        if (status == THAW_OK && is_temporary(names[i])) {
            char *path = thaw_path_join(folder, names[i]);
            status = path ? thaw_io_remove(path) : fail_memory(folder);
            thaw_free(path);
        }
        thaw_free(names[i]);
    }
    thaw_free(names);
    return status;
}

thaw_status thaw_io_append(const char *path, const void *bytes, size_t size) {
    const int file = try_open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK);
    if (file < 0)
        return fail_output(path, "opened for writing", errno);
    off_t before = lseek(file, 0, SEEK_END);
    int error = 0;
    if (try_write_all(file, bytes, size) != 0) {
        error = errno;
        /* Half a line would spoil a table: it is taken back where the file allows; what failed first is what is said. */
        if (before >= 0 && ftruncate(file, before) != 0)
            before = -1;
    }
    if (try_close(file) != 0 && !error)
        error = errno;
    return error ? fail_output(path, "written", error) : THAW_OK;
}

thaw_status thaw_io_truncate(const char *path, uint64_t size) {
    struct stat info;
    int result;
    THAW_RETRY(result, stat(path, &info));
    if (result != 0)
        return errno == ENOENT ? THAW_OK : fail_output(path, "cut", errno);
    if ((uint64_t)info.st_size <= size)
        return THAW_OK;
    THAW_RETRY(result, truncate(path, (off_t)size));
    return result == 0 ? THAW_OK : fail_output(path, "cut", errno);
}

thaw_status thaw_io_mkdirs(const char *path) {
    char *prefix = thaw_strdup(path);
    if (!prefix)
        return fail_memory(path);
    thaw_status status = THAW_OK;
    for (char *at = prefix; *at && status == THAW_OK;) {
        at += strspn(at, "/");
        at += strcspn(at, "/");
        const char kept = *at;
        *at = 0;
        int result;
        THAW_RETRY(result, mkdir(prefix, 0777));
        /* Existing folders may also answer EACCES or EROFS. */
        if (result != 0 && !thaw_io_is_dir(prefix))
            status = errno != EEXIST ? fail_output(prefix, "created", errno)
                                     : thaw_fail(THAW_CANT_CREATE,
                                                 "%s exists and is not a folder; choose another output folder or move it",
                                                 prefix);
        *at = kept;
    }
    thaw_free(prefix);
    return status;
}

thaw_status thaw_io_rename(const char *from, const char *to) {
    if (try_rename(from, to) == 0)
        return THAW_OK;
    const int error = errno; /* before the next call changes it */
    char *verb = thaw_format("renamed to %s", to);
    const thaw_status status = fail_output(from, verb ? verb : "renamed", error);
    thaw_free(verb);
    return status;
}

thaw_status thaw_io_remove(const char *path) {
    int result;
    THAW_RETRY(result, remove(path));
    return result == 0 || errno == ENOENT ? THAW_OK : fail_output(path, "removed", errno);
}

bool thaw_io_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool thaw_io_is_dir(const char *path) {
    const int kept = errno;
    struct stat info;
    const bool is = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    errno = kept;
    return is;
}

uint64_t thaw_io_size(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && info.st_size > 0 ? (uint64_t)info.st_size : 0;
}

int64_t thaw_io_modified(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 ? (int64_t)info.st_mtim.tv_sec * 1000000000 + (int64_t)info.st_mtim.tv_nsec : 0;
}

/* Bytewise order is the order of code points in UTF-8, and the same in every locale. */
static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Next entry of a folder; NULL with errno 0 at its end. */
static struct dirent *try_readdir(DIR *folder) {
    struct dirent *entry;
    do {
        errno = 0;
        entry = thaw_io_must_fail() ? NULL : readdir(folder);
    } while (!entry && errno == EINTR);
    return entry;
}

static void free_names(char **names, int n) {
    for (int i = 0; i < n; i++)
        thaw_free(names[i]);
    thaw_free(names);
}

/* Appends a copy of `name`, growing the array by doubling. */
static bool append_name(char ***names, int *n, int *capacity, const char *name) {
    if (*n == *capacity) {
        if (*capacity > INT_MAX / 2)
            return false;
        char **more = thaw_realloc(*names, (size_t)*capacity * 2 * sizeof *more);
        if (!more)
            return false;
        *names = more;
        *capacity *= 2;
    }
    (*names)[*n] = thaw_strdup(name);
    if (!(*names)[*n])
        return false;
    (*n)++;
    return true;
}

thaw_status thaw_io_list(char ***names, int *n, const char *path) {
    *names = NULL;
    *n = 0;
    const int file = try_open(path, O_RDONLY | O_DIRECTORY);
    if (file < 0) {
        const int error = errno;
        return error == ENOTDIR && thaw_io_exists(path) ? thaw_fail(THAW_DATA, "%s is a file, expected a folder", path)
                                                        : fail_input(path, error);
    }
    DIR *folder = fdopendir(file);
    if (!folder) {
        const int error = errno;
        close(file);
        return fail_input(path, error);
    }
    int capacity = 16, found = 0;
    char **list = thaw_calloc((size_t)capacity, sizeof *list);
    thaw_status status = list ? THAW_OK : fail_memory(path);
    while (status == THAW_OK) {
        const struct dirent *entry = try_readdir(folder);
        if (!entry) {
            if (errno)
                status = fail_input(path, errno);
            break;
        }
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        if (!append_name(&list, &found, &capacity, name))
            status = fail_memory(path);
    }
    closedir(folder);
    if (status != THAW_OK) {
        free_names(list, found);
        return status;
    }
    qsort(list, (size_t)found, sizeof *list, compare_names);
    *names = list;
    *n = found;
    return THAW_OK;
}
