/* Growing byte buffer, reader of packed bytes, nearest names, globs. */
#include <ctype.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "base/text.h"

enum { NAME_LONGEST = 128, SUGGESTIONS = 3, SUGGESTION_BYTES = 512 };

/* Room for `size` more bytes and the zero behind them. */
static bool reserve(thaw_buffer *buffer, size_t size) {
    size_t need;
    if (buffer->failed || thaw_add_overflow(buffer->size, size, &need) || thaw_add_overflow(need, 1, &need)) {
        buffer->failed = true;
        return false;
    }
    if (need <= buffer->capacity)
        return true;
    size_t capacity = buffer->capacity < 64 ? 64 : buffer->capacity;
    while (capacity < need)
        capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
    char *data = thaw_realloc(buffer->data, capacity);
    if (!data) {
        buffer->failed = true;
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

void thaw_buffer_put(thaw_buffer *buffer, const void *bytes, size_t size) {
    if (!reserve(buffer, size))
        return;
    if (size)
        memcpy(buffer->data + buffer->size, bytes, size);
    buffer->size += size;
    buffer->data[buffer->size] = 0;
}

void thaw_buffer_printf(thaw_buffer *buffer, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0)
        buffer->failed = true;
    if (length < 0 || !reserve(buffer, (size_t)length))
        return;
    va_start(args, format);
    vsnprintf(buffer->data + buffer->size, (size_t)length + 1, format, args);
    va_end(args);
    buffer->size += (size_t)length;
}

void thaw_buffer_i64(thaw_buffer *buffer, int64_t value) { thaw_buffer_put(buffer, &value, sizeof value); }
void thaw_buffer_f64(thaw_buffer *buffer, double value) { thaw_buffer_put(buffer, &value, sizeof value); }

void thaw_buffer_text(thaw_buffer *buffer, const char *text) {
    thaw_buffer_i64(buffer, text ? (int64_t)strlen(text) : -1);
    if (text)
        thaw_buffer_put(buffer, text, strlen(text));
}

void thaw_buffer_free(thaw_buffer *buffer) {
    thaw_free(buffer->data);
    *buffer = (thaw_buffer){0};
}

const void *thaw_reader_borrow(thaw_reader *reader, size_t size) {
    if (reader->failed || size > reader->size - reader->at) {
        reader->failed = true;
        return NULL;
    }
    const void *bytes = reader->data + reader->at;
    reader->at += size;
    return bytes;
}

void thaw_reader_get(thaw_reader *reader, void *bytes, size_t size) {
    if (size == 0)
        return;
    const void *from = thaw_reader_borrow(reader, size);
    if (from)
        memcpy(bytes, from, size);
    else
        memset(bytes, 0, size);
}

int64_t thaw_reader_i64(thaw_reader *reader) {
    int64_t value;
    thaw_reader_get(reader, &value, sizeof value);
    return value;
}

double thaw_reader_f64(thaw_reader *reader) {
    double value;
    thaw_reader_get(reader, &value, sizeof value);
    return value;
}

char *thaw_reader_text(thaw_reader *reader) {
    const int64_t length = thaw_reader_i64(reader);
    if (length == -1 || reader->failed)
        return NULL;
    const char *bytes = length < 0 ? NULL : thaw_reader_borrow(reader, (size_t)length);
    char *text = bytes ? thaw_strndup(bytes, (size_t)length) : NULL;
    if (!text)
        reader->failed = true;
    return text;
}

static int smaller(int a, int b) { return a < b ? a : b; }

static int lower(char c) { return tolower((unsigned char)c); }

/* Edits (insert, drop, replace, swap of neighbours) that turn a into b, without regard to case: optimal string
 * alignment distance, Wagner & Fischer (1974) with Damerau's swap. Bytes after NAME_LONGEST are not looked at. */
static int edit_distance(const char *a, const char *b) {
    const int m = (int)strnlen(a, NAME_LONGEST), n = (int)strnlen(b, NAME_LONGEST);
    int rows[3][NAME_LONGEST + 1]; /* of row i, i-1, i-2 */
    int *before = rows[0], *last = rows[1], *row = rows[2];
    for (int j = 0; j <= n; j++)
        last[j] = before[j] = j;
    for (int i = 1; i <= m; i++) {
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            const bool same = lower(a[i - 1]) == lower(b[j - 1]);
            row[j] = smaller(smaller(last[j], row[j - 1]) + 1, last[j - 1] + !same);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1]))
                row[j] = smaller(row[j], before[j - 2] + 1);
        }
        int *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[n];
}

/* How far `name` is from `wrong`; names that begin with what was written count as near. */
static int distance(const char *wrong, const char *name) {
    const size_t length = strlen(wrong);
    const int edits = edit_distance(wrong, name);
    return length >= 3 && strncasecmp(wrong, name, length) == 0 ? smaller(edits, 2) : edits;
}

const char *thaw_nearest(const char *wrong, const char *const *names, int n) {
    static _Thread_local char text[SUGGESTION_BYTES];
    text[0] = 0;
    const size_t length = strnlen(wrong, NAME_LONGEST);
    int best = length <= 3 ? 1 : length <= 8 ? 2 : (int)length / 3; /* farther ones are other words */
    int found[SUGGESTIONS], n_found = 0;
    for (int i = 0; i < n; i++) {
        const int edits = names[i] ? distance(wrong, names[i]) : NAME_LONGEST;
        if (edits < best || (edits == best && n_found == 0)) {
            best = edits;
            found[0] = i;
            n_found = 1;
        } else if (edits == best && n_found < SUGGESTIONS) {
            found[n_found++] = i;
        }
    }
    size_t used = 0;
    for (int i = 0; i < n_found; i++) {
        const int put = snprintf(text + used, sizeof text - used, "%s'%.*s'", i ? " or " : "", NAME_LONGEST,
                                 names[found[i]]);
        used += put > 0 ? (size_t)put : 0;
    }
    return text;
}

bool thaw_glob(const char *pattern, const char *text) { return fnmatch(pattern, text, 0) == 0; }
