/* Ranks: what data-parallel training needs of a cluster, with no MPI type in sight.
 *
 * Two implementations: mpi/comm_mpi.c (Open MPI, MPICH) and mpi/comm_single.c (one process). Only the main thread may
 * call any function here (MPI_THREAD_FUNNELED). Functions marked Collective must be called by all ranks in the same
 * order. P is the number of ranks. */
#ifndef THAW_COMM_H
#define THAW_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct thaw_comm thaw_comm;

/* Starts communication. With comm_mpi.c outside mpirun/srun this is a world of one rank. Collective.
 * [out] out: owned by the caller, freed with thaw_comm_finalize. Errors: THAW_SYSTEM. */
thaw_status thaw_comm_init(thaw_comm **out, int *argc, char ***argv);

/* Ends communication and frees `comm` (NULL is accepted). Of a part (thaw_comm_first) it ends this part alone. Collective. */
void thaw_comm_finalize(thaw_comm *comm);

/* A world of the first `ranks` ranks of `comm`, 1 <= ranks <= P, to measure on. [out] out: on these ranks owned by the caller,
 * freed with thaw_comm_finalize before `comm` is; NULL on the others. Collective over `comm`. Errors: THAW_RESOURCE,
 * THAW_INTERNAL. */
thaw_status thaw_comm_first(thaw_comm **out, thaw_comm *comm, int ranks);

/* Ends the whole job at once with exit status `status`, printing "thaw: rank R (host): message" on standard error.
 * For failures that other ranks cannot learn of at a collective point. Not collective; does not return. */
_Noreturn void thaw_comm_abort(thaw_comm *comm, thaw_status status, const char *message);

/* From here to thaw_comm_finalize a thread of each rank watches the others, also while main threads are blocked: a rank that
 * gives no sign of life for `seconds` ends all with THAW_HUNG and one line on standard error that names it and its host. A
 * rank that is slow but alive is waited for, with a warning. `seconds` 0, a second call, or one rank: nothing. Collective.
 * Errors: THAW_RESOURCE. */
thaw_status thaw_comm_watch(thaw_comm *comm, double seconds);
/* Long work that goes on: nobody takes this rank for hung. Any thread; not collective. */
void thaw_comm_alive(thaw_comm *comm);
#define THAW_WATCH_SECONDS 120.0 /* where no job says otherwise */

/* What the network between hosts does, measured in a tenth of a second: every host sends to the next and receives from the one
 * before at the same time. Zeros on ranks that do not measure (all but the first of each host) and with one host. */
typedef struct thaw_link {
    double latency;   /* seconds for 8 bytes, the median of some */
    double bandwidth; /* bytes per second that came in */
    double bytes;     /* that were sent, and received, for this */
} thaw_link;
/* Collective. Errors: THAW_RESOURCE. */
thaw_status thaw_comm_probe(thaw_comm *comm, thaw_link *mine);

int thaw_comm_rank(const thaw_comm *comm);
int thaw_comm_size(const thaw_comm *comm);        /* P */
int thaw_comm_local_rank(const thaw_comm *comm);  /* among the ranks of this host */
int thaw_comm_local_size(const thaw_comm *comm);  /* ranks on this host */
int thaw_comm_hosts(const thaw_comm *comm);       /* number of distinct hosts */
const char *thaw_comm_host(const thaw_comm *comm);
const char *thaw_comm_library(const thaw_comm *comm); /* "Open MPI v4.1.4 ..." or "single process" */

/* Copies `bytes` bytes from rank `root` to all. Any size (sent in pieces below 2^31). Collective. */
thaw_status thaw_comm_broadcast(thaw_comm *comm, void *data, size_t bytes, int root);

/* Broadcasts a malloc'ed buffer of a size that only `root` knows. On root *data and *bytes are input; elsewhere *data
 * is allocated with thaw_malloc and owned by the caller. Collective. */
thaw_status thaw_comm_broadcast_buffer(thaw_comm *comm, void **data, size_t *bytes, int root);

/* In-place elementwise sum / maximum over ranks, equal bits on all ranks. Collective. */
thaw_status thaw_comm_sum(thaw_comm *comm, double *values, size_t count);
thaw_status thaw_comm_max(thaw_comm *comm, double *values, size_t count);

/* The sum of a few values that moves on while the caller computes: begin returns at once, poll looks, never waits and
 * returns whether a message had come or gone, end waits; values are the sums then. One at a time; begun and ended by all ranks,
 * other collectives in between in the same order.
 * [in,out] room: (count), which with the values is borrowed until end. */
void thaw_comm_sum_begin(thaw_comm *comm, double *values, double *room, size_t count);
bool thaw_comm_sum_poll(thaw_comm *comm);
void thaw_comm_sum_end(thaw_comm *comm);

/* all[r*bytes ...] receives `bytes` bytes of rank r, in rank order, on every rank. Collective. */
thaw_status thaw_comm_allgather(thaw_comm *comm, const void *mine, size_t bytes, void *all);

/* Gathers buffers of different sizes on rank 0, concatenated in rank order. [out] all, sizes (P entries): allocated
 * with thaw_malloc on rank 0 and owned by the caller, NULL elsewhere. Collective. */
thaw_status thaw_comm_gather_buffers(thaw_comm *comm, const void *mine, size_t bytes, void **all, size_t **sizes);

/* Agrees on a status: THAW_OK if every rank brings THAW_OK; otherwise the status of the lowest failing rank on all
 * ranks, with its message, prefixed "rank R (host): " when P > 1. Collective. */
thaw_status thaw_comm_agree(thaw_comm *comm, thaw_status mine);

/* Fails on all ranks with `on_difference` if `value` differs between ranks; the message names `what` and the first rank
 * that differs from rank 0 with its host. Collective. */
thaw_status thaw_comm_same(thaw_comm *comm, const char *what, uint64_t value, thaw_status on_difference);

void thaw_comm_barrier(thaw_comm *comm); /* Collective. */
/* A barrier for long waits: looks every millisecond and leaves the core to others in between. Collective. */
void thaw_comm_rest(thaw_comm *comm);

/* Memory for flat blocks, so that they may lie in memory shared by a node. 64-byte aligned, zeroed. NULL if there is
 * none. Collective. */
float *thaw_comm_alloc(thaw_comm *comm, size_t floats);
/* The same for a gradient block: beside those of the other ranks of the host, so that thaw_exchange_create with
 * THAW_EXCHANGE_AUTO may sum there without messages. Where that cannot be it is as thaw_comm_alloc's. */
float *thaw_comm_alloc_common(thaw_comm *comm, size_t floats);
void thaw_comm_free(thaw_comm *comm, float *block);

/* Memory that the ranks of a host have in common, so that it is there once for all of them. */
typedef struct thaw_common thaw_common;

/* `bytes` bytes for each host, zeroed, 64-byte aligned. Where ranks cannot have it in common (one rank on each host; too little
 * room in /dev/shm on any host, of which rank 0 says one line with `what`) every rank has a block of its own. [out] out: owned
 * by the caller. Collective. Errors: THAW_RESOURCE. */
thaw_status thaw_common_create(thaw_common **out, thaw_comm *comm, size_t bytes, const char *what);
void thaw_common_free(thaw_common *common); /* NULL is accepted. Not collective: others may go on with the block. */
void *thaw_common_block(const thaw_common *common);
/* This rank is number `part` of `parts` that see the block; 0 of 1 where it is its own. */
int thaw_common_part(const thaw_common *common);
int thaw_common_parts(const thaw_common *common);
/* Waits for all ranks that see the block: what they wrote is there, what they read is read. Whether any of them brings `mine`.
 * NULL is accepted. To be called by all of them. */
bool thaw_common_meet(thaw_common *common, bool mine);
/* For a block that all ranks of the host will use all of: its pages become large ones, if the system can do that. All of them are
 * resident then, in the eyes of each rank. To be called by all of them. */
void thaw_common_enlarge(thaw_common *common);
/* As thaw_common_meet, with large pages, and nobody may write any more. NULL is accepted. Collective. */
void thaw_common_seal(thaw_common *common);

/* Gradient exchange: in-place sums of contiguous pieces (buckets) of one flat block.
 *
 * The sum of an element is taken in one tree over rank order, whatever its bucket, the messages' timing, and where polls fall:
 * with P = 2^s + r, r < 2^s, ranks 2i and 2i+1 are added for i < r; the 2^s sums that are then in a row are added in
 * neighbouring pairs, these pairs' sums again, and so on. For P = 4 (a0+a1)+(a2+a3), for P = 6 ((a0+a1)+(a2+a3))+(a4+a5),
 * for P = 5 ((a0+a1)+a2)+(a3+a4). Ranks that are aligned runs of 2^k leaves of a larger such tree give its sum.
 *
 * With THAW_EXCHANGE_HALF and more than one rank, what a rank sends is rounded to halves, scaled by a power of two for each piece
 * that travels, so that no size of gradients overflows; sums are taken in floats in the same tree, and the final sum is what its
 * rounded form stands for on every rank. What rounding lost stays with who rounded and is added to the same element's gradient of
 * the next step (error feedback), so over the steps the sums miss no more than the last step's rounding. */
typedef struct thaw_bucket {
    size_t offset;  /* floats from the start of the block */
    size_t count;   /* floats */
    size_t payload; /* floats of these that are no padding, <= count */
} thaw_bucket;

typedef enum thaw_exchange_kind {
    THAW_EXCHANGE_AUTO,    /* inside of a host in common memory, where the block lies in such and hosts have equal aligned runs of
                              2^k ranks (or there is one host), between hosts as overlap; else overlap */
    THAW_EXCHANGE_OVERLAP, /* own messages, which move on at every poll between begin and finish */
    THAW_EXCHANGE_MPI,     /* MPI_Allreduce of each bucket inside of finish, for comparison: sums in an order of MPI's choice */
    THAW_EXCHANGE_HALF     /* overlap, messages of IEEE halves, inside of hosts too: half the bytes, other bits for other numbers
                              of ranks */
} thaw_exchange_kind;

typedef struct thaw_exchange thaw_exchange;

/* [in] block, buckets: borrowed (buckets are copied). All memory is taken here. Collective. */
thaw_status thaw_exchange_create(thaw_exchange **out, thaw_comm *comm, float *block, const thaw_bucket *buckets,
                                 int n_buckets, thaw_exchange_kind kind);
/* NULL is accepted. Every bucket that was begun must be finished. Not collective. */
void thaw_exchange_free(thaw_exchange *exchange);
/* The bucket's values are final on this rank: its exchange may start. Every rank begins every bucket once a step, in
 * the same order, and of one exchange at a time. The bucket must not be touched until thaw_exchange_finish. */
thaw_status thaw_exchange_begin(thaw_exchange *exchange, int bucket);
/* Gives progress to what is in flight, and takes sums that have become possible; some microseconds if there is nothing to
 * do. Any number of calls, other on each rank, gives the same bits. Returns whether anything had moved on. */
bool thaw_exchange_poll(thaw_exchange *exchange);
/* Waits until every begun bucket holds the sum over ranks. Collective. */
thaw_status thaw_exchange_finish(thaw_exchange *exchange);
/* What the owner of `count` sums makes of them: as many results. It may change the sums. Threads may be in several such calls. */
typedef void thaw_exchange_use(void *payload, float *sums, float *results, size_t count);
/* From now on each sum is used by its owner, and ranks exchange results instead of sums. Every piece of a bucket has one rank as
 * its owner, the same one in every step (short pieces: all ranks but those folded into others, with equal sums). There `use` is
 * called once for each sum, inside of begin, poll or finish. From a bucket's begin to finish nobody else may read or write its
 * results. After finish all ranks have all results; what lies in their blocks has no meaning then. [in,out] results: as long as
 * the block, borrowed. Returns false, and all is as it was, with one rank, halves, MPI's sums or sums in common memory.
 * To be called by all ranks, before the first begin. */
bool thaw_exchange_for_owners(thaw_exchange *exchange, float *results, thaw_exchange_use *use, void *payload);
/* After thaw_exchange_for_owners: what each owner has in its places of another block, as long, goes to all ranks. Between a
 * finish and a begin. Collective. */
void thaw_exchange_gather(thaw_exchange *exchange, float *block);
/* With THAW_EXCHANGE_HALF: what rounding has lost so far is not added to the next step. Between a finish and a begin. */
void thaw_exchange_forget(thaw_exchange *exchange);
/* Bytes of payload handed to the exchange by this rank since creation: 4 (halves: 2) per payload float of every begun bucket
 * (counted with one rank too, so that the figure is a property of the plan). */
uint64_t thaw_exchange_bytes(const thaw_exchange *exchange);
/* Of these bytes, with pads, those whose sums were complete on this rank when thaw_exchange_finish was entered, since creation:
 * not merely sent or received. Depends on timing; 0 with one rank and with THAW_EXCHANGE_MPI. */
uint64_t thaw_exchange_hidden(const thaw_exchange *exchange);
/* Ranks of a host that sum in common memory; 1: all ranks send messages. */
int thaw_exchange_sharers(const thaw_exchange *exchange);
bool thaw_exchange_overlaps(const thaw_exchange *exchange); /* work between begin and finish hides the exchange */
/* Bytes that an exchange of these buckets on P ranks holds beside the block, lists apart. */
size_t thaw_exchange_memory(const thaw_bucket *buckets, int n_buckets, int ranks, thaw_exchange_kind kind);
/* The same with THAW_EXCHANGE_AUTO and a block of thaw_comm_alloc_common, `sharers` ranks on each host. */
size_t thaw_exchange_memory_common(const thaw_bucket *buckets, int n_buckets, int ranks, int sharers);

#ifdef __cplusplus
}
#endif
#endif
