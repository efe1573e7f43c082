/* Sums of float arrays over ranks that move on while the caller computes: point-to-point messages and a state machine,
 * because MPI_Iallreduce of Open MPI 4.1 stands still between calls and sums in an order that depends on P and the size.
 *
 * Arrays are cut into chunks; up to `window` chunks are under way. A chunk goes through rounds: messages are posted, and once
 * all have arrived the values are combined and the next round is posted. Whatever the messages' timing, an element's sum is
 * taken in one tree over the ranks (thaw/comm.h): the r = P - 2^s ranks that exceed a power of two are folded into their
 * neighbours (ranks 2i+1 into 2i, i < r), the 2^s sums that are left form a balanced binary tree, nearest neighbours first.
 * Thakur, Rabenseifner, Gropp 2005, https://doi.org/10.1177/1094342005051521, there in the order of most distance first.
 *
 *   doubling   small chunks, and P = 2 without `use`. Round d: exchange the whole chunk with the neighbour at distance 2^d, add.
 *   owners     P up to 8. Send each rank its part of the chunk; sum one's own part of all ranks in the tree; send it to all.
 *              Two rounds whatever P is: between two polls one round passes, so rounds are what can be too many.
 *   halving    more ranks. Groups of 2^k ranks, k <= 3, do among themselves what owners does and keep 2^-k of the chunk each;
 *              then the next k levels of the tree, among ranks that keep the same part; and back. With k = 1 this is vector
 *              halving; k = 3 has a third of its rounds. On 64 ranks with a prefix of 14 operations, 57 % of the bytes were
 *              summed behind the prefix with k = 1 (tests/cluster/smpi).
 *
 * With `half`, messages are halves times a power of two. A chunk consists of blocks, which are what one place keeps in the end
 * (owners: one for each rank, halving: one for each place); a block is coded as its shift and its halves, and a message is some
 * blocks in a row. Who rounds a sum keeps what that lost (`lost`) and adds it to its own values of the next step, so that nothing
 * is lost in the long run: error feedback, Seide et al. 2014, https://doi.org/10.21437/Interspeech.2014-274. In owners and
 * halving every rank rounds each element once: as a partial sum that it sends, or as a final sum that it owns. Sums are taken
 * in floats. Coded final sums are passed on as they are, and their owner takes what they stand for too: equal bits.
 *
 * With `use` it is not sums that go to all ranks but what their owners make of them, so that owners alone work on it; the way
 * back carries these results. Owners of the halves of a chunk are two ranks too, then.
 *
 * Chunk number q takes slot q mod window once chunk q - window is done on this rank. Hence tags (slot, round) suffice: of two
 * messages with one tag between two ranks the earlier was sent and is received first. */
#include <limits.h>
#include <mpi.h>
#include <string.h>

#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "comm_mpi.h"
#include "exchange.h"
#include "rank_tree.h"

enum {
    CHUNK = 1 << 18,       /* floats: 1 MiB */
    WINDOW = 16,           /* chunks: 16 MiB of staging at most */
    SMALL = 8192,          /* floats of a chunk for which doubling costs no more than other schemes */
    OWNERS_AUTO = 8,       /* ranks up to which owners is taken, */
    OWNERS_MOST = 16,      /* and up to which it works */
    ALIGN = 16,            /* floats of a cache line; parts begin on one */
    SLACK = ALIGN * (OWNERS_MOST + 2), /* floats that rounding to ALIGN adds to the staging of owners */
    GROUP_LEVELS = 3,      /* most levels of the tree that a round of halving takes */
    ROUNDS = 64,           /* more than any scheme has: 2 log2 P, fold and unfold */
    HEAD = 2,              /* halves in front of a coded block: the shift, and room */
    IDLE_TRIES = 2,        /* looks that find nothing before a poll gives up */
    ADD_BLOCK = 2048,      /* floats that stay in the first-level cache while P parts are summed */
    PARALLEL = 1 << 15     /* floats from which threads help to add */
};

typedef struct slot {
    float *values; /* (count) of the caller */
    float *final;  /* (count) where what is final goes: values, or results that are made of them */
    float *staging;
    float *lost;    /* with halves: (count) of the caller */
    uint16_t *coded, *arrived; /* with halves: all blocks of the chunk; messages that are to be summed */
    size_t count;
    thaw_scheme scheme;
    int round, pending; /* messages of the round that have not ended */
    bool busy;
} slot;

typedef struct span {
    float *values;
    size_t count;
} span;

/* Blocks [first, end) of a chunk. */
typedef struct run {
    int first, end;
} run;

typedef struct array {
    float *values, *lost, *final;
    size_t count;
    bool gather; /* owners have what is final already */
} array;

struct thaw_allreduce {
    MPI_Comm world;
    int rank, size;
    thaw_rank_tree tree;
    int place;  /* of this rank; -1: folded into its neighbour */
    int stages; /* rounds of halving on the way to the root */
    thaw_scheme scheme;
    bool half;
    thaw_exchange_use *use; /* NULL: sums are what is final */
    void *payload;
    size_t chunk;
    int window, messages; /* messages: most of a chunk at once */
    float *staging; /* (window, chunk + SLACK), with halves twice that */
    slot *slots;    /* window */
    MPI_Request *requests;    /* (window, messages) */
    int *ended;               /* window * messages */
    array *line;    /* arrays begun since the last finish */
    int n_line, at; /* at: the one to be cut next, */
    size_t cut;     /* from this float on */
    int64_t first, next;      /* numbers of the oldest chunk that is not done and of the next one */
    size_t left;              /* floats begun and not summed */
};

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t align_up(size_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

static void add(float *restrict to, const float *restrict from, size_t n) {
#pragma omp parallel for simd schedule(static) if (n > PARALLEL && !thaw_threads_busy())
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

/* Where owner `o`'s part of a chunk begins. */
static size_t part_begin(const thaw_allreduce *a, size_t count, int o) {
    return smaller(count, align_up(count / (size_t)a->size * (size_t)o + count % (size_t)a->size * (size_t)o / (size_t)a->size));
}

/* What a place keeps of a chunk after `rounds` halvings. */
static span region(size_t count, float *values, int place, int rounds) {
    span kept = {values, count};
    for (int d = 0; d < rounds; d++) {
        const size_t half = smaller(kept.count, align_up(kept.count / 2));
        if (place >> d & 1)
            kept = (span){kept.values + half, kept.count - half};
        else
            kept.count = half;
    }
    return kept;
}

static int tag_of(const thaw_allreduce *a, const slot *s) { return (int)(s - a->slots) * ROUNDS + s->round; }

static MPI_Request *next_request(thaw_allreduce *a, slot *s) {
    return &a->requests[(s - a->slots) * a->messages + s->pending++];
}

static int blocks_of(const thaw_allreduce *a, const slot *s) {
    return s->scheme == THAW_SCHEME_OWNERS ? a->size : s->scheme == THAW_SCHEME_HALVING ? 1 << a->tree.levels : 1;
}

/* What a place keeps after `rounds` halvings, as blocks: the first halving decides about the upper half. */
static run blocks_at(const thaw_allreduce *a, int place, int rounds) {
    int first = 0;
    for (int d = 0; d < rounds; d++)
        first |= (place >> d & 1) << (a->tree.levels - 1 - d);
    return (run){first, first + (1 << (a->tree.levels - rounds))};
}

/* Where block b begins, in floats. */
static size_t block_begin(const thaw_allreduce *a, const slot *s, int b) {
    const int blocks = blocks_of(a, s);
    if (b == 0 || b == blocks)
        return b == 0 ? 0 : s->count;
    if (s->scheme == THAW_SCHEME_OWNERS)
        return part_begin(a, s->count, b);
    int place = 0;
    for (int d = 0; d < a->tree.levels; d++)
        place |= (b >> (a->tree.levels - 1 - d) & 1) << d;
    return (size_t)(region(s->count, s->values, place, a->tree.levels).values - s->values);
}

/* Floats of blocks, and where they lie in the chunk; coded, each has a head in front of it. */
static span floats_of(const thaw_allreduce *a, const slot *s, run r) {
    const size_t begin = block_begin(a, s, r.first);
    return (span){s->values + begin, block_begin(a, s, r.end) - begin};
}

static float *final_of(const slot *s, span floats) { return s->final + (floats.values - s->values); }

static size_t coded_begin(const thaw_allreduce *a, const slot *s, int b) { return block_begin(a, s, b) + (size_t)b * HEAD; }

static size_t coded_length(const thaw_allreduce *a, const slot *s, run r) {
    return coded_begin(a, s, r.end) - coded_begin(a, s, r.first);
}

/* Codes blocks of this rank's values, which become what the codes stand for. */
static void code(const thaw_allreduce *a, slot *s, run r) {
    for (int b = r.first; b < r.end; b++) {
        const span f = floats_of(a, s, (run){b, b + 1});
        const int shift = thaw_half_shift(f.values, f.count);
        uint16_t *to = s->coded + coded_begin(a, s, b);
        to[0] = (uint16_t)(int16_t)shift;
        to[1] = 0;
        thaw_half_split(to + HEAD, f.values, s->lost + (f.values - s->values), f.count, shift);
    }
}

/* The floats of coded blocks. A shift from elsewhere has a range that this rank does not trust. */
static void decode(const thaw_allreduce *a, const slot *s, run r, const uint16_t *from, float *to) {
    for (int b = r.first; b < r.end; b++) {
        const size_t count = floats_of(a, s, (run){b, b + 1}).count;
        const int shift = (int16_t)from[0];
        thaw_half_join(to, from + HEAD, count, shift < -113 ? -113 : shift > 100 ? 100 : shift);
        from += HEAD + count;
        to += count;
    }
}

/* Sends blocks of the chunk. `final`: what stays; with halves they are coded already. */
static void post_send(thaw_allreduce *a, slot *s, int rank, run r, bool final) {
    const span f = floats_of(a, s, r);
    if (f.count == 0)
        return;
    if (a->half && !final)
        code(a, s, r);
    if (a->half)
        MPI_Isend(s->coded + coded_begin(a, s, r.first), (int)coded_length(a, s, r), MPI_UINT16_T, rank, tag_of(a, s), a->world,
                  next_request(a, s));
    else
        MPI_Isend(final ? final_of(s, f) : f.values, (int)f.count, MPI_FLOAT, rank, tag_of(a, s), a->world, next_request(a, s));
}

/* Receives blocks: what is final to its place, those that are to be added as message number i of equal ones. */
static void post_receive(thaw_allreduce *a, slot *s, int rank, run r, bool final, int i) {
    const span f = floats_of(a, s, r);
    const size_t coded = coded_length(a, s, r);
    if (f.count == 0)
        return;
    if (a->half)
        MPI_Irecv(final ? s->coded + coded_begin(a, s, r.first) : s->arrived + (size_t)i * coded, (int)coded, MPI_UINT16_T, rank,
                  tag_of(a, s), a->world, next_request(a, s));
    else
        MPI_Irecv(final ? final_of(s, f) : s->staging + (size_t)i * f.count, (int)f.count, MPI_FLOAT, rank, tag_of(a, s),
                  a->world, next_request(a, s));
}

static int rounds_of(const thaw_allreduce *a, thaw_scheme scheme) {
    return scheme == THAW_SCHEME_OWNERS ? 2 : 2 + (scheme == THAW_SCHEME_DOUBLING ? a->tree.levels : 2 * a->stages);
}

/* Levels [from, to) of the tree, taken at once by groups of 2^(to-from) places that differ in these bits. */
typedef struct group {
    int from, to, others; /* others: members besides this rank */
    bool back;
} group;

/* What a round of halving in the middle does or takes back. */
static group group_of(const thaw_allreduce *a, const slot *s) {
    const int d = s->round - 1;
    const bool back = d >= a->stages;
    const int stage = back ? 2 * a->stages - 1 - d : d;
    const int from = a->tree.levels * stage / a->stages, to = a->tree.levels * (stage + 1) / a->stages;
    return (group){from, to, (1 << (to - from)) - 1, back};
}

/* The first round folds, the last one hands the sums back; they are empty where P is a power of two. */
static void post_fold(thaw_allreduce *a, slot *s, bool unfold) {
    if (a->rank >= 2 * a->tree.fold)
        return;
    const bool folded = a->rank % 2 != 0;
    const run all = {0, blocks_of(a, s)};
    if (folded != unfold)
        post_send(a, s, a->rank ^ 1, all, unfold);
    else
        post_receive(a, s, a->rank ^ 1, all, unfold, 0);
}

static void post_owners(thaw_allreduce *a, slot *s) {
    const run own = {a->rank, a->rank + 1};
    for (int i = 1; i < a->size; i++) {
        const int rank = (a->rank + i) % a->size; /* not all to the same rank first */
        const run other = {rank, rank + 1};
        const bool final = s->round > 0;
        post_receive(a, s, rank, final ? other : own, final, rank - (rank > a->rank));
        post_send(a, s, rank, final ? own : other, final);
    }
}

static void post_halving(thaw_allreduce *a, slot *s) {
    const group g = group_of(a, s);
    const run mine = blocks_at(a, a->place, g.to);
    for (int i = 1; i <= g.others; i++) {
        const int there = a->place ^ i << g.from, rank = thaw_rank_at(a->tree, there);
        const run theirs = blocks_at(a, there, g.to);
        post_receive(a, s, rank, g.back ? theirs : mine, g.back, i - 1);
        post_send(a, s, rank, g.back ? mine : theirs, g.back);
    }
}

static void post(thaw_allreduce *a, slot *s) {
    s->pending = 0;
    if (s->scheme == THAW_SCHEME_OWNERS) {
        post_owners(a, s);
    } else if (s->round == 0 || s->round == rounds_of(a, s->scheme) - 1) {
        post_fold(a, s, s->round > 0);
    } else if (a->place >= 0 && s->scheme == THAW_SCHEME_HALVING) {
        post_halving(a, s);
    } else if (a->place >= 0) {
        const int rank = thaw_rank_at(a->tree, a->place ^ 1 << (s->round - 1));
        post_receive(a, s, rank, (run){0, 1}, false, 0);
        post_send(a, s, rank, (run){0, 1}, false);
    }
}

/* Sums `leaves` arrays of n floats, a power of two of them, in a binary tree into `own`, one of them; folded[i] is added to
 * leaf i before, for i < fold. All but `own` are used up. Block by block: what is made of complete sums finds them in the cache.
 * [out] results: of complete sums, with `use`; NULL: sums are partial. */
static void sum_tree(const thaw_allreduce *a, float *const *leaf, int leaves, float *const *folded, int fold, float *own,
                     float *results, size_t n) {
#pragma omp parallel for schedule(static) if (n > PARALLEL && !thaw_threads_busy())
    for (size_t at = 0; at < n; at += ADD_BLOCK) {
        const size_t width = smaller(ADD_BLOCK, n - at);
        for (int i = 0; i < fold; i++)
            add(leaf[i] + at, folded[i] + at, width);
        for (int distance = 1; distance < leaves; distance *= 2)
            for (int i = 0; i < leaves; i += 2 * distance)
                add(leaf[i] + at, leaf[i + distance] + at, width);
        if (a->use && results)
            a->use(a->payload, leaf[0] + at, results + at, width);
        else if (leaf[0] != own)
            memcpy(own + at, leaf[0] + at, width * sizeof(float));
    }
}

/* This rank's part of a chunk from the parts of all ranks. */
static void sum_owners(const thaw_allreduce *a, const slot *s) {
    const size_t begin = part_begin(a, s->count, a->rank), own = part_begin(a, s->count, a->rank + 1) - begin;
    float *part[OWNERS_MOST], *leaf[OWNERS_MOST], *folded[OWNERS_MOST];
    for (int r = 0; r < a->size; r++)
        part[r] = r == a->rank ? s->values + begin : s->staging + (size_t)(r - (r > a->rank)) * own;
    for (int place = 0; place < 1 << a->tree.levels; place++)
        leaf[place] = part[thaw_rank_at(a->tree, place)];
    for (int i = 0; i < a->tree.fold; i++)
        folded[i] = part[2 * i + 1];
    sum_tree(a, leaf, 1 << a->tree.levels, folded, a->tree.fold, part[a->rank], s->final + begin, own);
}

/* The part of a chunk that this rank keeps of its group's. */
static void sum_group(const thaw_allreduce *a, const slot *s, const group *g) {
    const span mine = region(s->count, s->values, a->place, g->to);
    const int bits = a->place >> g->from & g->others;
    float *leaf[1 << GROUP_LEVELS];
    for (int i = 0; i <= g->others; i++)
        leaf[i] = i == bits ? mine.values : s->staging + (size_t)((i ^ bits) - 1) * mine.count;
    sum_tree(a, leaf, g->others + 1, NULL, 0, mine.values, g->to == a->tree.levels ? final_of(s, mine) : NULL, mine.count);
}

/* With halves: makes floats of n messages of blocks r, in the places where messages of floats arrive. */
static void take_arrived(const thaw_allreduce *a, slot *s, run r, int n) {
    for (int i = 0; a->half && i < n; i++)
        decode(a, s, r, s->arrived + (size_t)i * coded_length(a, s, r), s->staging + (size_t)i * floats_of(a, s, r).count);
}

/* Sums this rank's own part, which is then final. */
static void combine_owners(thaw_allreduce *a, slot *s) {
    const run own = {a->rank, a->rank + 1};
    if (s->round > 0)
        return;
    take_arrived(a, s, own, a->size - 1);
    sum_owners(a, s);
    if (a->half)
        code(a, s, own);
}

static void combine_halving(thaw_allreduce *a, slot *s) {
    const group g = group_of(a, s);
    if (g.back)
        return;
    take_arrived(a, s, blocks_at(a, a->place, g.to), g.others);
    sum_group(a, s, &g);
    if (a->half && g.to == a->tree.levels)
        code(a, s, blocks_at(a, a->place, a->tree.levels));
}

/* What a round has brought. */
static void combine(thaw_allreduce *a, slot *s) {
    const run all = {0, blocks_of(a, s)};
    if (s->scheme == THAW_SCHEME_OWNERS) {
        combine_owners(a, s);
    } else if (s->round == 0) {
        if (a->rank < 2 * a->tree.fold && a->place >= 0) {
            take_arrived(a, s, all, 1);
            add(s->values, s->staging, s->count);
        }
    } else if (s->round < rounds_of(a, s->scheme) - 1 && a->place >= 0) {
        if (s->scheme == THAW_SCHEME_HALVING) {
            combine_halving(a, s);
        } else {
            add(s->values, s->staging, s->count);
            if (a->use && s->round == a->tree.levels) /* all have the sums */
                a->use(a->payload, s->values, s->final, s->count);
        }
    }
    if (a->half && s->round == rounds_of(a, s->scheme) - 1)
        decode(a, s, all, s->coded, s->values);
}

/* The round that brings the last summands. */
static int summed_in(const thaw_allreduce *a, thaw_scheme scheme) {
    return scheme == THAW_SCHEME_OWNERS ? 0 : scheme == THAW_SCHEME_DOUBLING ? a->tree.levels : a->stages;
}

/* Goes on with a chunk that waits for no message. */
static void advance(thaw_allreduce *a, slot *s) {
    const int rounds = rounds_of(a, s->scheme);
    while (s->pending == 0) {
        combine(a, s);
        if (++s->round == rounds) {
            s->busy = false;
            a->left -= s->count;
            return;
        }
        post(a, s);
    }
}

static thaw_scheme scheme_for(const thaw_allreduce *a, size_t count) {
    if (a->scheme != THAW_SCHEME_AUTO)
        return a->scheme;
    if (a->half) /* in doubling several ranks would round the same sum */
        return a->size <= OWNERS_AUTO ? THAW_SCHEME_OWNERS : THAW_SCHEME_HALVING;
    if (count <= SMALL || (a->size == 2 && !a->use))
        return THAW_SCHEME_DOUBLING;
    return a->size <= OWNERS_AUTO ? THAW_SCHEME_OWNERS : THAW_SCHEME_HALVING;
}

/* What was lost in the step before comes in. */
static void feed_back(float *restrict values, float *restrict lost, size_t n) {
    for (size_t i = 0; i < n; i++) {
        values[i] += lost[i];
        lost[i] = 0.0f;
    }
}

/* Starts chunks while there is room. */
static void start_chunks(thaw_allreduce *a) {
    for (;;) {
        while (a->first < a->next && !a->slots[a->first % a->window].busy)
            a->first++;
        if (a->at == a->n_line || a->next - a->first == a->window)
            return;
        const array *from = &a->line[a->at];
        slot *s = &a->slots[a->next++ % a->window];
        s->values = from->values + a->cut;
        s->final = from->final + a->cut;
        s->count = smaller(a->chunk, from->count - a->cut);
        if (a->half) {
            s->lost = from->lost + a->cut;
            feed_back(s->values, s->lost, s->count);
        }
        s->scheme = scheme_for(a, s->count);
        s->round = from->gather ? summed_in(a, s->scheme) + 1 : 0;
        s->busy = true;
        a->cut += s->count;
        if (a->cut == from->count) {
            a->at++;
            a->cut = 0;
        }
        post(a, s);
        advance(a, s);
    }
}

static void take_ended(thaw_allreduce *a, int n) {
    for (int i = 0; i < n; i++) {
        slot *s = &a->slots[a->ended[i] / a->messages];
        if (--s->pending == 0)
            advance(a, s);
    }
    start_chunks(a);
}

static void put_in_line(thaw_allreduce *a, array next) {
    if (a->size == 1 || next.count == 0)
        return;
    a->line[a->n_line++] = next;
    a->left += next.count;
    start_chunks(a);
}

void thaw_allreduce_begin(thaw_allreduce *a, float *values, float *lost, float *results, size_t count) {
    put_in_line(a, (array){values, lost, a->use ? results : values, count, false});
}

void thaw_allreduce_gather(thaw_allreduce *a, float *values, size_t count) {
    put_in_line(a, (array){values, NULL, values, count, true});
}

bool thaw_allreduce_use(thaw_allreduce *a, thaw_exchange_use *use, void *payload) {
    if (a->size == 1 || a->half)
        return false;
    a->use = use;
    a->payload = payload;
    return true;
}

bool thaw_allreduce_poll(thaw_allreduce *a) {
    bool moved = false;
    for (int idle = 0; a->left > 0 && idle < IDLE_TRIES;) {
        int n = 0;
        MPI_Testsome(a->window * a->messages, a->requests, &n, a->ended, MPI_STATUSES_IGNORE);
        if (n > 0)
            take_ended(a, n); /* MPI_UNDEFINED, no request at all, is negative */
        else
            idle++;
        moved = moved || n > 0;
    }
    return moved;
}

void thaw_allreduce_finish(thaw_allreduce *a) {
    while (a->left > 0) {
        int n = 0;
        MPI_Waitsome(a->window * a->messages, a->requests, &n, a->ended, MPI_STATUSES_IGNORE);
        take_ended(a, n);
    }
    a->n_line = a->at = 0;
}

size_t thaw_allreduce_left(const thaw_allreduce *a) { return a->left; }

/* Staging of a slot: no longer than the longest chunk can be. */
static size_t stride_for(size_t floats, size_t chunk) { return align_up(smaller(chunk, floats)) + SLACK; }

/* With halves, floats of a slot beside: all blocks of a chunk coded, and messages that arrive, no longer than them. */
static size_t coded_stride(size_t floats, size_t chunk, int ranks) {
    return align_up(smaller(chunk, floats) + SLACK + (size_t)ranks * HEAD);
}

/* No more slots than chunks: n arrays have at most n short ones. */
static size_t slots_for(int n, size_t floats, size_t chunk, size_t window) {
    return smaller(window, floats / chunk + (size_t)n);
}

size_t thaw_allreduce_memory(int n, size_t floats, int ranks, bool half) {
    const size_t stride = stride_for(floats, CHUNK) + (half ? coded_stride(floats, CHUNK, ranks) : 0);
    return ranks == 1 ? 0 : slots_for(n, floats, CHUNK, WINDOW) * stride * sizeof(float);
}

static void find_place(thaw_allreduce *a, int group_levels) {
    a->tree = thaw_rank_tree_of(a->size);
    a->stages = (a->tree.levels + group_levels - 1) / group_levels;
    a->place = thaw_rank_place(a->tree, a->rank);
}

static bool make_slots(thaw_allreduce *a, int n, size_t floats, size_t window) {
    const size_t plain = stride_for(floats, a->chunk), coded = a->half ? coded_stride(floats, a->chunk, a->size) : 0;
    const size_t stride = plain + coded, slots = slots_for(n, floats, a->chunk, window);
    const bool owners = a->scheme == THAW_SCHEME_OWNERS || (a->scheme == THAW_SCHEME_AUTO && a->size <= OWNERS_AUTO);
    const int group_levels = a->stages ? (a->tree.levels + a->stages - 1) / a->stages : 0;
    a->window = (int)slots;
    a->messages = 2 * (owners ? a->size - 1 : a->scheme == THAW_SCHEME_DOUBLING ? 1 : (1 << group_levels) - 1);
    const size_t requests = slots * (size_t)a->messages;
    a->staging = thaw_calloc(slots, stride * sizeof *a->staging);
    a->slots = thaw_calloc(slots, sizeof *a->slots);
    a->requests = thaw_calloc(requests, sizeof *a->requests);
    a->ended = thaw_calloc(requests, sizeof *a->ended);
    a->line = thaw_calloc((size_t)n, sizeof *a->line);
    if (!a->staging || !a->slots || !a->requests || !a->ended || !a->line)
        return false;
    for (size_t i = 0; i < slots; i++) {
        a->slots[i].staging = a->staging + i * stride;
        a->slots[i].coded = a->half ? (uint16_t *)(void *)(a->slots[i].staging + plain) : NULL;
        a->slots[i].arrived = a->half ? a->slots[i].coded + coded : NULL;
    }
    for (size_t i = 0; i < requests; i++)
        a->requests[i] = MPI_REQUEST_NULL;
    return true;
}

thaw_status thaw_allreduce_create(thaw_allreduce **out, thaw_comm *comm, int n, size_t floats,
                                  const thaw_allreduce_options *options) {
    *out = NULL;
    thaw_allreduce *a = thaw_calloc(1, sizeof *a);
    if (!a)
        return thaw_fail(THAW_RESOURCE, "exchange: not enough memory for %d buckets", n);
    const size_t window = options && options->window ? (size_t)options->window : WINDOW;
    a->world = thaw_comm_exchange_world(comm);
    a->rank = thaw_comm_rank(comm);
    a->size = thaw_comm_size(comm);
    a->scheme = options ? options->scheme : THAW_SCHEME_AUTO;
    a->half = options && options->half;
    a->chunk = options && options->chunk ? options->chunk : CHUNK;
    const int group_levels = options && options->group_levels ? options->group_levels : GROUP_LEVELS;
    find_place(a, group_levels);
    thaw_status status = THAW_OK;
    if (a->chunk > INT_MAX || window > WINDOW || group_levels > GROUP_LEVELS ||
        (a->scheme == THAW_SCHEME_OWNERS && a->size > OWNERS_MOST) || (a->half && a->scheme == THAW_SCHEME_DOUBLING))
        status = thaw_fail(THAW_INTERNAL, "exchange: scheme %d for %d ranks with %zu chunks of %zu floats", (int)a->scheme,
                           a->size, window, a->chunk);
    else if (a->size > 1 && !make_slots(a, n, floats, window))
        status = thaw_fail(THAW_RESOURCE, "exchange: not enough memory to sum %zu bytes of gradients over %d ranks",
                           floats * sizeof(float), a->size);
    if (status != THAW_OK) {
        thaw_allreduce_free(a);
        return status;
    }
    *out = a;
    return THAW_OK;
}

void thaw_allreduce_free(thaw_allreduce *a) {
    if (!a)
        return;
    thaw_free(a->staging);
    thaw_free(a->slots);
    thaw_free(a->requests);
    thaw_free(a->ended);
    thaw_free(a->line);
    thaw_free(a);
}
