/* Places of blocks in a tape's arena, by lifetime. */
#include <stdlib.h>

#include "base/memory.h"
#include "graph/tape.h"

/* No machine holds more in one block; sums of blocks below it do not overflow. */
#define LARGEST_BLOCK ((size_t)1 << 42)

static thaw_status place_bytes(const thaw_place *place, int64_t images, size_t *bytes) {
    if (thaw_mul_overflow(place->per_image, (size_t)images, bytes) || thaw_add_overflow(*bytes, place->fixed, bytes) ||
        *bytes > LARGEST_BLOCK)
        return thaw_fail(THAW_RESOURCE, "the output of one layer has %zu bytes an image, for %lld images on a rank that is more "
                                        "than any memory; use a smaller batch_size or smaller images",
                         place->per_image, (long long)images);
    *bytes = thaw_align(*bytes);
    return THAW_OK;
}

typedef struct block {
    thaw_place *place;
    size_t bytes;
    int order; /* keeps the sort stable, so that equal plans have equal layouts */
} block;

static int by_size(const void *a, const void *b) {
    const block *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->order - y->order;
}

static int by_offset(const void *a, const void *b) {
    const block *x = *(const block *const *)a, *y = *(const block *const *)b;
    return x->place->offset < y->place->offset ? -1 : x->place->offset > y->place->offset;
}

thaw_status thaw_layout(thaw_tape *tape, int64_t images) {
    int capacity = tape->n_values + tape->n_places, n = 0;
    thaw_status status = THAW_OK;
    block *blocks = thaw_calloc((size_t)capacity + 1, sizeof *blocks);
    block **meets = thaw_calloc((size_t)capacity + 1, sizeof *meets);
    if (!blocks || !meets) {
        thaw_free(blocks);
        thaw_free(meets);
        return thaw_fail(THAW_RESOURCE, "no memory to lay out the plan");
    }
    for (int i = 0; i < capacity; i++) {
        thaw_place *place = i < tape->n_values ? &tape->values[i].place : &tape->places[i - tape->n_values];
        bool elsewhere = i < tape->n_values && tape->values[i].region != THAW_REGION_ARENA;
        size_t bytes;
        THAW_GOTO(place_bytes(place, images, &bytes)); /* of blocks that lie elsewhere too */
        if (!elsewhere && place->first <= place->last) {
            blocks[n] = (block){place, bytes, n};
            n++;
        }
    }
    qsort(blocks, (size_t)n, sizeof *blocks, by_size);
    tape->arena_bytes = 0;
    for (int i = 0; i < n; i++) { /* first gap that fits among the placed blocks that live at the same time */
        int n_meets = 0;
        for (int k = 0; k < i; k++)
            if (blocks[k].place->first <= blocks[i].place->last && blocks[i].place->first <= blocks[k].place->last)
                meets[n_meets++] = &blocks[k];
        qsort(meets, (size_t)n_meets, sizeof *meets, by_offset);
        size_t at = 0;
        for (int k = 0; k < n_meets && meets[k]->place->offset < at + blocks[i].bytes; k++)
            if (meets[k]->place->offset + meets[k]->bytes > at)
                at = meets[k]->place->offset + meets[k]->bytes;
        blocks[i].place->offset = at;
        if (at + blocks[i].bytes > tape->arena_bytes)
            tape->arena_bytes = at + blocks[i].bytes;
    }
out:
    thaw_free(blocks);
    thaw_free(meets);
    return status;
}
