/* What is looked at before a command begins: whether ranks fit each other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "app.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernels/kernels.h"

enum { WORDS_BYTES = 192, HOST_BYTES = 64 };

/* What a rank says of itself. */
typedef struct words {
    char text[WORDS_BYTES], host[HOST_BYTES];
} words;

/* Compares a text over ranks. *rank: the lowest whose text is not rank 0's, 0 if there is none; then [out] zeros and theirs are
 * what the two say. Collective. */
static thaw_status find_other(thaw_app *app, const char *text, int *rank, words *zeros, words *theirs) {
    const double number = (double)(thaw_hash_text(text, 0) >> 12); /* exact in a double */
    double range[2] = {number, -number};
    *rank = 0;
    THAW_TRY(thaw_comm_max(app->comm, range, 2));
    if (range[0] == -range[1])
        return THAW_OK;
    const int ranks = thaw_comm_size(app->comm);
    words mine = {0}, *all = thaw_calloc((size_t)ranks, sizeof *all);
    thaw_status status = all ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory to compare %d ranks", ranks);
    THAW_GOTO(thaw_comm_agree(app->comm, status));
    snprintf(mine.text, sizeof mine.text, "%s", text);
    snprintf(mine.host, sizeof mine.host, "%s", thaw_comm_host(app->comm));
    THAW_GOTO(thaw_comm_allgather(app->comm, &mine, sizeof mine, all));
    for (*rank = 1; *rank < ranks - 1 && strcmp(all[*rank].text, all[0].text) == 0;)
        ++*rank;
    *zeros = all[0];
    *theirs = all[*rank];
out:
    thaw_free(all);
    return status;
}

thaw_status thaw_app_same_program(thaw_app *app) {
    words zeros, theirs;
    int rank;
    THAW_TRY(find_other(app, "thaw " THAW_VERSION, &rank, &zeros, &theirs));
    return rank == 0 ? THAW_OK
                     : thaw_fail(THAW_MISMATCH, "rank %d (%s) is %s, rank 0 (%s) is %s: install the same version of thaw on all "
                                 "hosts", rank, theirs.host, theirs.text, zeros.host, zeros.text);
}

thaw_status thaw_app_same_kernels(thaw_app *app) {
    words zeros, theirs;
    int rank;
    THAW_TRY(find_other(app, thaw_kernels_describe(), &rank, &zeros, &theirs));
    return rank == 0 ? THAW_OK
                     : thaw_fail(THAW_MISMATCH, "rank %d (%s) computes with other kernels than rank 0 (%s), and replicas would "
                                 "drift apart: %s; rank 0: %s. Set what the weakest host can (THAW_ISA, THAW_CONV, "
                                 "OPENBLAS_CORETYPE) on all", rank, theirs.host, zeros.host, theirs.text, zeros.text);
}

/* Another build on a rank, or another MPI library. Collective. */
static thaw_status look_at_programs(thaw_app *app) {
    words zeros, theirs;
    int rank;
    void *bytes = NULL;
    size_t size = 0;
    char build[32] = "";
    if (thaw_io_read(&bytes, &size, "/proc/self/exe", 0) == THAW_OK)
        snprintf(build, sizeof build, "%016llx", (unsigned long long)thaw_hash(bytes, size, 0));
    thaw_free(bytes);
    THAW_TRY(find_other(app, build, &rank, &zeros, &theirs));
    if (rank && app->root)
        thaw_warn("rank %d (%s) runs another build of thaw than rank 0 (%s): install the same program on all hosts", rank,
                  theirs.host, zeros.host);
    THAW_TRY(find_other(app, thaw_comm_library(app->comm), &rank, &zeros, &theirs));
    if (rank && app->root)
        thaw_warn("rank %d (%s) has %.*s, rank 0 (%s) has %.*s: install the same MPI library on all hosts", rank, theirs.host,
                  (int)strcspn(theirs.text, ","), theirs.text, zeros.host, (int)strcspn(zeros.text, ","), zeros.text);
    return THAW_OK;
}

#define SEGMENT_BYTES (4.0 * 1048576.0) /* of a rank: btl_vader_segment_size of Open MPI 4 */

/* Open MPI's ranks of a host talk through /dev/shm, whose pages are taken when they are first written: a full one is a SIGBUS
 * in the middle of a run. Collective. */
static thaw_status look_at_shared_memory(thaw_app *app) {
    struct statvfs shm;
    const int neighbours = thaw_comm_local_size(app->comm);
    double left = 1e30;
    if (neighbours > 1 && statvfs("/dev/shm", &shm) == 0)
        left = (double)shm.f_bavail * (double)shm.f_frsize - SEGMENT_BYTES * neighbours;
    double lacks[2] = {-left, left < 0.0 ? neighbours : 0.0};
    THAW_TRY(thaw_comm_max(app->comm, lacks, 2));
    if (lacks[0] > 0.0 && app->root && strstr(thaw_comm_library(app->comm), "Open MPI"))
        thaw_warn("/dev/shm of a host has %.0f MB less than Open MPI takes for its %.0f ranks (4 MB each), and a run dies of a "
                  "bus error when it is full: make it larger (containers: --shm-size=1g), or mpirun --mca "
                  "btl_vader_backing_directory /tmp", lacks[0] * 1e-6, lacks[1]);
    return THAW_OK;
}

#define SLOW_LINK 100e6 /* bytes a second: less than 1 Gbit/s gives */
#define UNEVEN 2.0

/* Latency and bandwidth between hosts. Collective. */
static thaw_status look_at_network(thaw_app *app) {
    typedef struct measured {
        thaw_link link;
        char host[HOST_BYTES];
    } measured;
    const int ranks = thaw_comm_size(app->comm);
    measured mine = {0};
    if (thaw_comm_hosts(app->comm) < 2)
        return THAW_OK;
    measured *all = thaw_calloc((size_t)ranks, sizeof *all);
    thaw_status status = all ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory to try the network of %d ranks", ranks);
    THAW_GOTO(thaw_comm_agree(app->comm, status));
    THAW_GOTO(thaw_comm_probe(app->comm, &mine.link));
    snprintf(mine.host, sizeof mine.host, "%s", thaw_comm_host(app->comm));
    THAW_GOTO(thaw_comm_allgather(app->comm, &mine, sizeof mine, all));
    const measured *slowest = NULL, *fastest = NULL;
    double latency = 0.0;
    for (const measured *m = all; m < all + ranks; m++) {
        if (m->link.bandwidth <= 0.0)
            continue;
        slowest = !slowest || m->link.bandwidth < slowest->link.bandwidth ? m : slowest;
        fastest = !fastest || m->link.bandwidth > fastest->link.bandwidth ? m : fastest;
        latency = m->link.latency > latency ? m->link.latency : latency;
    }
    if (!app->root || !slowest)
        goto out;
    const double low = slowest->link.bandwidth, high = fastest->link.bandwidth;
    thaw_info("network between %d hosts: %.3g to %.3g GB/s into a host, %.0f us", thaw_comm_hosts(app->comm), low * 1e-9,
              high * 1e-9, latency * 1e6);
    if (low < SLOW_LINK)
        thaw_warn("only %.3g MB/s come into %s over the network: is there a faster one (mpirun --mca btl_tcp_if_include NAME; "
                  "`ip address` lists them)?", low * 1e-6, slowest->host);
    else if (high > UNEVEN * low)
        thaw_warn("the network is uneven: %.3g GB/s come into %s, %.3g GB/s into %s; the slowest host sets the pace: leave it "
                  "out, or see what links it has (mpirun --mca btl_tcp_if_include)", low * 1e-9, slowest->host, high * 1e-9,
                  fastest->host);
out:
    thaw_free(all);
    return status;
}

/* Name of the network file system that a path lies on; NULL: none, or not known. Numbers: statfs(2), and the file systems. */
static const char *network_file_system(const char *path) {
    static const struct {
        uint32_t magic;
        const char *name;
    } known[] = {{0x6969, "NFS"},       {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"}, {0xff534d42, "CIFS"},
                 {0xfe534d42, "SMB"},   {0x19830326, "BeeGFS"}, {0x00c36400, "Ceph"}, {0x5346414f, "AFS"},
                 {0x7461636f, "OCFS2"}, {0x01161970, "GFS2"},   {0x013111a8, "IBRIX"}};
    struct statfs fs;
    if (statfs(path, &fs) != 0)
        return NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if ((uint32_t)fs.f_type == known[i].magic)
            return known[i].name;
    return NULL;
}

static void look_at_paths(const char *const *paths, int n) {
    for (int i = 0; i < n; i++) {
        char file[4096];
        const char *path = paths[i], *colon = path ? strstr(path, ".h5:/") : NULL;
        if (!path)
            continue;
        snprintf(file, sizeof file, "%.*s", colon ? (int)(colon - path) + 3 : (int)strlen(path), path);
        const char *name = network_file_system(file);
        if (!name)
            continue;
        thaw_info("%s lies on %s: if epochs wait for input, data.stage_data: node-local copies it to a disk of each host", file,
                  name);
        return;
    }
}

thaw_status thaw_app_look_around(thaw_app *app, const char *const *paths, int n) {
    if (thaw_comm_size(app->comm) == 1)
        return THAW_OK;
    THAW_TRY(look_at_programs(app));
    THAW_TRY(look_at_shared_memory(app));
    THAW_TRY(look_at_network(app));
    if (app->root)
        look_at_paths(paths, n);
    return THAW_OK;
}
