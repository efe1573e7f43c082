/* What a boundary kept from before depends on: every cause changes the hash, nothing else does. */
#include "networks.h"

#include "graph/engine.h"

static int build(thaw_model *m, double scale, double epsilon, int64_t strides, bool norm_first) {
    int x = add_input(m, "image", 3, 12, 12, 3);
    thaw_layer layer;
    thaw_layer_default(&layer, THAW_LAYER_CONV2D, "conv1");
    layer.config.filters = 4;
    layer.config.kernel[0] = layer.config.kernel[1] = 3;
    layer.config.strides[0] = layer.config.strides[1] = strides;
    layer.config.same = true;
    x = add_layer(m, &layer, rescaling(m, "scale", x, 1, scale));
    if (norm_first)
        x = add_plain(m, THAW_LAYER_RELU, "relu", x);
    thaw_layer_default(&layer, THAW_LAYER_BATCH_NORMALIZATION, "norm");
    layer.config.epsilon = (float)epsilon;
    x = add_layer(m, &layer, x);
    if (!norm_first)
        x = add_plain(m, THAW_LAYER_RELU, "relu", x);
    x = add_conv(m, "conv2", x, 5, 3);
    x = add_conv(m, "conv3", x, 5, 3);
    x = add_plain(m, THAW_LAYER_GLOBAL_AVERAGE_POOLING, "pool", x);
    return add_dense(m, "fc", x, 2, true);
}

static thaw_model *make(double scale, double epsilon, int64_t strides, bool norm_first) {
    thaw_model *m = new_model();
    OK(thaw_model_finish(m, build(m, scale, epsilon, strides, norm_first), false));
    OK(thaw_model_allocate(m));
    thaw_model_initialize(m, 1);
    return m;
}

static thaw_plan *plan_from(const thaw_model *m, const char *first, int64_t batch) {
    bool trainable[16] = {false};
    for (int i = thaw_model_find(m, first); i < m->n_layers; i++)
        trainable[i] = true;
    thaw_plan_request request = {m, trainable, NULL, batch, 0, 1, 1};
    thaw_plan *plan = NULL;
    OK(thaw_plan_compile(&plan, &request));
    return plan;
}

static uint64_t hash_from(const thaw_model *m, const char *first, int64_t batch) {
    thaw_plan *plan = plan_from(m, first, batch);
    uint64_t hash = thaw_plan_prefix_hash(plan);
    thaw_plan_free(plan);
    return hash;
}

static void test_weights(void **state) {
    (void)state;
    thaw_model *m = make(0.5, 1e-3, 1, false);
    uint64_t hash = hash_from(m, "conv3", 4);
    assert_true(hash == hash_from(m, "conv3", 7)); /* the batch is no part of it */
    for (int i = 0; i < m->n_layers; i++)
        for (int t = 0; t < m->layers[i].n_tensors; t++) {
            float *last = &m->layers[i].tensors[t].data[m->layers[i].tensors[t].count - 1], kept = *last;
            *last = nextafterf(kept, 9.0f);
            bool prefix = i < thaw_model_find(m, "conv3");
            if ((hash_from(m, "conv3", 4) != hash) != prefix)
                fail_msg("%s/%s", m->layers[i].name, m->layers[i].tensors[t].name);
            *last = kept;
        }
    m->layers[1].name[0] = 'X'; /* what a layer is called does not count */
    assert_true(hash == hash_from(m, "conv3", 4));
    thaw_model_free(m);
}

static void test_structure(void **state) {
    (void)state;
    thaw_model *models[] = {make(0.5, 1e-3, 1, false), make(0.25, 1e-3, 1, false), make(0.5, 1e-5, 1, false),
                            make(0.5, 1e-3, 2, false), make(0.5, 1e-3, 1, true)};
    enum { N = sizeof models / sizeof *models };
    uint64_t hashes[N + 1];
    for (int i = 0; i < N; i++)
        hashes[i] = hash_from(models[i], "conv3", 4);
    hashes[N] = hash_from(models[0], "conv2", 4); /* another boundary */
    for (int i = 0; i <= N; i++)
        for (int k = 0; k < i; k++)
            if (hashes[i] == hashes[k])
                fail_msg("%d and %d", i, k);
    for (int i = 0; i < N; i++)
        thaw_model_free(models[i]);
}

static void test_boundary(void **state) {
    (void)state;
    thaw_model *m = make(0.5, 1e-3, 1, false);
    thaw_plan *plan = plan_from(m, "conv3", 4), *head = plan_from(m, "fc", 4), *all = plan_from(m, "conv1", 4);
    assert_int_equal(thaw_plan_boundary_floats(plan), 12 * 12 * 5);
    assert_int_equal(thaw_plan_boundary_floats(head), 5);
    assert_true(thaw_plan_boundary_suffices(plan) && thaw_plan_boundary_suffices(head));
    thaw_plan_free(all);
    thaw_plan_free(plan);
    thaw_plan_free(head);
    thaw_model_free(m);
    m = new_model(); /* the first layer trains: there is nothing to keep */
    int x = add_input(m, "image", 3, 4, 4, 3);
    x = add_plain(m, THAW_LAYER_GLOBAL_AVERAGE_POOLING, "pool", add_conv(m, "conv1", x, 4, 3));
    OK(thaw_model_finish(m, add_dense(m, "fc", x, 2, true), false));
    plan = plan_from(m, "conv1", 4);
    assert_false(thaw_plan_boundary_suffices(plan));
    thaw_plan_free(plan);
    thaw_model_free(m);
    m = new_model(); /* a trained branch beside a frozen one reads the image */
    x = add_input(m, "image", 3, 4, 4, 3);
    int frozen = add_conv(m, "frozen", x, 3, 3), trained = add_conv(m, "trained", x, 3, 3);
    x = add_plain(m, THAW_LAYER_FLATTEN, "flat", add_merge(m, THAW_LAYER_ADD, "sum", (int[]){frozen, trained}, 2));
    OK(thaw_model_finish(m, add_dense(m, "fc", x, 2, true), false));
    bool trainable[16] = {false};
    trainable[thaw_model_find(m, "trained")] = trainable[thaw_model_find(m, "fc")] = true;
    thaw_plan_request request = {m, trainable, NULL, 4, 0, 1, 1};
    OK(thaw_plan_compile(&plan, &request));
    assert_int_equal(plan->n_boundary, 1);
    assert_false(thaw_plan_boundary_suffices(plan));
    thaw_plan_free(plan);
    thaw_model_free(m);
}

/* Slots filled by hand give the bits of a prefix run, forward and in inference form. */
static void test_slots(void **state) {
    (void)state;
    thaw_model *m = make(0.5, 1e-3, 1, false);
    thaw_plan *plan = plan_from(m, "conv3", 4);
    float *blocks[2] = {thaw_calloc(plan->count, sizeof(float)), thaw_calloc(plan->count, sizeof(float))};
    thaw_engine *engine;
    OK(thaw_engine_create(&engine, plan, m, NULL, blocks[0], blocks[1]));
    enum { N = 4, IN = 12 * 12 * 3, OUT = 12 * 12 * 5 };
    static float x[N * IN], rows[N * OUT];
    float z[2][N * 2], infer[2][N * 2];
    for (int i = 0; i < N * IN; i++)
        x[i] = (float)draw(3, (uint64_t)i, -1.0, 1.0);
    int64_t samples[N] = {0, 1, 2, 3};
    thaw_draws draws = {1, 0, samples};
    thaw_engine_prefix(engine, N, x);
    memcpy(rows, thaw_engine_slot(engine, 0), sizeof rows);
    memcpy(z[0], thaw_engine_forward(engine, 0, N, &draws), sizeof z[0]);
    memcpy(infer[0], thaw_engine_infer(engine, N), sizeof infer[0]);
    for (int i = 0; i < N; i++) { /* each image alone, in another place */
        thaw_engine_prefix(engine, 1, x + (N - 1 - i) * IN);
        assert_memory_equal(rows + (N - 1 - i) * OUT, thaw_engine_slot(engine, 0), OUT * sizeof(float));
    }
    memcpy(thaw_engine_slot(engine, 0), rows, sizeof rows);
    memcpy(z[1], thaw_engine_forward(engine, 0, N, &draws), sizeof z[1]);
    memcpy(infer[1], thaw_engine_infer(engine, N), sizeof infer[1]);
    assert_memory_equal(z[0], z[1], sizeof z[0]);
    assert_memory_equal(infer[0], infer[1], sizeof infer[0]);
    thaw_engine_free(engine);
    thaw_free(blocks[0]);
    thaw_free(blocks[1]);
    thaw_plan_free(plan);
    thaw_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_weights), cmocka_unit_test(test_structure),
                                       cmocka_unit_test(test_boundary), cmocka_unit_test(test_slots)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
