/* Optimizers against Keras, over threads, with more than one piece of work, and without memory. */
#include <float.h>

#include "train_case.h"

#include "base/threads.h"
#include "keras_numbers.h"

/* Tensors of 5 and 3 values at 0 and 16 of the flat block, as a plan places them. */
static const thaw_segment places[] = {{0, 5, 0, 0, "a/kernel"}, {16, 3, 0, 0, "a/bias"}};

static void spread(float *block, const float *values) {
    memset(block, 0, 32 * sizeof *block);
    memcpy(block, values, 5 * sizeof *block);
    memcpy(block + 16, values + 5, 3 * sizeof *block);
}

static void test_keras(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof keras_optimizers / sizeof *keras_optimizers; c++) {
        const keras_optimizer *k = &keras_optimizers[c];
        thaw_optimizer *o;
        thaw_segment segments[2] = {places[0], places[1]};
        float w[32], g[32], end[32];
        print_message("  %s\n", k->name);
        segments[0].l2 = segments[1].l2 = k->l2;
        spread(w, k->start);
        spread(end, k->end);
        assert_ok(thaw_optimizer_create(&o, &k->config, 32, NULL));
        assert_int_equal(o->n_slots, thaw_optimizer_slots(&k->config));
        for (int step = 0; step < 3; step++) {
            spread(g, k->gradients + 8 * step);
            thaw_optimizer_prepare(o, w, g, segments, 2);
            thaw_optimizer_update(o, w, g, segments, 2, THAW_WHOLE);
        }
        assert_int_equal(o->step, 3);
        for (int i = 0; i < 32; i++)
            assert_near(w[i], end[i], 1e-6 * fmax(1.0, fabs(end[i])) * 0.5);
        thaw_optimizer_free(o);
    }
}

static void test_unsupported(void **state) {
    (void)state;
    thaw_optimizer *o;
    thaw_job_optimizer adam = {.kind = THAW_ADAM, .amsgrad = true}, rmsprop = {.kind = THAW_RMSPROP, .centered = true};
    assert_int_equal(thaw_optimizer_create(&o, &adam, 8, NULL), THAW_USAGE);
    assert_says(thaw_message(), "amsgrad");
    assert_int_equal(thaw_optimizer_create(&o, &rmsprop, 8, NULL), THAW_USAGE);
    assert_null(o);
}

enum { MANY = 300001 };

/* Bits are those of one thread, also where three ranks of a host each update their part; a learning rate that changed is used
 * from then on. */
static void test_divided(void **state) {
    (void)state;
    thaw_job_optimizer config = {.kind = THAW_ADAM, .learning_rate = 0.01, .beta_1 = 0.9, .beta_2 = 0.999, .epsilon = 1e-7,
                                 .global_clipnorm = 1.0};
    thaw_segment segments[2] = {{0, MANY - 17, 1e-4f, 1e-3f, "a"}, {MANY - 16, 16, 0, 0, "b"}};
    enum { RUNS = 3, PARTS = 3 };
    float *w[RUNS], *g = thaw_calloc(MANY, sizeof(float)), *changed = thaw_calloc(MANY, sizeof(float));
    for (int run = 0; run < RUNS; run++) {
        const int parts = run == 2 ? PARTS : 1;
        thaw_optimizer *o[PARTS];
        float *slots = thaw_calloc((size_t)2 * MANY, sizeof(float)); /* of all parts */
        thaw_threads_set(run == 1 ? 3 : 1);
        w[run] = thaw_calloc(MANY, sizeof(float));
        for (int i = 0; i < MANY; i++)
            w[run][i] = sinf((float)i);
        for (int part = 0; part < parts; part++)
            assert_ok(thaw_optimizer_create(&o[part], &config, MANY, run == 0 ? NULL : slots));
        for (int step = 0; step < 3; step++) {
            for (int i = 0; i < MANY; i++)
                g[i] = cosf((float)(i * (step + 1)));
            thaw_optimizer_prepare(o[0], w[run], g, segments, 2);
            for (int part = 0; part < parts; part++) { /* each has its own copy of the gradients */
                memcpy(changed, g, MANY * sizeof(float));
                o[part]->squares = o[0]->squares;
                if (step == 2)
                    o[part]->learning_rate = 0.5;
                thaw_optimizer_update(o[part], w[run], changed, segments, 2, (thaw_part){part, parts});
            }
        }
        for (int part = 0; part < parts; part++)
            thaw_optimizer_free(o[part]);
        thaw_free(slots);
    }
    assert_memory_equal(w[0], w[1], MANY * sizeof(float));
    assert_memory_equal(w[0], w[2], MANY * sizeof(float));
    assert_true(fabsf(w[0][5] - sinf(5.0f)) > 0.1f); /* the last rate was taken */
    double loss = thaw_regularizer_loss(w[0], segments, 2), want = 0.0;
    for (int i = 0; i < MANY - 17; i++)
        want += 1e-4f * fabs((double)w[0][i]) + (double)1e-3f * w[0][i] * w[0][i];
    assert_near(loss, want, 1e-6 * want);
    thaw_threads_set(1);
    for (int run = 0; run < RUNS; run++)
        thaw_free(w[run]);
    thaw_free(changed);
    thaw_free(g);
}

/* A number that is none is seen by whoever updates its piece, whatever clipping makes of it. */
static void test_finite(void **state) {
    (void)state;
    const float wrong[] = {NAN, INFINITY, -INFINITY};
    const thaw_segment segments[2] = {{0, MANY - 17, 0, 0, "a"}, {MANY - 16, 16, 0, 0, "b"}};
    const struct {
        size_t at;
        int part; /* of three */
    } places_of[] = {{0, 0}, {MANY / 2, 1}, {MANY - 18, 2}, {MANY - 16, 2}};
    float *w = thaw_calloc(MANY, sizeof(float)), *g = thaw_calloc(MANY, sizeof(float));
    for (int clip = 0; clip < 2; clip++) {
        thaw_job_optimizer config = {.kind = THAW_SGD, .learning_rate = 0.01, .clipvalue = clip ? 1.0 : 0.0};
        thaw_optimizer *o;
        assert_ok(thaw_optimizer_create(&o, &config, MANY, NULL));
        memset(g, 0, MANY * sizeof(float));
        assert_true(thaw_optimizer_update(o, w, g, segments, 2, THAW_WHOLE));
        for (size_t i = 0; i < sizeof places_of / sizeof *places_of * 3; i++) {
            for (int part = 0; part < 3; part++) {
                memset(g, 0, MANY * sizeof(float));
                g[places_of[i / 3].at] = wrong[i % 3];
                const bool finite = thaw_optimizer_update(o, w, g, segments, 2, (thaw_part){part, 3});
                assert_int_equal(finite, part != places_of[i / 3].part);
            }
        }
        thaw_optimizer_free(o);
    }
    for (int i = 0; i < 3; i++) {
        memset(g, 0, MANY * sizeof(float));
        g[7] = -FLT_MAX;
        assert_true(thaw_all_finite(g, MANY));
        g[MANY - 1] = wrong[i];
        assert_false(thaw_all_finite(g, MANY));
        assert_true(thaw_all_finite(g, MANY - 1));
    }
    thaw_free(w);
    thaw_free(g);
}

static void test_memory(void **state) {
    (void)state;
    thaw_job_optimizer config = {.kind = THAW_ADAMW};
    size_t live = thaw_memory_live();
    for (int n = 1; n <= 2; n++) {
        thaw_optimizer *o;
        thaw_memory_fail_after(n);
        assert_int_equal(thaw_optimizer_create(&o, &config, 100, NULL), THAW_RESOURCE);
        assert_null(o);
        assert_int_equal(thaw_memory_live(), live);
    }
    thaw_memory_fail_after(-1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_keras), cmocka_unit_test(test_unsupported),
                                       cmocka_unit_test(test_divided), cmocka_unit_test(test_finite),
                                       cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
