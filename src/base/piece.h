/* A run of bytes that somebody else owns. */
#ifndef THAW_BASE_PIECE_H
#define THAW_BASE_PIECE_H
#include <stddef.h>

typedef struct thaw_piece {
    const void *bytes;
    size_t size;
} thaw_piece;
#endif
