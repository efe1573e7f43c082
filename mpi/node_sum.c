/* Sums inside a host without messages: the ranks' blocks lie in memory that they have in common (thaw_comm_alloc_common), and
 * each rank sums its part of every bucket straight out of all blocks. Between hosts, ranks that have the same part sum it by
 * messages (allreduce.c). The sum is written into all blocks of the host.
 *
 * A bucket goes through three states on each rank, in the order of beginning: begun (its values are final), done (this rank's
 * part of the sum is in all blocks), complete (all ranks are done). Each rank counts what it has begun and done in the common
 * memory, and only looks at the counts of the others: no rank waits in a poll.
 *
 * The tree of thaw/comm.h stays: hosts hold equal aligned runs of 2^k ranks, which is a subtree of their own, and the sums of
 * hosts are added in the tree of as many ranks. With P = 2^s + r ranks r is a multiple of 2^k, so the folded pairs lie inside of
 * hosts, and r / 2^k hosts are folded. One host alone may have any number of ranks. */
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/memory.h"
#include "comm_mpi.h"
#include "node_sum.h"
#include "rank_tree.h"

enum {
    ALIGN = 16,           /* floats of a cache line; parts begin on one */
    ADD_BLOCK = 2048,     /* floats of each rank that stay in the nearest caches while they are summed */
    PARALLEL = 1 << 15,   /* floats from which threads help to add */
    IDLE_TRIES = 64       /* looks that find nothing before others may have the core */
};

/* Of one rank, on cache lines of its own: buckets since the memory was made. */
typedef struct tally_of_rank {
    _Atomic uint64_t begun, done;
    char pad[THAW_NODE_TALLY - 2 * sizeof(uint64_t)];
} tally_of_rank;
_Static_assert(sizeof(tally_of_rank) == THAW_NODE_TALLY, "the head of a window is made for them");

typedef struct bucket {
    size_t offset, count; /* floats, in every block */
} bucket;

struct thaw_node_sum {
    int part, parts;
    tally_of_rank *tally; /* parts */
    float **blocks; /* parts: of all ranks of the host */
    float **leaf;   /* parts: a piece of each, in the order of the tree */
    int leaves, fold; /* parts = leaves + fold, leaves a power of two */
    thaw_allreduce *across; /* between hosts; NULL: there is one */
    bucket *line;           /* begun since the last finish */
    int n_line, summed, done, complete; /* of these; summed: inside of the host */
    uint64_t before;        /* buckets of earlier steps */
    size_t left;            /* floats of those that are not complete */
};

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static bucket part_of(const bucket *b, int part, int parts) {
    const size_t lines = (b->count + ALIGN - 1) / ALIGN;
    const size_t begin = smaller(b->count, lines * (size_t)part / (size_t)parts * ALIGN);
    const size_t end = smaller(b->count, lines * (size_t)(part + 1) / (size_t)parts * ALIGN);
    return (bucket){b->offset + begin, end - begin};
}

static void add(float *restrict to, const float *restrict from, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

/* This rank's part of a bucket, of all ranks of the host: into its own block, or with one host into all blocks. What lies there
 * in other blocks is used up: only this rank touches it from begun to complete. */
static void sum_part(thaw_node_sum *s, const bucket *b) {
    const bucket mine = part_of(b, s->part, s->parts);
    const bool everywhere = !s->across;
#pragma omp parallel for schedule(static) if (mine.count > PARALLEL)
    for (size_t at = 0; at < mine.count; at += ADD_BLOCK) {
        const size_t from = mine.offset + at, width = smaller(ADD_BLOCK, mine.count - at);
        for (int i = 0; i < s->fold; i++)
            add(s->blocks[2 * i] + from, s->blocks[2 * i + 1] + from, width);
        for (int distance = 1; distance < s->leaves; distance *= 2)
            for (int i = 0; i < s->leaves; i += 2 * distance)
                add(s->leaf[i] + from, s->leaf[i + distance] + from, width);
        for (int r = 0; r < s->parts; r++)
            if (s->blocks[r] != s->leaf[0] && (everywhere || r == s->part))
                memcpy(s->blocks[r] + from, s->leaf[0] + from, width * sizeof(float));
    }
}

/* What hosts have summed, into the other blocks of this one. */
static void spread_part(thaw_node_sum *s, const bucket *b) {
    const bucket mine = part_of(b, s->part, s->parts);
    for (int r = 0; r < s->parts; r++)
        if (r != s->part && mine.count > 0)
            memcpy(s->blocks[r] + mine.offset, s->blocks[s->part] + mine.offset, mine.count * sizeof(float));
}

/* Bucket i of the line is begun, or done, on all ranks of the host. */
static bool all_begun(const thaw_node_sum *s, int i) {
    for (int r = 0; r < s->parts; r++)
        if (atomic_load_explicit(&s->tally[r].begun, memory_order_acquire) <= s->before + (uint64_t)i)
            return false;
    return true;
}

static bool all_done(const thaw_node_sum *s, int i) {
    for (int r = 0; r < s->parts; r++)
        if (atomic_load_explicit(&s->tally[r].done, memory_order_acquire) <= s->before + (uint64_t)i)
            return false;
    return true;
}

static void tell_done(thaw_node_sum *s) {
    atomic_store_explicit(&s->tally[s->part].done, s->before + (uint64_t)s->done, memory_order_release);
}

/* Goes on as far as others let it; false: there was nothing to do. */
static bool advance(thaw_node_sum *s) {
    const int summed = s->summed, done = s->done, complete = s->complete;
    bool heard = false; /* from other hosts */
    while (s->summed < s->n_line && all_begun(s, s->summed)) {
        const bucket *b = &s->line[s->summed++];
        sum_part(s, b);
        if (s->across) {
            const bucket mine = part_of(b, s->part, s->parts);
            thaw_allreduce_begin(s->across, s->blocks[s->part] + mine.offset, NULL, NULL, mine.count);
            continue;
        }
        s->done++;
        tell_done(s);
    }
    if (s->across && s->done < s->summed) {
        heard = thaw_allreduce_poll(s->across);
        if (thaw_allreduce_left(s->across) == 0) {
            thaw_allreduce_finish(s->across);
            for (; s->done < s->summed; s->done++)
                spread_part(s, &s->line[s->done]);
            tell_done(s);
        }
    }
    while (s->complete < s->done && all_done(s, s->complete))
        s->left -= s->line[s->complete++].count;
    return heard || s->summed != summed || s->done != done || s->complete != complete;
}

void thaw_node_sum_begin(thaw_node_sum *s, size_t offset, size_t count) {
    s->line[s->n_line++] = (bucket){offset, count};
    s->left += count;
    atomic_store_explicit(&s->tally[s->part].begun, s->before + (uint64_t)s->n_line, memory_order_release);
    advance(s);
}

bool thaw_node_sum_poll(thaw_node_sum *s) {
    bool moved = false;
    while (s->complete < s->n_line && advance(s))
        moved = true;
    return moved;
}

void thaw_node_sum_finish(thaw_node_sum *s) {
    for (int idle = 0; s->complete < s->n_line;)
        if (advance(s))
            idle = 0;
        else if (++idle > IDLE_TRIES)
            sched_yield();
    s->before += (uint64_t)s->n_line;
    s->n_line = s->summed = s->done = s->complete = 0;
}

bool thaw_node_sum_fits(const thaw_comm *comm, const float *block) { return thaw_comm_window(comm, block) != NULL; }

int thaw_node_sum_parts(const thaw_node_sum *s) { return s->parts; }

size_t thaw_node_sum_left(const thaw_node_sum *s) { return s->left; }

/* Floats of the largest part of n buckets. */
static size_t part_floats(int n, size_t floats, int parts) { return floats / (size_t)parts + (size_t)n * 2 * ALIGN; }

size_t thaw_node_sum_memory(int n, size_t floats, int ranks, int parts) {
    return ranks == parts ? 0 : thaw_allreduce_memory(n, part_floats(n, floats, parts), ranks / parts, false);
}

thaw_status thaw_node_sum_create(thaw_node_sum **out, thaw_comm *comm, float *block, int n, size_t floats) {
    *out = NULL;
    const thaw_node_window *window = thaw_comm_window(comm, block);
    thaw_node_sum *s = thaw_calloc(1, sizeof *s);
    if (!window || !s) {
        thaw_free(s);
        return thaw_fail(window ? THAW_RESOURCE : THAW_INTERNAL, "exchange: %s", window ? "not enough memory"
                                                                                        : "the block is not in common");
    }
    char *head = thaw_common_block(window->common);
    s->part = thaw_common_part(window->common);
    s->parts = thaw_common_parts(window->common);
    s->tally = (tally_of_rank *)(void *)head;
    const thaw_rank_tree tree = thaw_rank_tree_of(s->parts);
    s->leaves = 1 << tree.levels;
    s->fold = tree.fold;
    s->blocks = thaw_calloc((size_t)s->parts, sizeof *s->blocks);
    s->leaf = thaw_calloc((size_t)s->leaves, sizeof *s->leaf);
    s->line = thaw_calloc((size_t)n, sizeof *s->line);
    thaw_status status = THAW_OK;
    if (!s->blocks || !s->leaf || !s->line)
        status = thaw_fail(THAW_RESOURCE, "exchange: not enough memory for %d buckets", n);
    thaw_comm *hosts = thaw_comm_across(comm);
    if (status == THAW_OK && hosts)
        status = thaw_allreduce_create(&s->across, hosts, n, part_floats(n, floats, s->parts), NULL);
    if (status != THAW_OK) {
        thaw_node_sum_free(s);
        return status;
    }
    for (int r = 0; r < s->parts; r++)
        s->blocks[r] = thaw_node_window_block(window, r);
    for (int i = 0; i < s->leaves; i++)
        s->leaf[i] = s->blocks[thaw_rank_at(tree, i)];
    s->before = atomic_load(&s->tally[s->part].begun);
    *out = s;
    return THAW_OK;
}

void thaw_node_sum_free(thaw_node_sum *s) {
    if (!s)
        return;
    thaw_allreduce_free(s->across);
    thaw_free(s->blocks);
    thaw_free(s->leaf);
    thaw_free(s->line);
    thaw_free(s);
}
