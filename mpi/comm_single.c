/* thaw/comm.h for one process: a world of one rank, in which a sum is what was put in. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "exchange.h"
#include "node_sum.h"
#include "watch.h"

struct thaw_comm {
    char host[HOST_NAME_MAX + 1];
};

static thaw_status check_root(int root) {
    return root == 0 ? THAW_OK : thaw_fail(THAW_INTERNAL, "comm: root %d of 1 rank", root);
}

thaw_status thaw_comm_init(thaw_comm **out, int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    *out = NULL;
    thaw_comm *comm = thaw_malloc(sizeof *comm);
    if (!comm)
        return thaw_fail(THAW_RESOURCE, "not enough memory to start");
    if (gethostname(comm->host, sizeof comm->host - 1) != 0)
        memcpy(comm->host, "localhost", sizeof "localhost");
    *out = comm;
    return THAW_OK;
}

void thaw_comm_finalize(thaw_comm *comm) { thaw_free(comm); }

thaw_status thaw_comm_first(thaw_comm **out, thaw_comm *comm, int ranks) {
    *out = NULL;
    if (ranks != 1)
        return thaw_fail(THAW_INTERNAL, "comm: the first %d of 1 rank", ranks);
    *out = thaw_malloc(sizeof **out);
    if (!*out)
        return thaw_fail(THAW_RESOURCE, "not enough memory for 1 rank");
    **out = *comm;
    return THAW_OK;
}

_Noreturn void thaw_comm_abort(thaw_comm *comm, thaw_status status, const char *message) {
    fflush(stdout);
    fprintf(stderr, "thaw: rank 0 (%s): %s\n", comm ? comm->host : "?", message);
    fflush(stderr);
    /* Not exit: handlers of libraries that are in the middle of something could hang. */
    _exit((int)status);
}

int thaw_comm_rank(const thaw_comm *comm) { return (void)comm, 0; }
int thaw_comm_size(const thaw_comm *comm) { return (void)comm, 1; }
int thaw_comm_local_rank(const thaw_comm *comm) { return (void)comm, 0; }
int thaw_comm_local_size(const thaw_comm *comm) { return (void)comm, 1; }
int thaw_comm_hosts(const thaw_comm *comm) { return (void)comm, 1; }
const char *thaw_comm_host(const thaw_comm *comm) { return comm->host; }
const char *thaw_comm_library(const thaw_comm *comm) { return (void)comm, "single process"; }

thaw_status thaw_comm_broadcast(thaw_comm *comm, void *data, size_t bytes, int root) {
    (void)comm, (void)data, (void)bytes;
    return check_root(root);
}

thaw_status thaw_comm_broadcast_buffer(thaw_comm *comm, void **data, size_t *bytes, int root) {
    (void)comm, (void)data, (void)bytes;
    return check_root(root);
}

thaw_status thaw_comm_sum(thaw_comm *comm, double *values, size_t count) {
    (void)comm, (void)values, (void)count;
    return THAW_OK;
}

void thaw_comm_sum_begin(thaw_comm *comm, double *values, double *room, size_t count) {
    (void)comm, (void)values, (void)room, (void)count;
}

bool thaw_comm_sum_poll(thaw_comm *comm) {
    (void)comm;
    return false;
}
void thaw_comm_sum_end(thaw_comm *comm) { (void)comm; }

thaw_status thaw_comm_max(thaw_comm *comm, double *values, size_t count) {
    (void)comm, (void)values, (void)count;
    return THAW_OK;
}

thaw_status thaw_comm_sum_floats(thaw_comm *comm, float *values, size_t count) {
    (void)comm, (void)values, (void)count;
    return THAW_OK;
}

thaw_status thaw_comm_allgather(thaw_comm *comm, const void *mine, size_t bytes, void *all) {
    (void)comm;
    if (bytes)
        memmove(all, mine, bytes);
    return THAW_OK;
}

thaw_status thaw_comm_gather_buffers(thaw_comm *comm, const void *mine, size_t bytes, void **all, size_t **sizes) {
    (void)comm;
    *all = thaw_malloc(bytes);
    *sizes = thaw_malloc(sizeof **sizes);
    if (!*all || !*sizes) {
        thaw_free(*all);
        thaw_free(*sizes);
        *all = NULL;
        *sizes = NULL;
        return thaw_fail(THAW_RESOURCE, "not enough memory to gather %zu bytes", bytes);
    }
    if (bytes)
        memcpy(*all, mine, bytes);
    (*sizes)[0] = bytes;
    return THAW_OK;
}

thaw_status thaw_comm_agree(thaw_comm *comm, thaw_status mine) { return (void)comm, mine; }

thaw_status thaw_comm_same(thaw_comm *comm, const char *what, uint64_t value, thaw_status on_difference) {
    (void)comm, (void)what, (void)value, (void)on_difference;
    return THAW_OK;
}

void thaw_comm_barrier(thaw_comm *comm) { (void)comm; }
void thaw_comm_rest(thaw_comm *comm) { (void)comm; }

thaw_status thaw_comm_watch(thaw_comm *comm, double seconds) { return (void)comm, (void)seconds, THAW_OK; }
thaw_status thaw_comm_probe(thaw_comm *comm, thaw_link *mine) { return (void)comm, *mine = (thaw_link){0}, THAW_OK; }
void thaw_comm_alive(thaw_comm *comm) { (void)comm; }
void thaw_watch_wait(void) {}
void thaw_watch_go_on(void) {}
void thaw_watch_end(void) {}

float *thaw_comm_alloc(thaw_comm *comm, size_t floats) { return (void)comm, thaw_calloc(floats, sizeof(float)); }

float *thaw_comm_alloc_common(thaw_comm *comm, size_t floats) { return thaw_comm_alloc(comm, floats); }

void thaw_comm_free(thaw_comm *comm, float *block) {
    (void)comm;
    thaw_free(block);
}

struct thaw_common {
    void *block;
};

thaw_status thaw_common_create(thaw_common **out, thaw_comm *comm, size_t bytes, const char *what) {
    (void)comm;
    *out = thaw_malloc(sizeof **out);
    void *block = *out ? thaw_malloc(bytes) : NULL;
    if (!block) {
        thaw_free(*out);
        *out = NULL;
        return thaw_fail(THAW_RESOURCE, "not enough memory for %s: %zu bytes", what, bytes);
    }
    (*out)->block = block;
    return THAW_OK;
}

void thaw_common_free(thaw_common *common) {
    if (common)
        thaw_free(common->block);
    thaw_free(common);
}

void *thaw_common_block(const thaw_common *common) { return common->block; }
int thaw_common_part(const thaw_common *common) { return (void)common, 0; }
int thaw_common_parts(const thaw_common *common) { return (void)common, 1; }
bool thaw_common_meet(thaw_common *common, bool mine) { return (void)common, mine; }
void thaw_common_enlarge(thaw_common *common) { (void)common; }
void thaw_common_seal(thaw_common *common) { (void)common; }

/* Sums of one rank: nothing is ever under way. */
thaw_status thaw_allreduce_create(thaw_allreduce **out, thaw_comm *comm, int n, size_t floats,
                                  const thaw_allreduce_options *options) {
    (void)comm, (void)n, (void)floats, (void)options;
    *out = NULL;
    return THAW_OK;
}

void thaw_allreduce_free(thaw_allreduce *a) { (void)a; }
void thaw_allreduce_begin(thaw_allreduce *a, float *values, float *lost, float *results, size_t count) {
    (void)a, (void)values, (void)lost, (void)results, (void)count;
}
bool thaw_allreduce_use(thaw_allreduce *a, thaw_exchange_use *use, void *payload) {
    return (void)a, (void)use, (void)payload, false;
}
void thaw_allreduce_gather(thaw_allreduce *a, float *values, size_t count) { (void)a, (void)values, (void)count; }
bool thaw_allreduce_poll(thaw_allreduce *a) {
    (void)a;
    return false;
}
void thaw_allreduce_finish(thaw_allreduce *a) { (void)a; }
size_t thaw_allreduce_left(const thaw_allreduce *a) { return (void)a, (size_t)0; }
size_t thaw_allreduce_memory(int n, size_t floats, int ranks, bool half) {
    return (void)n, (void)floats, (void)ranks, (void)half, (size_t)0;
}

/* No rank has anything in common with another. */
bool thaw_node_sum_fits(const thaw_comm *comm, const float *block) { return (void)comm, (void)block, false; }
thaw_status thaw_node_sum_create(thaw_node_sum **out, thaw_comm *comm, float *block, int n, size_t floats) {
    (void)comm, (void)block, (void)n, (void)floats;
    *out = NULL;
    return thaw_fail(THAW_INTERNAL, "exchange: one process has no memory in common");
}
void thaw_node_sum_free(thaw_node_sum *s) { (void)s; }
void thaw_node_sum_begin(thaw_node_sum *s, size_t offset, size_t count) { (void)s, (void)offset, (void)count; }
bool thaw_node_sum_poll(thaw_node_sum *s) {
    (void)s;
    return false;
}
void thaw_node_sum_finish(thaw_node_sum *s) { (void)s; }
size_t thaw_node_sum_left(const thaw_node_sum *s) { return (void)s, (size_t)0; }
int thaw_node_sum_parts(const thaw_node_sum *s) { return (void)s, 1; }
size_t thaw_node_sum_memory(int n, size_t floats, int ranks, int parts) {
    return (void)parts, thaw_allreduce_memory(n, floats, ranks, false);
}
