/* A part of work or memory that several have divided among them. */
#ifndef THAW_BASE_PART_H
#define THAW_BASE_PART_H
#include <stdint.h>

typedef struct thaw_part {
    int number, parts; /* number < parts */
} thaw_part;
#define THAW_WHOLE ((thaw_part){0, 1})

/* Of n pieces those from begin up to end are the part's. */
static inline int64_t thaw_part_begin(thaw_part part, int64_t n) { return n * part.number / part.parts; }
static inline int64_t thaw_part_end(thaw_part part, int64_t n) { return n * (part.number + 1) / part.parts; }
#endif
