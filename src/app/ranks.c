/* Ranks on cores: threads of each rank, and what a launcher's binding does to them. P ranks. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"

enum { MASK_WORDS = 128 }; /* 8192 cores a host */

/* What a rank tells of its place. */
typedef struct seat {
    uint64_t host;
    uint64_t mask[MASK_WORDS]; /* cores that it may use */
} seat;

typedef struct place {
    uint64_t host;
    int threads, cores; /* of the rank, in its mask */
    int host_cores;     /* that ranks of the host may use together */
    double quota;       /* cores' worth of time that the host's control groups allow; 0: no limit */
    int launcher_cores; /* that the launcher itself may use; 0: unknown */
} place;

/* OMP_NUM_THREADS as a number; 0: not given. A list ("4,2", nested levels) counts by its first number. */
static int threads_of_environment(void) {
    const char *text = getenv("OMP_NUM_THREADS");
    if (!text)
        return 0;
    const long value = strtol(text, NULL, 10);
    return value >= 1 && value <= 4096 ? (int)value : 0;
}

static bool has_core(const uint64_t *mask, int core) { return mask[core / 64] >> core % 64 & 1; }

/* Cores divided by the ranks that share each; and the cores of all ranks of the host together. */
static int fair_share(const seat *seats, int ranks, int mine, int *host_cores) {
    double share = 0.0;
    *host_cores = 0;
    for (int word = 0; word < MASK_WORDS; word++) {
        uint64_t any = 0;
        for (int r = 0; r < ranks; r++)
            any |= seats[r].host == seats[mine].host ? seats[r].mask[word] : 0;
        for (int core = 64 * word; any && core < 64 * word + 64; core++) {
            int sharers = 0;
            for (int r = 0; r < ranks; r++)
                sharers += seats[r].host == seats[mine].host && has_core(seats[r].mask, core);
            *host_cores += sharers > 0;
            if (has_core(seats[mine].mask, core))
                share += 1.0 / sharers;
        }
    }
    const int threads = (int)(share + 1e-6); /* three thirds are one */
    return threads > 0 ? threads : 1;
}

/* Cores of the process that started this one: what a rank had before its launcher bound it. 0 without a launcher. */
static int cores_of_launcher(int ranks) {
    unsigned long set[1 << 9] = {0}; /* 32768 cores: the kernel's mask is never wider */
    if (ranks == 1 && !getenv("OMPI_COMM_WORLD_SIZE"))
        return 0;
    if (sched_getaffinity(getppid(), sizeof set, (cpu_set_t *)(void *)set) != 0)
        return 0;
    return CPU_COUNT_S(sizeof set, (const cpu_set_t *)(const void *)set);
}

static int ranks_of_host(const place *places, int ranks, uint64_t host) {
    int n = 0;
    for (int r = 0; r < ranks; r++)
        n += places[r].host == host;
    return n;
}

/* Warns of the first host where threads and cores do not fit. `chosen`: the user gave the number of threads. */
static void warn_of_binding(const place *places, int ranks, bool chosen) {
    for (int r = 0; r < ranks; r++) {
        const place *p = &places[r];
        const int neighbours = ranks_of_host(places, ranks, p->host);
        const int spread = (p->launcher_cores ? p->launcher_cores : p->host_cores) / neighbours;
        int threads = 0;
        for (int q = 0; q < ranks; q++)
            threads += places[q].host == p->host ? places[q].threads : 0;
        if (p->threads > p->cores && p->launcher_cores > p->cores) {
            thaw_warn("rank %d has %d threads but was bound to %d core%s: start with mpirun --bind-to none, or --map-by "
                      "slot:PE=%d", r, p->threads, p->cores, p->cores == 1 ? "" : "s", p->threads);
            return;
        }
        if (p->quota > 0.0 && threads > p->quota + 0.5) {
            thaw_warn("%d threads of %d rank%s share the time of %.3g cores, which is what the control group of a host allows: "
                      "raise its limit (containers: --cpus), or use fewer threads", threads, neighbours,
                      neighbours == 1 ? "" : "s", p->quota);
            return;
        }
        if (threads > p->host_cores && p->launcher_cores > p->host_cores) {
            thaw_warn("%d threads of %d rank%s were bound to %d core%s of a host that has %d: start with mpirun --bind-to none, "
                      "or --map-by slot:PE=%d", threads, neighbours, neighbours == 1 ? "" : "s", p->host_cores,
                      p->host_cores == 1 ? "" : "s", p->launcher_cores, spread > 0 ? spread : 1);
            return;
        }
        if (threads > p->host_cores) {
            const char *advice = !chosen           ? "use fewer ranks a host"
                                 : neighbours == 1 ? "use a lower OMP_NUM_THREADS"
                                                   : "use a lower OMP_NUM_THREADS or fewer ranks a host";
            thaw_warn("%d threads of %d rank%s share %d core%s of a host and slow each other down: %s", threads, neighbours,
                      neighbours == 1 ? "" : "s", p->host_cores, p->host_cores == 1 ? "" : "s", advice);
            return;
        }
        if (!chosen && p->launcher_cores > p->host_cores) {
            const int idle = p->launcher_cores - p->host_cores;
            thaw_warn("%d core%s of a host idle, since its %d rank%s bound to %d: start with mpirun --bind-to none, or "
                      "--map-by slot:PE=%d", idle, idle == 1 ? " is" : "s are", neighbours, neighbours == 1 ? " is" : "s are",
                      p->host_cores, spread > 0 ? spread : 1);
            return;
        }
    }
}

static void say_ranks(const thaw_app *app, const place *places, int ranks) {
    int least = places[0].threads, most = least, hosts = thaw_comm_hosts(app->comm);
    char range[32] = "";
    for (int r = 1; r < ranks; r++) {
        least = places[r].threads < least ? places[r].threads : least;
        most = places[r].threads > most ? places[r].threads : most;
    }
    if (least < most)
        snprintf(range, sizeof range, "%d to ", least);
    const char *library = thaw_comm_library(app->comm); /* "Open MPI v4.1.4, package: ..." */
    thaw_info("%d rank%s on %d host%s x %s%d thread%s; %d core%s%s; %s; %.*s", ranks, ranks == 1 ? "" : "s", hosts,
              hosts == 1 ? "" : "s", range, most, most == 1 ? "" : "s", places[0].host_cores,
              places[0].host_cores == 1 ? "" : "s", hosts == 1 ? "" : " on the first host", thaw_kernels_describe(),
              (int)strcspn(library, ","), library);
}

thaw_status thaw_app_threads(thaw_app *app, int wanted, bool say) {
    const int ranks = thaw_comm_size(app->comm), rank = thaw_comm_rank(app->comm);
    seat *seats = thaw_calloc((size_t)ranks, sizeof *seats), *mine = thaw_calloc(1, sizeof *mine);
    place *places = thaw_calloc((size_t)ranks, sizeof *places);
    thaw_status status = seats && mine && places ? THAW_OK
                                                 : thaw_fail(THAW_RESOURCE, "not enough memory for the places of %d ranks",
                                                             ranks);
    THAW_GOTO(thaw_comm_agree(app->comm, status));
    mine->host = thaw_hash_text(thaw_comm_host(app->comm), 0);
    place here = {.host = mine->host, .launcher_cores = cores_of_launcher(ranks), .quota = thaw_cores_allowed("")};
    here.cores = thaw_threads_mask(mine->mask, MASK_WORDS);
    THAW_GOTO(thaw_comm_allgather(app->comm, mine, sizeof *mine, seats));
    const int fair = fair_share(seats, ranks, rank, &here.host_cores);
    const int chosen = wanted > 0 ? wanted : threads_of_environment();
    here.threads = chosen > 0 ? chosen : fair;
    THAW_GOTO(thaw_comm_allgather(app->comm, &here, sizeof here, places));
    app->cores = here.host_cores;
    thaw_threads_set(here.threads);
    thaw_kernels_init();
    if (say && app->root) {
        say_ranks(app, places, ranks);
        warn_of_binding(places, ranks, chosen > 0);
    }
out:
    thaw_free(seats);
    thaw_free(mine);
    thaw_free(places);
    return status;
}

static volatile sig_atomic_t stopped;

static void on_stop(int number) {
    (void)number;
    stopped = 1;
}

void thaw_app_catch_stop(thaw_app *app) {
    /* SA_RESTART: the flag is looked at after every step; no call of a library shall fail for the signal. */
    struct sigaction action = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a terminal that went away does not end a training */
    app->stop = &stopped;
}
