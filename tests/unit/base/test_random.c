/* Philox4x32-10 against Random123's known answers (kat_vectors), and what is made of its words. */
#include "base_case.h"

#include "base/random.h"

static void expect_words(thaw_draw draw, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    const uint32_t expected[4] = {a, b, c, d};
    assert_memory_equal(draw.word, expected, sizeof expected);
}

/* Purpose 0 leaves the key as the seed is: key = (seed low, seed high), counter = (b low, b high, a, draw). */
static void test_known_answers(void **state) {
    (void)state;
    const thaw_purpose none = (thaw_purpose)0;
    expect_words(thaw_philox(0, none, 0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
    expect_words(thaw_philox(UINT64_MAX, none, UINT32_MAX, UINT64_MAX, UINT32_MAX), 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
                 0x6d5451fd);
    expect_words(thaw_philox(UINT64_C(0x299f31d0a4093822), none, 0x13198a2e, UINT64_C(0x85a308d3243f6a88), 0x03707344),
                 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
}

/* Written here in full from the paper, for keys with a purpose. */
static thaw_draw plain_philox(const uint32_t counter[4], uint32_t key0, uint32_t key1) {
    uint32_t c[4];
    memcpy(c, counter, sizeof c);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53 * c[0], p1 = (uint64_t)0xCD9E8D57 * c[2];
        const uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ key0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ key1,
                                  (uint32_t)p0};
        memcpy(c, next, sizeof c);
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
    return (thaw_draw){{c[0], c[1], c[2], c[3]}};
}

static void test_purposes(void **state) {
    (void)state;
    for (int purpose = THAW_DRAW_SHUFFLE; purpose <= THAW_DRAW_INIT; purpose++) {
        const uint32_t counter[4] = {7, 1, 3, 9};
        const thaw_draw expected = plain_philox(counter, 5, 2u ^ (uint32_t)purpose << 24);
        const thaw_draw draw = thaw_philox(UINT64_C(0x200000005), (thaw_purpose)purpose, 3, UINT64_C(0x100000007), 9);
        assert_memory_equal(draw.word, expected.word, sizeof expected.word);
    }
}

static void test_uniform(void **state) {
    (void)state;
    assert_true(thaw_uniform(0) == 0.0f);
    assert_true(thaw_uniform(UINT32_MAX) < 1.0f);
    assert_true(thaw_uniform(UINT32_MAX) == 1.0f - 0x1p-24f);
    assert_true(thaw_uniform(0x80000000) == 0.5f);
    double sum = 0.0;
    for (uint32_t i = 0; i < 10000; i++)
        for (int k = 0; k < 4; k++)
            sum += (double)thaw_uniform(thaw_philox(1, THAW_DRAW_INIT, 0, i, 0).word[k]);
    assert_true(sum / 40000.0 > 0.49 && sum / 40000.0 < 0.51);
}

static void test_bounded(void **state) {
    (void)state;
    assert_int_equal(thaw_bounded((thaw_draw){{UINT32_MAX, UINT32_MAX, 0, 0}}, 10), 9);
    assert_int_equal(thaw_bounded((thaw_draw){{0, 0, UINT32_MAX, UINT32_MAX}}, 10), 0);
    assert_int_equal(thaw_bounded((thaw_draw){{0, 0x80000000, 0, 0}}, 10), 5); /* word 1 is the high half */
    assert_true(thaw_bounded((thaw_draw){{UINT32_MAX, UINT32_MAX, 0, 0}}, UINT64_MAX) == UINT64_MAX - 1);
    int count[7] = {0};
    for (uint32_t i = 0; i < 70000; i++)
        count[thaw_bounded(thaw_philox(3, THAW_DRAW_SHUFFLE, 0, i, 0), 7)]++;
    for (int i = 0; i < 7; i++)
        assert_true(count[i] > 9600 && count[i] < 10400); /* 4.3 standard deviations */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_purposes),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
