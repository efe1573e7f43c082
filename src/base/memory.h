/* All memory of thaw: counted, 64-byte aligned, replaceable in tests so that the n-th request fails. */
#ifndef THAW_BASE_MEMORY_H
#define THAW_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed block, 64-byte aligned; NULL if there is none (or bytes overflows). bytes 0 gives a valid pointer. */
void *thaw_malloc(size_t bytes);
void *thaw_calloc(size_t count, size_t bytes); /* checked product */
/* Grows or shrinks; new bytes are zero. NULL pointer allocates. On failure the old block stays. */
void *thaw_realloc(void *pointer, size_t bytes);
void thaw_free(void *pointer); /* NULL is accepted */
/* Once, at the start of the program: what is freed goes back to the system and does not wait for the next request. */
void thaw_memory_start(void);
/* The system may have the memory of a block back: the block stays, what it holds is undefined until it is written again. Smaller
 * blocks than THAW_MEMORY_LARGE bytes keep theirs. */
enum { THAW_MEMORY_LARGE = 256 * 1024 };
void thaw_memory_rest(void *pointer); /* NULL is accepted */
char *thaw_strdup(const char *text);
char *thaw_strndup(const char *text, size_t length);
/* printf into a new string (thaw_free). NULL if there is no memory. */
char *thaw_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* For tests and reports. */
uint64_t thaw_memory_requests(void); /* calls that allocated, since the start of the process */
size_t thaw_memory_live(void);       /* bytes held now */
size_t thaw_memory_peak(void);       /* highest bytes held */
void thaw_memory_fail_after(int64_t n); /* the n-th request from now fails, once (1 or 0: the next); negative: never */

/* Product and sum that report overflow. */
static inline bool thaw_mul_overflow(size_t a, size_t b, size_t *out) { return __builtin_mul_overflow(a, b, out); }
static inline bool thaw_add_overflow(size_t a, size_t b, size_t *out) { return __builtin_add_overflow(a, b, out); }
#endif
