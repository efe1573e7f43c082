#include <string.h>
#include <xxhash.h>

#include "base/hash.h"

uint64_t thaw_hash(const void *bytes, size_t size, uint64_t seed) {
    return XXH3_64bits_withSeed(size ? bytes : "", size, seed);
}

uint64_t thaw_hash_text(const char *text, uint64_t seed) { return thaw_hash(text, strlen(text), seed); }
