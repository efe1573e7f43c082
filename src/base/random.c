#include <Random123/philox.h>

#include "base/random.h"

__extension__ typedef unsigned __int128 uint128;

thaw_draw thaw_philox(uint64_t seed, thaw_purpose purpose, uint32_t a, uint64_t b, uint32_t draw) {
    /* The purpose sits in the key's top byte: keys of different purposes never meet for seeds below 2^56. */
    const philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32) ^ ((uint32_t)purpose << 24)}};
    const philox4x32_ctr_t counter = {{(uint32_t)b, (uint32_t)(b >> 32), a, draw}};
    const philox4x32_ctr_t word = philox4x32(counter, key); /* 10 rounds */
    return (thaw_draw){{word.v[0], word.v[1], word.v[2], word.v[3]}};
}

uint64_t thaw_bounded(thaw_draw draw, uint64_t n) {
    /* The high half of word * n. Its bias is below n / 2^64, which no run can see. */
    const uint64_t word = (uint64_t)draw.word[1] << 32 | draw.word[0];
    return (uint64_t)((uint128)word * n >> 64);
}
