/* Files that are read and written in place (base/io.h). Nothing is mapped: a disk that fails, or a file that somebody cuts,
 * is an error of a call and no signal. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/io_try.h"
#include "base/memory.h"

struct thaw_file {
    int descriptor;
    char *name;
};

static thaw_status no_memory(const char *name) { return thaw_fail(THAW_RESOURCE, "%s: not enough memory", name); }

static thaw_status fail_file(const char *name, const char *verb, int error) {
    thaw_status status = error == ENOSPC || error == EDQUOT || error == EIO ? THAW_IO : THAW_CANT_CREATE;
    return thaw_fail(status, "%s cannot be %s: %s", name, verb, strerror(error));
}

/* Takes over a descriptor (-1: opening failed with errno). */
static thaw_status take(thaw_file **out, int descriptor, const char *name) {
    *out = NULL;
    if (descriptor < 0)
        return fail_file(name, "opened", errno);
    thaw_file *file = thaw_malloc(sizeof *file);
    char *copy = thaw_strdup(name);
    if (!file || !copy) {
        close(descriptor);
        thaw_free(file);
        thaw_free(copy);
        return no_memory(name);
    }
    *file = (thaw_file){descriptor, copy};
    *out = file;
    return THAW_OK;
}

/* A regular file of this user, of `size` bytes that the disk has. */
static thaw_status prepare(const thaw_file *file, uint64_t size) {
    struct stat info;
    int result;
    THAW_RETRY(result, fstat(file->descriptor, &info));
    if (result != 0)
        return fail_file(file->name, "examined", errno);
    if (!S_ISREG(info.st_mode) || info.st_uid != geteuid())
        return thaw_fail(THAW_CANT_CREATE, "%s is not a file of this user", file->name);
    if (size > INT64_MAX)
        return fail_file(file->name, "made that large", EFBIG);
    if ((uint64_t)info.st_size != size)
        THAW_RETRY(result, ftruncate(file->descriptor, (off_t)size));
    if (result != 0)
        return fail_file(file->name, "made that large", errno);
    THAW_RETRY(result, size ? fallocate(file->descriptor, 0, 0, (off_t)size) : 0);
    /* Without the call, a full disk is met later, when it is written to. */
    if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
        return fail_file(file->name, "made that large", errno);
    return THAW_OK;
}

thaw_status thaw_file_open(thaw_file **out, const char *path, uint64_t size) {
    int descriptor;
    /* Not through a link: a folder for temporary files is everybody's. */
    THAW_RETRY(descriptor, open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600));
    THAW_TRY(take(out, descriptor, path));
    thaw_status status = prepare(*out, size);
    if (status != THAW_OK) {
        thaw_file_close(*out);
        *out = NULL;
    }
    return status;
}

thaw_status thaw_file_view(thaw_file **out, const char *path) {
    int descriptor, result;
    struct stat info;
    *out = NULL;
    THAW_RETRY(descriptor, open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (descriptor < 0)
        return thaw_fail(THAW_NO_INPUT, "%s cannot be opened: %s", path, strerror(errno));
    THAW_TRY(take(out, descriptor, path));
    THAW_RETRY(result, fstat(descriptor, &info));
    if (result == 0 && S_ISREG(info.st_mode))
        return THAW_OK;
    thaw_file_close(*out);
    *out = NULL;
    return thaw_fail(THAW_DATA, "%s is not a regular file", path);
}

thaw_status thaw_file_memory(thaw_file **out, const char *name, uint64_t size) {
    int descriptor, result = 0;
    THAW_RETRY(descriptor, memfd_create(name, MFD_CLOEXEC));
    THAW_TRY(take(out, descriptor, name));
    if (size > INT64_MAX)
        errno = EFBIG;
    THAW_RETRY(result, size > INT64_MAX ? -1 : ftruncate((*out)->descriptor, (off_t)size));
    if (result == 0)
        return THAW_OK;
    thaw_status status = fail_file(name, "made that large", errno);
    thaw_file_close(*out);
    *out = NULL;
    return status;
}

thaw_status thaw_file_attach(thaw_file **out, int64_t process, int64_t number) {
    int descriptor;
    char *path = thaw_format("/proc/%lld/fd/%lld", (long long)process, (long long)number);
    *out = NULL;
    if (!path)
        return no_memory("memory of another rank");
    THAW_RETRY(descriptor, open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    thaw_status status = take(out, descriptor, path);
    thaw_free(path);
    return status;
}

void thaw_file_share(const thaw_file *file, int64_t *process, int64_t *number) {
    *process = getpid();
    *number = file->descriptor;
}

const char *thaw_file_name(const thaw_file *file) { return file->name; }

void thaw_file_close(thaw_file *file) {
    if (!file)
        return;
    close(file->descriptor); /* what was written is read back and checked, never taken on trust */
    thaw_free(file->name);
    thaw_free(file);
}

thaw_status thaw_file_read(const thaw_file *file, void *bytes, size_t size, uint64_t offset) {
    char *at = bytes;
    while (size > 0) {
        ssize_t got;
        THAW_RETRY(got, pread(file->descriptor, at, size < SSIZE_MAX ? size : SSIZE_MAX, (off_t)offset));
        if (got < 0)
            return thaw_fail(THAW_IO, "%s cannot be read: %s; check the file system", file->name, strerror(errno));
        if (got == 0)
            return thaw_fail(THAW_IO, "%s ends at byte %llu: it was cut while it was in use", file->name,
                             (unsigned long long)offset);
        at += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return THAW_OK;
}

thaw_status thaw_file_write(const thaw_file *file, const void *bytes, size_t size, uint64_t offset) {
    const char *at = bytes;
    while (size > 0) {
        ssize_t put;
        THAW_RETRY(put, pwrite(file->descriptor, at, size < SSIZE_MAX ? size : SSIZE_MAX, (off_t)offset));
        if (put <= 0)
            return fail_file(file->name, "written", put < 0 ? errno : EIO);
        at += put;
        offset += (uint64_t)put;
        size -= (size_t)put;
    }
    return THAW_OK;
}
