/* thaw/comm.h on MPI (Open MPI, MPICH). P ranks.
 *
 * Errors inside MPI end the job (MPI_ERRORS_ARE_FATAL, the default): after one, no communicator is usable. What can fail
 * on one rank alone, which is memory, is agreed on before data moves, so that no rank waits for another that has left. */
#include <math.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "comm_mpi.h"
#include "exchange.h"
#include "watch.h"

/* Counts of MPI are int; pieces stay well below 2^31 bytes. */
enum { PIECE_BYTES = 1 << 29, MESSAGE_BYTES = 4096, GATHER_TAG = 1 };

_Static_assert(sizeof(double) == sizeof(int64_t), "keys of thaw_comm_max lie in the place of the values");

struct thaw_comm {
    MPI_Comm world;    /* a duplicate: traffic of others never meets ours */
    MPI_Comm exchange; /* another one, for messages of allreduce.c */
    MPI_Comm local;    /* the ranks of this host */
    bool even;         /* thaw_comm_even */
    thaw_comm *across; /* one of each host, for exchange alone */
    thaw_node_window *windows;
    thaw_word_sum words;
    int rank, size;
    int local_rank, local_size, hosts;
    bool part; /* of another one, which ends MPI */
    char host[MPI_MAX_PROCESSOR_NAME + 1];
    char library[MPI_MAX_LIBRARY_VERSION_STRING + 1];
};

/* A call that ends when other ranks have come, too: see watch.c. */
#define WAIT_IN(call)       \
    do {                    \
        thaw_watch_wait();  \
        call;               \
        thaw_watch_go_on(); \
    } while (0)

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static thaw_status check_root(const thaw_comm *comm, int root) {
    return root >= 0 && root < comm->size ? THAW_OK
                                          : thaw_fail(THAW_INTERNAL, "comm: root %d of %d ranks", root, comm->size);
}

/* Sums or maxima in place, in pieces. Every algorithm of Open MPI and MPICH takes an element's sum in one place or from
 * partners that add the same two numbers, so all ranks receive equal bits (NaN apart, see the callers). */
static void reduce(thaw_comm *comm, void *values, size_t count, MPI_Datatype type, size_t bytes_each, MPI_Op op) {
    if (comm->size == 1)
        return;
    char *at = values;
    while (count > 0) {
        const size_t piece = smaller(count, PIECE_BYTES / bytes_each);
        WAIT_IN(MPI_Allreduce(MPI_IN_PLACE, at, (int)piece, type, op, comm->world));
        at += piece * bytes_each;
        count -= piece;
    }
}

/* Ranks that have this rank's place on their hosts, where sums go host by host first. */
static void find_across(thaw_comm *comm) {
    int first = comm->rank;
    MPI_Bcast(&first, 1, MPI_INT, 0, comm->local);
    comm->across = thaw_calloc(1, sizeof *comm->across);
    const bool run = comm->rank == first + comm->local_rank && first % comm->local_size == 0;
    const bool power = (comm->local_size & (comm->local_size - 1)) == 0;
    const bool fits = comm->across && run && comm->local_size > 1 && (power || comm->hosts == 1);
    int least[] = {fits, comm->local_size, -comm->local_size};
    MPI_Allreduce(MPI_IN_PLACE, least, 3, MPI_INT, MPI_MIN, comm->world);
    comm->even = least[0] && least[1] == -least[2];
    if (comm->even && comm->hosts > 1) {
        thaw_comm *across = comm->across;
        MPI_Comm_split(comm->world, comm->local_rank, comm->rank, &across->exchange);
        MPI_Comm_rank(across->exchange, &across->rank);
        MPI_Comm_size(across->exchange, &across->size);
    } else {
        thaw_free(comm->across);
        comm->across = NULL;
    }
}

static void forget_hosts(thaw_comm *comm) {
    MPI_Comm_free(&comm->local);
    if (comm->across)
        MPI_Comm_free(&comm->across->exchange);
    thaw_free(comm->across);
    comm->across = NULL;
}

/* Finds this rank's place on its host: ranks that can share memory are a host; with `run` above 0 that many in a row. */
static void find_hosts(thaw_comm *comm, int run) {
    comm->windows = NULL;
    if (run > 0)
        MPI_Comm_split(comm->world, comm->rank / run, comm->rank, &comm->local);
    else
        MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &comm->local);
    MPI_Comm_rank(comm->local, &comm->local_rank);
    MPI_Comm_size(comm->local, &comm->local_size);
    const int first = comm->local_rank == 0;
    MPI_Allreduce(&first, &comm->hosts, 1, MPI_INT, MPI_SUM, comm->world);
    find_across(comm);
}

void thaw_comm_pretend_hosts(thaw_comm *comm, int ranks) {
    forget_hosts(comm);
    find_hosts(comm, ranks);
}

/* Outside mpirun and srun, Open MPI starts a daemon beside the process for ranks that it might spawn, and ends the program
 * where there is no ssh to start others with. One rank that spawns nothing needs neither. */
static void start_alone(void) {
    static const char *const launchers[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (getenv(launchers[i]))
            return;
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
}

thaw_status thaw_comm_init(thaw_comm **out, int *argc, char ***argv) {
    *out = NULL;
    int level = MPI_THREAD_SINGLE;
    start_alone();
    const int error = MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &level);
    if (error != MPI_SUCCESS)
        return thaw_fail(THAW_SYSTEM, "MPI_Init_thread failed with error %d; check the MPI installation", error);
    if (level < MPI_THREAD_FUNNELED) {
        MPI_Finalize();
        return thaw_fail(THAW_SYSTEM, "MPI offers thread level %d, expected MPI_THREAD_FUNNELED; use an MPI library "
                         "built with threads", level);
    }
    thaw_comm *comm = thaw_malloc(sizeof *comm);
    const int mine = comm != NULL;
    int all = 0;
    MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (!all) {
        thaw_free(comm);
        MPI_Finalize();
        return thaw_fail(THAW_RESOURCE, "not enough memory to start on at least one rank");
    }
    comm->part = false;
    comm->words = (thaw_word_sum){0};
    MPI_Comm_dup(MPI_COMM_WORLD, &comm->world);
    MPI_Comm_dup(MPI_COMM_WORLD, &comm->exchange);
    MPI_Comm_rank(comm->world, &comm->rank);
    MPI_Comm_size(comm->world, &comm->size);
    int length = 0;
    MPI_Get_processor_name(comm->host, &length);
    MPI_Get_library_version(comm->library, &length);
    /* Of MPICH, "MPICH Version:" a tab and the version, and a page about its configuration. */
    char *tab = strchr(comm->library, '\t');
    if (tab)
        *tab = ' ';
    comm->library[strcspn(comm->library, "\r\n\t")] = 0;
    find_hosts(comm, 0);
    *out = comm;
    return THAW_OK;
}

void thaw_comm_finalize(thaw_comm *comm) {
    if (!comm)
        return;
    const bool part = comm->part;
    forget_hosts(comm);
    MPI_Comm_free(&comm->exchange);
    MPI_Comm_free(&comm->world);
    thaw_free(comm);
    if (part)
        return;
    WAIT_IN(MPI_Finalize());
    thaw_watch_end();
}

thaw_status thaw_comm_first(thaw_comm **out, thaw_comm *comm, int ranks) {
    *out = NULL;
    if (ranks < 1 || ranks > comm->size)
        return thaw_fail(THAW_INTERNAL, "comm: the first %d of %d ranks", ranks, comm->size);
    thaw_comm *part = thaw_malloc(sizeof *part);
    const thaw_status status = thaw_comm_agree(comm, part ? THAW_OK
                                                          : thaw_fail(THAW_RESOURCE, "not enough memory for %d ranks", ranks));
    if (status == THAW_OK) {
        *part = *comm;
        part->part = true;
        part->words = (thaw_word_sum){0};
        MPI_Comm_split(comm->world, comm->rank < ranks ? 0 : MPI_UNDEFINED, comm->rank, &part->world);
    }
    if (status != THAW_OK || comm->rank >= ranks) {
        thaw_free(part);
        return status;
    }
    part->size = ranks;
    MPI_Comm_dup(part->world, &part->exchange);
    find_hosts(part, 0);
    *out = part;
    return THAW_OK;
}

/* Writes "rank R (host): message"; a message that was agreed on before carries its rank already. */
static void name_rank(char *text, size_t size, const thaw_comm *comm, const char *message) {
    int rank, end = 0;
    if (sscanf(message, "rank %d (%n", &rank, &end) == 1 && end > 0)
        snprintf(text, size, "%s", message);
    else
        snprintf(text, size, "rank %d (%s): %s", comm->rank, comm->host, message);
}

static volatile sig_atomic_t abort_status;

static void give_up_aborting(int number) {
    (void)number;
    _exit(abort_status);
}

enum { ABORT_SECONDS = 5 };

_Noreturn void thaw_comm_abort(thaw_comm *comm, thaw_status status, const char *message) {
    char text[MESSAGE_BYTES];
    if (comm)
        name_rank(text, sizeof text, comm, message);
    else
        snprintf(text, sizeof text, "%s", message);
    fflush(stdout);
    fprintf(stderr, "thaw: %s\n", text);
    fflush(stderr);
    int started = 0, ended = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    /* MPI_Abort may wait for a launcher that waits for us (MPICH 4.0). The end of one rank makes launchers end the others. */
    abort_status = (sig_atomic_t)status;
    signal(SIGALRM, give_up_aborting);
    alarm(ABORT_SECONDS);
    if (started && !ended)
        MPI_Abort(comm && !comm->part ? comm->world : MPI_COMM_WORLD, (int)status);
    _exit((int)status); /* MPI_Abort may return; handlers of exit could hang */
}

MPI_Comm thaw_comm_world(const thaw_comm *comm) { return comm->world; }
MPI_Comm thaw_comm_exchange_world(const thaw_comm *comm) { return comm->exchange; }
MPI_Comm thaw_comm_local_world(const thaw_comm *comm) { return comm->local; }
thaw_node_window **thaw_comm_windows(const thaw_comm *comm) { return (thaw_node_window **)(uintptr_t)&comm->windows; }
bool thaw_comm_even(const thaw_comm *comm) { return comm->even; }
thaw_comm *thaw_comm_across(const thaw_comm *comm) { return comm->across; }

thaw_word_sum *thaw_comm_word_sum(thaw_comm *comm) { return &comm->words; }

int thaw_comm_rank(const thaw_comm *comm) { return comm->rank; }
int thaw_comm_size(const thaw_comm *comm) { return comm->size; }
int thaw_comm_local_rank(const thaw_comm *comm) { return comm->local_rank; }
int thaw_comm_local_size(const thaw_comm *comm) { return comm->local_size; }
int thaw_comm_hosts(const thaw_comm *comm) { return comm->hosts; }
const char *thaw_comm_host(const thaw_comm *comm) { return comm->host; }
const char *thaw_comm_library(const thaw_comm *comm) { return comm->library; }

thaw_status thaw_comm_broadcast(thaw_comm *comm, void *data, size_t bytes, int root) {
    THAW_TRY(check_root(comm, root));
    char *at = data;
    while (bytes > 0) {
        const size_t piece = smaller(bytes, PIECE_BYTES);
        WAIT_IN(MPI_Bcast(at, (int)piece, MPI_BYTE, root, comm->world));
        at += piece;
        bytes -= piece;
    }
    return THAW_OK;
}

thaw_status thaw_comm_broadcast_buffer(thaw_comm *comm, void **data, size_t *bytes, int root) {
    THAW_TRY(check_root(comm, root));
    uint64_t size = *bytes;
    WAIT_IN(MPI_Bcast(&size, 1, MPI_UINT64_T, root, comm->world));
    thaw_status status = THAW_OK;
    const bool receives = comm->rank != root;
    if (receives) {
        *bytes = (size_t)size;
        *data = thaw_malloc((size_t)size + 1); /* a zero behind, as thaw_io_read leaves it on root */
        if (!*data)
            status = thaw_fail(THAW_RESOURCE, "not enough memory to receive %zu bytes; use fewer ranks per host",
                               *bytes);
    }
    status = thaw_comm_agree(comm, status);
    if (status == THAW_OK)
        return thaw_comm_broadcast(comm, *data, *bytes, root);
    if (receives) {
        thaw_free(*data);
        *data = NULL;
        *bytes = 0;
    }
    return status;
}

void thaw_comm_one_nan(double *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (isnan(values[i]))
            values[i] = (double)NAN;
}

thaw_status thaw_comm_sum(thaw_comm *comm, double *values, size_t count) {
    reduce(comm, values, count, MPI_DOUBLE, sizeof *values, MPI_SUM);
    thaw_comm_one_nan(values, count);
    return THAW_OK;
}

/* Keys order as the numbers do, with NaN above all: MPI_MAX on doubles would keep or drop a NaN by the order of its
 * operands, differently on each rank. The mapping is its own inverse (on canonical NaN). */
static int64_t flip_key(int64_t bits) { return bits < 0 ? bits ^ INT64_MAX : bits; }

thaw_status thaw_comm_max(thaw_comm *comm, double *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const double value = isnan(values[i]) ? (double)NAN : values[i];
        int64_t key;
        memcpy(&key, &value, sizeof key);
        key = flip_key(key);
        memcpy(&values[i], &key, sizeof key);
    }
    reduce(comm, values, count, MPI_INT64_T, sizeof *values, MPI_MAX);
    for (size_t i = 0; i < count; i++) {
        int64_t key;
        memcpy(&key, &values[i], sizeof key);
        key = flip_key(key);
        memcpy(&values[i], &key, sizeof key);
    }
    return THAW_OK;
}

thaw_status thaw_comm_sum_floats(thaw_comm *comm, float *values, size_t count) {
    reduce(comm, values, count, MPI_FLOAT, sizeof *values, MPI_SUM);
    return THAW_OK;
}

thaw_status thaw_comm_allgather(thaw_comm *comm, const void *mine, size_t bytes, void *all) {
    if (bytes == 0)
        return THAW_OK;
    memmove((char *)all + (size_t)comm->rank * bytes, mine, bytes);
    if (bytes <= PIECE_BYTES / (size_t)comm->size) {
        WAIT_IN(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, (int)bytes, MPI_BYTE, comm->world));
        return THAW_OK;
    }
    for (int rank = 0; rank < comm->size; rank++)
        THAW_TRY(thaw_comm_broadcast(comm, (char *)all + (size_t)rank * bytes, bytes, rank));
    return THAW_OK;
}

/* Memory of rank 0 for a gather: sizes of all ranks, and their bytes. */
static thaw_status prepare_gather(thaw_comm *comm, size_t bytes, char **all, size_t **sizes) {
    thaw_status status = THAW_OK;
    if (comm->rank == 0) {
        *sizes = thaw_calloc((size_t)comm->size, sizeof **sizes);
        if (!*sizes)
            status = thaw_fail(THAW_RESOURCE, "not enough memory to gather from %d ranks", comm->size);
    }
    THAW_TRY(thaw_comm_agree(comm, status));
    const uint64_t size = bytes;
    _Static_assert(sizeof **sizes == sizeof size, "sizes are received in place");
    WAIT_IN(MPI_Gather(&size, 1, MPI_UINT64_T, *sizes, 1, MPI_UINT64_T, 0, comm->world));
    if (comm->rank == 0) {
        size_t total = 0;
        bool fits = true;
        for (int rank = 0; rank < comm->size; rank++)
            fits = fits && !thaw_add_overflow(total, (*sizes)[rank], &total);
        *all = fits ? thaw_malloc(total) : NULL;
        if (!*all)
            status = thaw_fail(THAW_RESOURCE, "not enough memory to gather %zu bytes", total);
    }
    return thaw_comm_agree(comm, status);
}

thaw_status thaw_comm_gather_buffers(thaw_comm *comm, const void *mine, size_t bytes, void **all, size_t **sizes) {
    char *place = NULL;
    *all = NULL;
    *sizes = NULL;
    const thaw_status status = prepare_gather(comm, bytes, &place, sizes);
    if (status != THAW_OK) {
        thaw_free(*sizes);
        thaw_free(place);
        *sizes = NULL;
        return status;
    }
    *all = place;
    if (comm->rank != 0) {
        for (const char *at = mine; bytes > 0;) {
            const size_t piece = smaller(bytes, PIECE_BYTES);
            WAIT_IN(MPI_Send(at, (int)piece, MPI_BYTE, 0, GATHER_TAG, comm->world));
            at += piece;
            bytes -= piece;
        }
        return THAW_OK;
    }
    if (bytes > 0)
        memcpy(place, mine, bytes);
    place += bytes;
    for (int rank = 1; rank < comm->size; rank++)
        for (size_t left = (*sizes)[rank]; left > 0;) {
            const size_t piece = smaller(left, PIECE_BYTES);
            WAIT_IN(MPI_Recv(place, (int)piece, MPI_BYTE, rank, GATHER_TAG, comm->world, MPI_STATUS_IGNORE));
            place += piece;
            left -= piece;
        }
    return THAW_OK;
}

thaw_status thaw_comm_agree(thaw_comm *comm, thaw_status mine) {
    if (comm->size == 1)
        return mine;
    /* One minimum finds the lowest failing rank and its status; statuses are exit statuses, below 256. */
    const int64_t key = mine == THAW_OK ? INT64_MAX : (int64_t)comm->rank << 8 | (int64_t)mine;
    int64_t first;
    WAIT_IN(MPI_Allreduce(&key, &first, 1, MPI_INT64_T, MPI_MIN, comm->world));
    if (first == INT64_MAX)
        return THAW_OK;
    const int rank = (int)(first >> 8);
    char text[MESSAGE_BYTES] = {0};
    if (rank == comm->rank)
        name_rank(text, sizeof text, comm, thaw_message());
    WAIT_IN(MPI_Bcast(text, sizeof text, MPI_CHAR, rank, comm->world));
    return thaw_fail((thaw_status)(first & 255), "%s", text);
}

/* The lowest rank whose value is not that of rank 0; P if there is none. */
static thaw_status find_different(thaw_comm *comm, uint64_t value, int *rank, uint64_t *theirs, uint64_t *zeros) {
    uint64_t *values = thaw_calloc((size_t)comm->size, sizeof *values);
    THAW_TRY(thaw_comm_agree(comm, values ? THAW_OK : thaw_fail(THAW_RESOURCE, "not enough memory to compare ranks")));
    WAIT_IN(MPI_Allgather(&value, 1, MPI_UINT64_T, values, 1, MPI_UINT64_T, comm->world));
    *rank = 0;
    while (*rank < comm->size && values[*rank] == values[0])
        ++*rank;
    *theirs = *rank < comm->size ? values[*rank] : values[0];
    *zeros = values[0];
    thaw_free(values);
    return THAW_OK;
}

thaw_status thaw_comm_same(thaw_comm *comm, const char *what, uint64_t value, thaw_status on_difference) {
    if (comm->size == 1)
        return THAW_OK;
    uint64_t lowest[2] = {value, ~value}; /* the complement's minimum is the value's maximum */
    WAIT_IN(MPI_Allreduce(MPI_IN_PLACE, lowest, 2, MPI_UINT64_T, MPI_MIN, comm->world));
    if (lowest[0] == ~lowest[1])
        return THAW_OK;
    int rank;
    uint64_t theirs, zeros;
    THAW_TRY(find_different(comm, value, &rank, &theirs, &zeros));
    char host[sizeof comm->host];
    memcpy(host, comm->host, sizeof host);
    WAIT_IN(MPI_Bcast(host, sizeof host, MPI_CHAR, rank, comm->world));
    return thaw_fail(on_difference,
                     "rank %d (%s): %s differs from rank 0's (%016llx against %016llx); give all ranks the same "
                     "program, job and data",
                     rank, host, what, (unsigned long long)theirs, (unsigned long long)zeros);
}

void thaw_comm_barrier(thaw_comm *comm) { WAIT_IN(MPI_Barrier(comm->world)); }

void thaw_comm_rest(thaw_comm *comm) {
    const struct timespec nap = {.tv_nsec = 1000000};
    MPI_Request all_here;
    int done = 0;
    MPI_Ibarrier(comm->world, &all_here);
    thaw_watch_wait();
    for (MPI_Test(&all_here, &done, MPI_STATUS_IGNORE); !done; MPI_Test(&all_here, &done, MPI_STATUS_IGNORE))
        nanosleep(&nap, NULL);
    thaw_watch_go_on();
}

float *thaw_comm_alloc(thaw_comm *comm, size_t floats) {
    float *block = thaw_calloc(floats, sizeof *block);
    const int mine = block != NULL;
    int all = 0;
    WAIT_IN(MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MIN, comm->world));
    if (all)
        return block;
    thaw_free(block); /* all ranks have the block or none */
    return NULL;
}

void thaw_comm_free(thaw_comm *comm, float *block) {
    if (!thaw_node_window_free(comm, block))
        thaw_free(block);
}
