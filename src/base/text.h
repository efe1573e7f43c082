/* Growing byte buffer, reader of packed bytes, nearest-name suggestions. */
#ifndef THAW_BASE_TEXT_H
#define THAW_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/status.h"

typedef struct thaw_buffer {
    char *data; /* always zero-terminated behind `size` once anything was put */
    size_t size, capacity;
    bool failed; /* a request for memory failed: contents are incomplete */
} thaw_buffer;

void thaw_buffer_put(thaw_buffer *buffer, const void *bytes, size_t size);
void thaw_buffer_printf(thaw_buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
void thaw_buffer_i64(thaw_buffer *buffer, int64_t value);
void thaw_buffer_f64(thaw_buffer *buffer, double value);
void thaw_buffer_text(thaw_buffer *buffer, const char *text); /* length and bytes; NULL survives */
void thaw_buffer_free(thaw_buffer *buffer);

/* Reads what the put functions wrote. A read past the end sets `failed` and gives zeros. */
typedef struct thaw_reader {
    const char *data;
    size_t size, at;
    bool failed;
} thaw_reader;
void thaw_reader_get(thaw_reader *reader, void *bytes, size_t size);
const void *thaw_reader_borrow(thaw_reader *reader, size_t size); /* NULL when failed */
int64_t thaw_reader_i64(thaw_reader *reader);
double thaw_reader_f64(thaw_reader *reader);
char *thaw_reader_text(thaw_reader *reader); /* thaw_free; NULL if NULL was put */

/* The names nearest to `wrong` by edit distance, as "'a' or 'b'" in a static per-thread buffer; "" when none is near. */
const char *thaw_nearest(const char *wrong, const char *const *names, int n);
/* fnmatch-like glob with * ? [set]. */
bool thaw_glob(const char *pattern, const char *text);
#endif
