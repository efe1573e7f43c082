#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* XXH3_state_t on the stack */
#include <xxhash.h>

#include "base/hash.h"

uint64_t thaw_hash(const void *bytes, size_t size, uint64_t seed) {
    return XXH3_64bits_withSeed(size ? bytes : "", size, seed);
}

uint64_t thaw_hash_text(const char *text, uint64_t seed) { return thaw_hash(text, strlen(text), seed); }

uint64_t thaw_hash_pieces(const thaw_piece *pieces, size_t n, uint64_t seed) {
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, seed);
    for (size_t i = 0; i < n; i++)
        if (pieces[i].size)
            XXH3_64bits_update(&state, pieces[i].bytes, pieces[i].size);
    return XXH3_64bits_digest(&state);
}
