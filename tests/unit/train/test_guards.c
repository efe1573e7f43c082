/* Warnings for what beginners often get wrong: each comes when it should, and only then. */
#include "train_case.h"

#include "train/guards.h"

/* conv1, conv2 pretrained; fc new; drop without weights. */
static thaw_model model;
static thaw_layer layers[4];
static thaw_job_stage stages[2];
static thaw_job job = {.n_stages = 2, .stages = stages};

static char names[4][8] = {"conv1", "conv2", "drop", "fc"}, stage_names[2][8] = {"head", "fine"}, torch[] = "torch",
            resnet[] = "resnet50";

static int set_up(void **state) {
    (void)state;
    memset(layers, 0, sizeof layers);
    memset(stages, 0, sizeof stages);
    for (int i = 0; i < 4; i++) {
        layers[i].name = names[i];
        layers[i].n_tensors = i == 2 ? 0 : 1;
        layers[i].tensors[0].loaded = i < 2;
    }
    model = (thaw_model){.n_layers = 4, .layers = layers, .name = names[0]};
    for (int s = 0; s < 2; s++) {
        stages[s].name = stage_names[s];
        stages[s].optimizer = (thaw_job_optimizer){.kind = THAW_ADAM, .learning_rate = 1e-3};
    }
    catch_warnings();
    return 0;
}

static void test_random_head(void **state) {
    (void)state;
    const bool all[] = {true, true, true, true}, head[] = {false, false, true, true}, base[] = {true, true, true, false};
    bool touched[] = {true, true, false, false};
    thaw_guard_stage(&model, &job, 0, head, NULL, touched);
    thaw_guard_stage(&model, &job, 0, base, NULL, touched);
    assert_int_equal(n_caught, 0);
    thaw_guard_stage(&model, &job, 0, all, NULL, touched);
    assert_int_equal(n_caught, 1);
    assert_says(caught, "random");
    assert_says(caught, "conv1");
    assert_says(caught, "fc");
    touched[3] = true; /* trained in a stage before */
    thaw_guard_stage(&model, &job, 0, all, NULL, touched);
    layers[0].tensors[0].loaded = layers[1].tensors[0].loaded = touched[3] = false; /* from scratch */
    thaw_guard_stage(&model, &job, 0, all, NULL, touched);
    assert_int_equal(n_caught, 1);
}

static void test_same_rate(void **state) {
    (void)state;
    const bool head[] = {false, false, true, true}, late[] = {false, true, true, true}, touched[] = {true, true, true, true};
    thaw_guard_stage(&model, &job, 1, late, head, touched);
    assert_int_equal(n_caught, 1);
    assert_says(caught, "conv2");
    assert_says(caught, "learning_rate");
    thaw_guard_stage(&model, &job, 1, late, late, touched); /* nothing new */
    stages[1].optimizer.learning_rate = 1e-5;
    thaw_guard_stage(&model, &job, 1, late, head, touched);
    stages[1].optimizer = (thaw_job_optimizer){.kind = THAW_SGD, .learning_rate = 1e-2}; /* other optimizer, other scale */
    thaw_guard_stage(&model, &job, 1, late, head, touched);
    assert_int_equal(n_caught, 1);
}

static void test_preprocess(void **state) {
    (void)state;
    thaw_guard_preprocess(&model, THAW_PREPROCESS_TF); /* nobody knows */
    model.notes.preprocess = torch;
    thaw_guard_preprocess(&model, THAW_PREPROCESS_TORCH);
    assert_int_equal(n_caught, 0);
    thaw_guard_preprocess(&model, THAW_PREPROCESS_TF);
    assert_int_equal(n_caught, 1);
    assert_says(caught, "torch");
    model.notes.preprocess = NULL;
    model.family = resnet; /* the architecture's: caffe */
    thaw_guard_preprocess(&model, THAW_PREPROCESS_CAFFE);
    assert_int_equal(n_caught, 1);
    thaw_guard_preprocess(&model, THAW_PREPROCESS_RESCALE);
    assert_int_equal(n_caught, 2);
    layers[0].tensors[0].loaded = layers[1].tensors[0].loaded = false; /* random weights fit any pixels */
    thaw_guard_preprocess(&model, THAW_PREPROCESS_RESCALE);
    assert_int_equal(n_caught, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_random_head, set_up),
                                       cmocka_unit_test_setup(test_same_rate, set_up),
                                       cmocka_unit_test_setup(test_preprocess, set_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
