/* The watchdog: a thread in each rank, on its own clock, which no blocked call of MPI or of a file system stops.
 *
 * Open MPI waits for ever for a rank that was stopped or whose host cannot be reached: its connections have no time limit, and
 * without messages nobody asks. So every rank sends rank 0 a datagram now and then, and rank 0 answers. These travel beside MPI,
 * which only main threads may call. A sign carries a number that counts entries into and returns from waits inside MPI (odd: the
 * rank waits now). Rank 0 thereby knows
 *   - a rank that is silent: its process is stopped or dead, or its host lost. The run ends;
 *   - a rank that works while all others wait for it: slow, not dead. A warning; only after SLOW limits is it taken for hung;
 *   - that all wait for each other: messages were lost. The run ends after LOST limits.
 * The other ranks know when rank 0 is silent; rank 1 says so, and if it is gone too, all others end a little later.
 * A rank that was stopped itself (SIGSTOP, a suspended job) hears nothing meanwhile: it starts to count anew when it goes on.
 * A rank that was never heard (a firewall) is not missed, but said to be unwatched. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <mpi.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm_mpi.h"
#include "watch.h"

enum { ADDRESSES = 16, HOST_BYTES = 64, STACK_BYTES = 1 << 18, SLOW = 30, LOST = 5 };

#define DEPUTY_SECONDS 5.0 /* how much longer ranks behind rank 1 believe in rank 0 */
#define STOPPED_SECONDS 1.0 /* a thread that comes this much too late was not let run */

typedef enum sign_kind { SIGN_ALIVE = 1, SIGN_LEFT, SIGN_END } sign_kind;

typedef struct sign {
    uint64_t run; /* a random number: datagrams of other programs are dropped */
    uint32_t rank, kind, moves;
} sign;

/* What rank 0 tells all at the start. */
typedef struct meeting_point {
    uint64_t run;
    char host[HOST_BYTES];
    uint16_t port; /* in network order; 0: nothing watches */
    int n;
    struct in_addr at[ADDRESSES];
} meeting_point;

/* A rank as rank 0 sees it; rank 0 as others do. */
typedef struct peer {
    bool known, left, told;
    double heard, moved; /* when the last sign came, and the last one with another number of moves */
    uint32_t moves;
    struct sockaddr_in at;
    char host[HOST_BYTES];
} peer;

static struct watch {
    bool on;
    int rank, ranks, socket, stop; /* stop: becomes readable when this rank leaves */
    double limit, period, started, warned; /* warned: length of the wait that the last warning was about; 0: none */
    meeting_point root;
    peer *peers; /* P on rank 0, else rank 0 alone */
    pthread_t thread;
} watch = {.socket = -1, .stop = -1};

static atomic_uint moves; /* of the main thread; odd: it waits inside MPI */

void thaw_watch_wait(void) { atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed); }
void thaw_watch_go_on(void) { atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed); }

void thaw_comm_alive(thaw_comm *comm) {
    (void)comm;
    atomic_fetch_add_explicit(&moves, 2, memory_order_relaxed);
}

/* Not through stdio, whose lock a blocked main thread may hold; and not into a pipe that is full, since a terminal that was
 * halted must not halt signs of life. False: not said. */
static bool say(const char *line, int patience_ms) {
    char text[1024];
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
    const int n = snprintf(text, sizeof text, "thaw: %s\n", line);
    return poll(&room, 1, patience_ms) > 0 && write(room.fd, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1) > 0;
}

static void send_sign(const struct sockaddr_in *to, sign_kind kind) {
    const sign s = {watch.root.run, (uint32_t)watch.rank, kind, atomic_load_explicit(&moves, memory_order_relaxed)};
    sendto(watch.socket, &s, sizeof s, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)to, sizeof *to); /* may be lost */
}

/* Ends the job. The launcher ends what is left of it (stopped processes too); where it does not, ranks are told. */
_Noreturn static void end_job(const char *line) {
    say(line, 1000);
    for (int r = 1; watch.rank == 0 && r < watch.ranks; r++)
        if (watch.peers[r].known && !watch.peers[r].left)
            for (int again = 0; again < 2; again++)
                send_sign(&watch.peers[r].at, SIGN_END);
    _exit(THAW_HUNG);
}

static void receive(double now) {
    struct sockaddr_in from;
    sign s;
    for (;;) {
        socklen_t size = sizeof from;
        const ssize_t n = recvfrom(watch.socket, &s, sizeof s, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
        if (n < 0 && errno != EINTR && errno != ECONNREFUSED)
            return;
        if (n != (ssize_t)sizeof s || s.run != watch.root.run || s.rank >= (uint32_t)watch.ranks ||
            (watch.rank != 0 && s.rank != 0))
            continue;
        if (s.kind == SIGN_END)
            _exit(THAW_HUNG); /* rank 0 has said why */
        peer *p = &watch.peers[watch.rank == 0 ? s.rank : 0];
        if (!p->known || p->moves != s.moves)
            p->moved = now;
        p->known = true;
        p->left = s.kind == SIGN_LEFT;
        p->heard = now;
        p->moves = s.moves;
        p->at = from;
        if (watch.rank == 0 && !p->left)
            send_sign(&from, SIGN_ALIVE);
    }
}

/* Where rank 0 may be: the address that answered, or all that it has. */
static void greet_root(sign_kind kind) {
    if (watch.peers[0].known) {
        send_sign(&watch.peers[0].at, kind);
        return;
    }
    for (int i = 0; i < watch.root.n; i++) {
        const struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = watch.root.port, .sin_addr = watch.root.at[i]};
        send_sign(&to, kind);
    }
}

static void judge_root(double now) {
    const peer *root = &watch.peers[0];
    char line[512];
    if (!root->known || root->left || now - root->heard <= watch.limit + (watch.rank > 1 ? DEPUTY_SECONDS : 0.0))
        return;
    snprintf(line, sizeof line, "rank %d: rank 0 (%s) gave no sign of life for %.0f s (training.watchdog_seconds): it was "
             "stopped or its host is lost; the run ends, start it again to resume", watch.rank, root->host, now - root->heard);
    end_job(line);
}

static void judge_silence(double now) {
    char line[640], others[48] = "";
    int silent = -1, more = 0;
    for (int r = 1; r < watch.ranks; r++) {
        peer *p = &watch.peers[r];
        if (!p->known && !p->told && now - watch.started > watch.limit) {
            snprintf(line, sizeof line, "warning: signs of life of rank %d (%s) do not arrive: is UDP kept out between the "
                     "hosts? If it hangs, nobody will notice", r, p->host);
            p->told = say(line, 0);
        }
        if (!p->known || p->left || now - p->heard <= watch.limit)
            continue;
        more += silent >= 0;
        silent = silent < 0 ? r : silent;
    }
    if (silent < 0)
        return;
    if (more)
        snprintf(others, sizeof others, " (nor did %d more rank%s)", more, more == 1 ? "" : "s");
    snprintf(line, sizeof line, "rank %d (%s) gave no sign of life for %.0f s (training.watchdog_seconds)%s: it was stopped "
             "or its host is lost; the run ends, start it again to resume", silent, watch.peers[silent].host,
             now - watch.peers[silent].heard, others);
    end_job(line);
}

/* Who lets whom wait. */
static void judge_waits(double now) {
    int working = 0, waiting = 0, slow = -1;
    double shortest = 1e30; /* wait */
    char line[640];
    for (int r = 0; r < watch.ranks; r++) {
        const peer *p = &watch.peers[r];
        if (p->left || !p->known)
            return; /* the run is ending, or not all can be seen */
        if (p->moves % 2 == 0) {
            working++;
            slow = slow < 0 || p->moved < watch.peers[slow].moved ? r : slow;
        } else {
            waiting++;
            shortest = now - p->moved < shortest ? now - p->moved : shortest;
        }
    }
    if (waiting == 0 || shortest <= watch.limit) {
        watch.warned = 0.0;
        return;
    }
    if (working == 0) {
        if (shortest <= LOST * watch.limit)
            return;
        snprintf(line, sizeof line, "all ranks have waited for each other for %.0f s: messages between them were lost; the run "
                 "ends, check the network, start it again to resume", shortest);
        end_job(line);
    }
    if (now - watch.peers[slow].moved > SLOW * watch.limit) {
        snprintf(line, sizeof line, "rank %d (%s) has let %d others wait for %.0f s (%d times training.watchdog_seconds), alive "
                 "but without an end: a file system or a device that hangs? The run ends, start it again to resume", slow,
                 watch.peers[slow].host, waiting, shortest, SLOW);
        end_job(line);
    }
    if (watch.warned > 0.0 && shortest < 2.0 * watch.warned)
        return;
    snprintf(line, sizeof line, "warning: %d rank%s waited %.0f s for rank %d (%s), which is alive and at work%s", waiting,
             waiting == 1 ? " has" : "s have", shortest, slow, watch.peers[slow].host, working > 1 ? ", and for others" : "");
    if (say(line, 0))
        watch.warned = shortest;
}

static void forgive(double seconds) {
    for (int r = 0; r < (watch.rank == 0 ? watch.ranks : 1); r++) {
        watch.peers[r].heard += seconds;
        watch.peers[r].moved += seconds;
    }
    watch.started += seconds;
}

static void see_myself(double now) {
    peer *me = &watch.peers[0];
    const uint32_t at = atomic_load_explicit(&moves, memory_order_relaxed);
    if (at != me->moves)
        me->moved = now;
    me->moves = at;
    me->heard = now;
}

static void *run_watch(void *unused) {
    struct pollfd fds[2] = {{.fd = watch.socket, .events = POLLIN}, {.fd = watch.stop, .events = POLLIN}};
    double last = thaw_clock(), next = last;
    for (;;) {
        const double wait = next - last;
        const int ready = poll(fds, 2, wait > 0.0 ? (int)(wait * 1e3) + 1 : 0);
        const double now = thaw_clock();
        if (now - last > watch.period + STOPPED_SECONDS)
            forgive(now - last);
        last = now;
        if (ready > 0 && fds[1].revents)
            return unused;
        receive(now);
        if (now < next)
            continue;
        next = now + watch.period;
        if (watch.rank != 0) {
            greet_root(SIGN_ALIVE);
            judge_root(now);
        } else {
            see_myself(now);
            judge_silence(now);
            judge_waits(now);
        }
    }
}

/* Addresses of this host at which ranks of other hosts may find it; its own ranks by loopback. */
static int list_addresses(struct in_addr *at) {
    struct ifaddrs *all = NULL;
    int n = 0;
    at[n++].s_addr = htonl(INADDR_LOOPBACK);
    if (getifaddrs(&all) != 0)
        return n;
    for (const struct ifaddrs *a = all; a && n < ADDRESSES; a = a->ifa_next)
        if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET && a->ifa_flags & IFF_UP && !(a->ifa_flags & IFF_LOOPBACK))
            at[n++] = ((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr;
    freeifaddrs(all);
    return n;
}

static bool open_socket(void) {
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t size = sizeof any;
    watch.socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    watch.stop = eventfd(0, EFD_CLOEXEC);
    if (watch.socket < 0 || watch.stop < 0 || bind(watch.socket, (struct sockaddr *)&any, sizeof any) != 0 ||
        getsockname(watch.socket, (struct sockaddr *)&any, &size) != 0)
        return false;
    watch.root.port = any.sin_port;
    return true;
}

static void close_all(void) {
    if (watch.socket >= 0)
        close(watch.socket);
    if (watch.stop >= 0)
        close(watch.stop);
    watch.socket = watch.stop = -1;
    thaw_free(watch.peers);
    watch.peers = NULL;
    watch.on = false;
}

/* Signals are for the main thread. */
static bool start_thread(void) {
    pthread_attr_t small;
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_attr_init(&small) != 0)
        return false;
    pthread_attr_setstacksize(&small, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const bool started = pthread_create(&watch.thread, &small, run_watch, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&small);
    return started;
}

/* Rank 0's address to all, all hosts to rank 0. Collective. */
static void meet(MPI_Comm world, const char *host, char *hosts) {
    meeting_point *root = &watch.root;
    char mine[HOST_BYTES] = "";
    snprintf(mine, sizeof mine, "%.*s", HOST_BYTES - 1, host);
    memcpy(root->host, mine, sizeof mine);
    if (watch.rank == 0) {
        if (getrandom(&root->run, sizeof root->run, GRND_NONBLOCK) != (ssize_t)sizeof root->run)
            root->run = thaw_hash_text(host, (uint64_t)getpid());
        root->n = list_addresses(root->at);
    }
    MPI_Bcast(root, (int)sizeof *root, MPI_BYTE, 0, world);
    MPI_Gather(mine, HOST_BYTES, MPI_CHAR, hosts, HOST_BYTES, MPI_CHAR, 0, world);
    if (strcmp(mine, root->host) != 0) /* loopback leads to rank 0 on its own host alone */
        root->at[0] = root->at[--root->n];
}

thaw_status thaw_comm_watch(thaw_comm *comm, double seconds) {
    const int rank = thaw_comm_rank(comm), ranks = thaw_comm_size(comm);
    if (ranks == 1 || watch.on || seconds <= 0.0)
        return THAW_OK;
    const double period = seconds / 20.0;
    const int n = rank == 0 ? ranks : 1;
    watch.rank = rank;
    watch.ranks = ranks;
    watch.limit = seconds;
    watch.period = period < 0.1 ? 0.1 : period > 5.0 ? 5.0 : period;
    watch.root = (meeting_point){0};
    watch.peers = thaw_calloc((size_t)n, sizeof *watch.peers);
    char *hosts = rank == 0 ? thaw_calloc((size_t)ranks, HOST_BYTES) : NULL;
    const thaw_status status =
        thaw_comm_agree(comm, watch.peers && (hosts || rank) ? THAW_OK
                                                             : thaw_fail(THAW_RESOURCE, "no memory to watch %d ranks", ranks));
    if (status != THAW_OK) {
        thaw_free(hosts);
        close_all();
        return status;
    }
    const bool open = open_socket();
    if (!open)
        watch.root.port = 0;
    meet(thaw_comm_exchange_world(comm), thaw_comm_host(comm), hosts);
    watch.started = thaw_clock();
    for (int i = 0; i < n; i++) {
        watch.peers[i].heard = watch.peers[i].moved = watch.started;
        memcpy(watch.peers[i].host, rank == 0 ? hosts + (size_t)i * HOST_BYTES : watch.root.host, HOST_BYTES);
    }
    thaw_free(hosts);
    watch.peers[0].known = rank == 0;
    watch.on = open && watch.root.port != 0 && start_thread();
    if (!watch.on) {
        if (rank == 0)
            thaw_warn("there is no watchdog: no socket or thread for it; a rank that hangs will not be noticed");
        close_all();
    }
    return THAW_OK;
}

void thaw_watch_end(void) {
    if (!watch.on)
        return;
    const uint64_t one = 1;
    if (write(watch.stop, &one, sizeof one) != (ssize_t)sizeof one)
        return; /* the process ends anyway */
    pthread_join(watch.thread, NULL);
    if (watch.rank != 0)
        greet_root(SIGN_LEFT);
    for (int r = 1; watch.rank == 0 && r < watch.ranks; r++)
        if (watch.peers[r].known && !watch.peers[r].left)
            send_sign(&watch.peers[r].at, SIGN_LEFT);
    close_all();
}
