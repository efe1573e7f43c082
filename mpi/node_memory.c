/* Memory that the ranks of a host have in common: a file in /dev/shm that never has a name, so that nothing stays behind however
 * the job ends. Not MPI_Win_allocate_shared: a full /dev/shm would be found by the first write, which ends the process; here
 * the pages are reserved beforehand. */
#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "comm_mpi.h"
#include "watch.h"

#define LARGE_PAGE ((size_t)2 << 20)
#define MARGIN ((size_t)16 << 20) /* of /dev/shm, left to MPI and others */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1: large pages now */
#endif

struct thaw_common {
    MPI_Comm local;
    char *block;
    size_t bytes; /* asked for */
    int part, parts;
    void *reserved; /* addresses around the block; NULL: the block is this rank's own */
    size_t whole;   /* bytes of the object, whole large pages */
};

static size_t part_begin(const thaw_common *c, int part) {
    const size_t pages = c->whole / LARGE_PAGE;
    return pages * (size_t)part / (size_t)c->parts * LARGE_PAGE;
}

typedef struct offer {
    int fd; /* -1: none */
    int error;
    unsigned long long left; /* bytes of /dev/shm */
    char name[48];
} offer;

/* A new object of c->whole bytes, none of which is reserved yet. */
static void make_object(offer *o, const thaw_common *c) {
    o->fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    o->error = errno;
    snprintf(o->name, sizeof o->name, "/proc/%ld/fd/%d", (long)getpid(), o->fd); /* how others find it */
    struct statvfs place;
    if (o->fd < 0)
        return;
    o->left = fstatvfs(o->fd, &place) == 0 ? (unsigned long long)place.f_bavail * place.f_frsize : 0;
    o->error = o->left < c->whole + MARGIN ? ENOSPC : ftruncate(o->fd, (off_t)c->whole) == 0 ? 0 : errno;
}

/* The object at a large page of this process. */
static int map_object(thaw_common *c, int fd) {
    char *at = mmap(NULL, c->whole + LARGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return errno;
    c->reserved = at;
    at += (LARGE_PAGE - (uintptr_t)at % LARGE_PAGE) % LARGE_PAGE;
    if (mmap(at, c->whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        return errno;
    c->block = at;
    return 0;
}

static thaw_status refuse(const thaw_common *c, const offer *o, int error) {
    if (error == ENOSPC)
        return thaw_fail(THAW_RESOURCE, "/dev/shm has %.1f MB left, %.1f MB are needed", (double)o->left * 1e-6,
                         (double)(c->whole + MARGIN) * 1e-6);
    return thaw_fail(THAW_RESOURCE, "%.1f MB of shared memory cannot be had: %s", (double)c->whole * 1e-6, strerror(error));
}

/* The ranks of a host map one object, or none does. Collective over the host. */
static thaw_status share(thaw_common *c) {
    offer mine = {.fd = -1}, o;
    if (c->part == 0)
        make_object(&mine, c);
    o = mine;
    MPI_Bcast(&o, (int)sizeof o, MPI_BYTE, 0, c->local);
    int error = o.error, worst = 0, fd = mine.fd;
    if (error == 0 && c->part > 0) {
        fd = open(o.name, O_RDWR | O_CLOEXEC);
        error = fd < 0 ? errno : 0;
    }
    MPI_Allreduce(&error, &worst, 1, MPI_INT, MPI_MAX, c->local);
    if (worst == 0) { /* each reserves a part: pages lie near the processors that fill them */
        const size_t begin = part_begin(c, c->part), end = part_begin(c, c->part + 1);
        if (end > begin)
            do
                error = posix_fallocate(fd, (off_t)begin, (off_t)(end - begin));
            while (error == EINTR);
        if (error == 0)
            error = map_object(c, fd);
        MPI_Allreduce(&error, &worst, 1, MPI_INT, MPI_MAX, c->local);
    }
    if (fd >= 0)
        close(fd);
    return worst == 0 ? THAW_OK : refuse(c, &o, worst);
}

static void drop(thaw_common *c) {
    if (c->reserved)
        munmap(c->reserved, c->whole + LARGE_PAGE);
    else
        thaw_free(c->block);
    c->reserved = NULL;
    c->block = NULL;
}

/* A block of this rank alone. */
static thaw_status take_own(thaw_common *c) {
    c->part = 0;
    c->parts = 1;
    c->block = thaw_malloc(c->bytes);
    return c->block ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory: %.1f MB", (double)c->bytes * 1e-6);
}

thaw_status thaw_common_create(thaw_common **out, thaw_comm *comm, size_t bytes, const char *what) {
    *out = NULL;
    thaw_common *c = thaw_calloc(1, sizeof *c);
    THAW_TRY(thaw_comm_agree(comm, c && bytes < SIZE_MAX / 2 ? THAW_OK
                                                             : thaw_fail(THAW_RESOURCE, "not enough memory for %s", what)));
    c->local = thaw_comm_local_world(comm);
    c->bytes = bytes;
    c->whole = (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    c->part = thaw_comm_local_rank(comm);
    c->parts = thaw_comm_local_size(comm);
    bool common = thaw_comm_size(comm) > thaw_comm_hosts(comm) && bytes > 0;
    if (common && thaw_comm_agree(comm, share(c)) != THAW_OK) { /* all hosts do the same */
        if (thaw_comm_rank(comm) == 0)
            thaw_warn("every rank keeps its own %s: %s", what, thaw_message());
        drop(c);
        common = false;
    }
    const thaw_status status = thaw_comm_agree(comm, common ? THAW_OK : take_own(c));
    if (status != THAW_OK) {
        drop(c);
        thaw_free(c);
        return status;
    }
    *out = c;
    return THAW_OK;
}

void thaw_common_free(thaw_common *c) {
    if (!c)
        return;
    drop(c);
    thaw_free(c);
}

void *thaw_common_block(const thaw_common *c) { return c->block; }
int thaw_common_part(const thaw_common *c) { return c->part; }
int thaw_common_parts(const thaw_common *c) { return c->parts; }

bool thaw_common_meet(thaw_common *c, bool mine) {
    int any = mine;
    if (c && c->parts > 1) {
        thaw_watch_wait();
        MPI_Allreduce(MPI_IN_PLACE, &any, 1, MPI_INT, MPI_LOR, c->local);
        thaw_watch_go_on();
    }
    return any != 0;
}

/* As thaw_malloc does for large blocks; here after the pages are there. First each its part, then what others did. */
void thaw_common_enlarge(thaw_common *c) {
    if (!c->reserved)
        return;
    const size_t begin = part_begin(c, c->part), end = part_begin(c, c->part + 1);
    if (end > begin)
        madvise(c->block + begin, end - begin, MADV_COLLAPSE);
    thaw_common_meet(c, false);
    madvise(c->block, c->whole, MADV_COLLAPSE);
}

void thaw_common_seal(thaw_common *c) {
    if (!c || !c->reserved)
        return;
    thaw_common_enlarge(c); /* where all meet */
    mprotect(c->block, c->whole, PROT_READ); /* whoever writes to it is stopped */
}

const thaw_node_window *thaw_comm_window(const thaw_comm *comm, const float *block) {
    const thaw_node_window *w = *thaw_comm_windows(comm);
    while (w && w->own != block)
        w = w->next;
    return w;
}

float *thaw_node_window_block(const thaw_node_window *w, int part) {
    return (float *)(void *)(w->common->block + w->head + (size_t)part * w->stride);
}

bool thaw_node_window_free(thaw_comm *comm, const float *block) {
    for (thaw_node_window **at = thaw_comm_windows(comm); *at; at = &(*at)->next)
        if ((*at)->own == block) {
            thaw_node_window *w = *at;
            *at = w->next;
            thaw_common_free(w->common);
            thaw_free(w);
            return true;
        }
    return false;
}

float *thaw_comm_alloc_common(thaw_comm *comm, size_t floats) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), parts = (size_t)thaw_comm_local_size(comm);
    if (!thaw_comm_even(comm) || floats > SIZE_MAX / 8 / sizeof(float) / parts)
        return thaw_comm_alloc(comm, floats);
    thaw_node_window *w = thaw_calloc(1, sizeof *w);
    thaw_status status = thaw_comm_agree(comm, w ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory for gradients"));
    if (status == THAW_OK) {
        w->head = (parts * THAW_NODE_TALLY + page - 1) / page * page;
        w->stride = (floats * sizeof(float) + page - 1) / page * page;
        status = thaw_common_create(&w->common, comm, w->head + parts * w->stride, "gradients, and sums them by messages");
    }
    if (status != THAW_OK || thaw_common_parts(w->common) == 1) {
        if (w)
            thaw_common_free(w->common);
        thaw_free(w);
        return thaw_comm_alloc(comm, floats);
    }
    w->own = thaw_node_window_block(w, thaw_common_part(w->common));
    w->next = *thaw_comm_windows(comm);
    *thaw_comm_windows(comm) = w;
    return w->own;
}
