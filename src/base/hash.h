/* XXH3 64-bit. */
#ifndef THAW_BASE_HASH_H
#define THAW_BASE_HASH_H
#include <stddef.h>
#include <stdint.h>

#include "base/piece.h"

uint64_t thaw_hash(const void *bytes, size_t size, uint64_t seed); /* chain by passing the last hash as seed */
uint64_t thaw_hash_text(const char *text, uint64_t seed);
/* thaw_hash of the bytes of all pieces as if they lay behind each other. */
uint64_t thaw_hash_pieces(const thaw_piece *pieces, size_t n, uint64_t seed);
#endif
