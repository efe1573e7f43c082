/* Items of work for the threads of a parallel region, neighbours to the same thread: each takes from its own run of them, and
 * then what others have left. What a thread computed in the last layer lies in its caches, and the next layer's items read the
 * same places; between cores that have no cache in common it would come from far. */
#ifndef THAW_BASE_ITEMS_H
#define THAW_BASE_ITEMS_H
#include <omp.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/part.h"
#include "base/threads.h"

enum { THAW_ITEM_RUNS = 64 }; /* more threads than that share runs */

typedef struct thaw_items {
    int runs;
    struct {
        _Alignas(64) _Atomic int64_t next;
        int64_t end;
    } run[THAW_ITEM_RUNS];
} thaw_items;

/* Items 0 to n-1. */
static inline void thaw_items_begin(thaw_items *items, int64_t n) {
    items->runs = thaw_threads() < THAW_ITEM_RUNS ? thaw_threads() : THAW_ITEM_RUNS;
    for (int i = 0; i < items->runs; i++) {
        const thaw_part part = {i, items->runs};
        atomic_init(&items->run[i].next, thaw_part_begin(part, n));
        items->run[i].end = thaw_part_end(part, n);
    }
}

/* The next item for the calling thread; -1: there is none. */
static inline int64_t thaw_items_take(thaw_items *items) {
    for (int i = 0, own = omp_get_thread_num() % items->runs; i < items->runs; i++) {
        const int at = (own + i) % items->runs;
        if (atomic_load_explicit(&items->run[at].next, memory_order_relaxed) >= items->run[at].end)
            continue;
        const int64_t item = atomic_fetch_add_explicit(&items->run[at].next, 1, memory_order_relaxed);
        if (item < items->run[at].end)
            return item;
    }
    return -1;
}
#endif
