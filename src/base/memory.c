/* Counted, aligned, zeroed memory.
 *
 * In front of each block lie 64 bytes for its head, so the block keeps the alignment. Small blocks are aligned requests
 * of exact size, which lets sanitizers see one byte too far; large ones come from calloc, whose fresh pages are zero
 * already and are placed on the NUMA node of the thread that first writes them. */
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"

enum { ALIGNMENT = 64, LARGE = THAW_MEMORY_LARGE, LARGE_PAGE = 2 << 20, HUGE = LARGE_PAGE /* kernels stride through it */ };

typedef struct head {
    void *start; /* what the C library gave */
    size_t bytes;
} head;

static _Atomic uint64_t requests;
static _Atomic size_t live, peak;
static _Atomic int64_t countdown = -1;

static head *head_of(void *pointer) { return (head *)(void *)((char *)pointer - ALIGNMENT); }

/* True for the one request that a test wants to fail. */
static bool must_fail(void) {
    if (atomic_load_explicit(&countdown, memory_order_relaxed) < 0)
        return false;
    int64_t left = atomic_load(&countdown);
    while (left >= 0) {
        const int64_t next = left <= 1 ? -1 : left - 1;
        if (atomic_compare_exchange_weak(&countdown, &left, next))
            return next < 0;
    }
    return false;
}

static void count(size_t bytes) {
    atomic_fetch_add(&requests, 1);
    const size_t now = atomic_fetch_add(&live, bytes) + bytes;
    size_t highest = atomic_load(&peak);
    while (highest < now && !atomic_compare_exchange_weak(&peak, &highest, now)) {
    }
}

/* Kernels walk 36 matrices at a time: with small pages each step would miss the table of translations, and where these lie in
 * memory would decide which lines of a cache they share. Advice: that it is not taken is no failure. */
static void ask_for_large_pages(void *block, size_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)block + page - 1) / page * page;
    madvise((void *)from, ((uintptr_t)block + bytes) / page * page - from, MADV_HUGEPAGE);
#else
    (void)block, (void)bytes;
#endif
}

void *thaw_malloc(size_t bytes) {
    if (bytes > SIZE_MAX / 2 || must_fail())
        return NULL;
    void *start = NULL;
    char *block;
    if (bytes < LARGE) {
        if (posix_memalign(&start, ALIGNMENT, ALIGNMENT + bytes) != 0)
            return NULL;
        block = (char *)start + ALIGNMENT;
        memset(block, 0, bytes);
    } else {
        const size_t align = bytes >= HUGE ? LARGE_PAGE : ALIGNMENT;
        start = calloc(1, bytes + ALIGNMENT + align);
        if (!start)
            return NULL;
        block = (char *)start + ALIGNMENT;
        block += (align - (uintptr_t)block % align) % align;
        if (bytes >= HUGE)
            ask_for_large_pages(block, bytes);
    }
    *head_of(block) = (head){.start = start, .bytes = bytes};
    count(bytes);
    return block;
}

void *thaw_calloc(size_t n, size_t bytes) {
    size_t total;
    return thaw_mul_overflow(n, bytes, &total) ? NULL : thaw_malloc(total);
}

void *thaw_realloc(void *pointer, size_t bytes) {
    void *block = thaw_malloc(bytes);
    if (!block || !pointer)
        return block;
    const size_t old = head_of(pointer)->bytes;
    memcpy(block, pointer, old < bytes ? old : bytes);
    thaw_free(pointer);
    return block;
}

void thaw_free(void *pointer) {
    if (!pointer)
        return;
    const head *h = head_of(pointer);
    atomic_fetch_sub(&live, h->bytes);
    free(h->start);
}

void thaw_memory_start(void) {
    mallopt(M_MMAP_THRESHOLD, LARGE); /* fixed: the C library would raise it with each large block that is freed */
}

void thaw_memory_rest(void *pointer) {
    if (!pointer || head_of(pointer)->bytes < LARGE)
        return;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)pointer;
    const uintptr_t from = (first + page - 1) / page * page, end = (first + head_of(pointer)->bytes) / page * page;
    madvise((void *)from, end - from, MADV_DONTNEED); /* advice: that it is not taken is no failure */
}

char *thaw_strdup(const char *text) { return thaw_strndup(text, strlen(text)); }

char *thaw_strndup(const char *text, size_t length) {
    length = strnlen(text, length);
    char *copy = thaw_malloc(length + 1);
    if (copy)
        memcpy(copy, text, length);
    return copy;
}

char *thaw_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = length < 0 ? NULL : thaw_malloc((size_t)length + 1);
    if (text) {
        va_start(args, format);
        vsnprintf(text, (size_t)length + 1, format, args);
        va_end(args);
    }
    return text;
}

uint64_t thaw_memory_requests(void) { return atomic_load(&requests); }
size_t thaw_memory_live(void) { return atomic_load(&live); }
size_t thaw_memory_peak(void) { return atomic_load(&peak); }
void thaw_memory_fail_after(int64_t n) { atomic_store(&countdown, n); }
