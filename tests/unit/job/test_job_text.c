/* The effective job reads back as the same job; what the hash ignores and what it sees; the manual. */
#include "job_case.h"

#include "base/io.h"
#include "job/job_keys.h"

static const char *const FULL =
    "model:\n"
    "  base: ../nets/a b.h5\n"
    "  weights: w.h5\n"
    "  input_shape: [32, 48, 3]\n"
    "  pooling: max\n"
    "  output: \"block5 \\\"x\\\" \\u00e9\\n\\x85 \\u2028 z\"\n"
    "  head:\n"
    "    - Flatten\n"
    "    - Dense: {units: 4, name: \"no\", use_bias: false, kernel_regularizer: {l2: 1e-3}, note: \"a: b, {c}\"}\n"
    "    - Reshape: {target_shape: [2, 2, 0.1]}\n"
    "data:\n"
    "  train: {x: \"a.h5:/x\", y: \"a.h5:/y\"}\n"
    "  validation: {x: \"b.h5:/x\", y: \"b.h5:/y\"}\n"
    "  class_names: [\"yes\", \"007\", \"a b\", \"\\xe9\", null-ish]\n"
    "  preprocess: none\n"
    "  augment: {horizontal_flip: true}\n"
    "  shuffle: false\n"
    "  on_bad_image: skip\n"
    "  threads: 3\n"
    "  prefetch: 7\n"
    "training:\n"
    "  seed: 123456789012345\n"
    "  batch_size: 12\n"
    "  accumulate: 3\n"
    "  validation_batch_size: 13\n"
    "  loss: mae\n"
    "  metrics: [mse, accuracy, mae]\n"
    "  class_weight: {\"yes\": 0.1, 1: 3}\n"
    "  monitor: val_mse\n"
    "  monitor_mode: min\n"
    "  early_stopping: {patience: 4, baseline: -0.3}\n"
    "stages:\n"
    "  - freeze: [all, before:x, \"[1:-5]\", \"[::2]\", \"model[:3]\", \"glob:a[1-2]*\", class:Dense, -3, name/x, "
    "file]\n"
    "    train: [none, keep]\n"
    "    epochs: 9\n"
    "    batch_norm_statistics: batch\n"
    "    optimizer: {name: adamw, learning_rate: 0.30000000000000004, weight_decay: 1e-30, global_clipnorm: 2}\n"
    "    reduce_lr_on_plateau: {factor: 0.3333333333333333, min_lr: 1e-9, cooldown: 2}\n"
    "  - {name: second stage, freeze: none, early_stopping: none, optimizer: {name: sgd, keep_state: true}}\n"
    "checkpoint: {every_epochs: 0, every_minutes: 2.5, keep: 5, before_end: 45.5}\n"
    "cache: {mode: off, memory: 1.5 GiB, dir: rows}\n"
    "exchange: mpi\n"
    "output: out\n";

static void expect_round_trip(const char *text, const char *const *set, int n_set) {
    thaw_job *job = parse(text, set, n_set), *again = NULL;
    char *written = thaw_job_text(job);
    assert_non_null(written);
    if (thaw_job_parse(&again, "/elsewhere/job.yaml", written, NULL, 0) != THAW_OK)
        fail_msg("%s\n%s", thaw_message(), written);
    char *rewritten = thaw_job_text(again);
    assert_string_equal(written, rewritten);
    assert_true(thaw_job_hash(job) == thaw_job_hash(again));
    char *difference = thaw_job_difference(job, again);
    assert_string_equal(difference, "");
    thaw_free(difference);
    thaw_free(written);
    thaw_free(rewritten);
    thaw_job_free(job);
    thaw_job_free(again);
}

static void test_round_trip(void **state) {
    (void)state;
    static const char *const optimizers[] = {"stages.0.optimizer=sgd", "stages.0.optimizer=adam",
                                             "stages.0.optimizer=adamw", "stages.0.optimizer=rmsprop"};
    expect_round_trip(MINIMAL, NULL, 0);
    expect_round_trip(FULL, NULL, 0);
    expect_round_trip(FULL, (const char *[]){"cache.variants=8", "cache.precision=fp16", "data.scaled_decoding=true"}, 3);
    for (int i = 0; i < 4; i++)
        expect_round_trip(MINIMAL, &optimizers[i], 1);
    thaw_job *job = parse(FULL, NULL, 0);
    char *text = thaw_job_text(job);
    thaw_job *again = parse(text, NULL, 0);
    assert_string_equal(again->output, "block5 \"x\" \xc3\xa9\n\xc2\x85 \xe2\x80\xa8 z"); /* every byte, line breaks too */
    assert_string_equal(again->base, job->base);
    assert_true(again->stages[0].optimizer.learning_rate == 0.30000000000000004);
    assert_int_equal(again->stages[0].freeze.n, 10);
    for (int i = 0; i < 10; i++) {
        const thaw_selector *a = &job->stages[0].freeze.selectors[i], *b = &again->stages[0].freeze.selectors[i];
        assert_int_equal(a->kind, b->kind);
        assert_true(a->start == b->start && a->stop == b->stop && a->step == b->step && a->whole == b->whole);
        assert_true(a->has_start == b->has_start && a->has_stop == b->has_stop);
    }
    assert_true(again->stages[0].early_stopping.has_baseline && again->stages[0].early_stopping.baseline == -0.3);
    assert_false(again->stages[1].early_stopping.on);
    assert_int_equal(again->checkpoint_epochs, 0);
    assert_true(again->head[2].arguments[0].numbers[2] == 0.1);
    thaw_free(text);
    thaw_job_free(again);
    thaw_job_free(job);
}

static uint64_t hash_with(const char *option) {
    thaw_job *job = parse(FULL, &option, option != NULL ? 1 : 0);
    uint64_t hash = thaw_job_hash(job);
    thaw_job_free(job);
    return hash;
}

static void test_hash(void **state) {
    (void)state;
    static const char *const ignored[] = {"output=elsewhere",
                                          "checkpoint.every_epochs=4",
                                          "checkpoint.every_minutes=0",
                                          "checkpoint.keep=3",
                                          "checkpoint.before_end=0",
                                          "data.threads=1",
                                          "data.prefetch=2",
                                          "cache=memory",
                                          "cache.memory=3",
                                          "cache.dir=/elsewhere",
                                          "training.watchdog_seconds=5",
                                          "data.stage_data=node-local",
                                          "data.stage_dir=/elsewhere",
                                          "exchange=auto"};
    static const char *const seen[] = {"model.base=b.h5",
                                       "model.pooling=avg",
                                       "model.head.1.Dense.units=5",
                                       "data.shuffle=true",
                                       "data.on_bad_image=error",
                                       "data.scaled_decoding=true",
                                       "cache.variants=3",
                                       "cache.precision=fp16",
                                       "training.seed=2",
                                       "training.batch_size=4",
                                       "training.accumulate=2",
                                       "training.metrics=[mse]",
                                       "training.class_weight={\"yes\": 0.2, 1: 3}",
                                       "stages.0.epochs=10",
                                       "stages.1.name=third",
                                       "stages.0.freeze=all",
                                       "stages.0.train=none",
                                       "stages.0.optimizer.epsilon=1e-6",
                                       "stages.1.early_stopping={}",
                                       "training.monitor=val_loss",
                                       "data.train.x=\"c.h5:/x\"",
                                       "stages.0.reduce_lr_on_plateau.patience=2"};
    uint64_t hash = hash_with(NULL);
    for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
        if (hash_with(ignored[i]) != hash)
            fail_msg("the hash sees %s", ignored[i]);
    for (size_t i = 0; i < sizeof(seen) / sizeof(*seen); i++)
        if (hash_with(seen[i]) == hash)
            fail_msg("the hash does not see %s", seen[i]);
    /* the same place by another way is the same job */
    thaw_job *a = NULL, *b = NULL;
    assert_int_equal(thaw_job_parse(&a, "/jobs/a.yaml", MINIMAL, NULL, 0), THAW_OK);
    assert_int_equal(thaw_job_parse(&b, "/jobs/x/.././a.yaml", MINIMAL, NULL, 0), THAW_OK);
    assert_true(thaw_job_hash(a) == thaw_job_hash(b));
    thaw_job_free(b);
    assert_int_equal(thaw_job_parse(&b, "/other/a.yaml", MINIMAL, NULL, 0), THAW_OK);
    assert_false(thaw_job_hash(a) == thaw_job_hash(b));
    thaw_job_free(a);
    thaw_job_free(b);
}

static void test_difference(void **state) {
    (void)state;
    const char *set[] = {"training.batch_size=9", "stages.0.epochs=2", "output=x", "data.threads=2",
                         "stages.1={name: b, freeze: all}"};
    thaw_job *a = parse(MINIMAL, NULL, 0), *b = parse(MINIMAL, set, 5);
    char *text = thaw_job_difference(a, b);
    assert_string_equal(text, "training.batch_size, stages.0.epochs, stages (1 and 2)");
    thaw_free(text);
    thaw_job_free(a);
    thaw_job_free(b);
}

/* Each hashed value that a single option changes is named by exactly its key. */
static void test_difference_names_key(void **state) {
    (void)state;
    static const char *const sets[][2] = {{"stages.0.optimizer.epsilon=1e-6", "stages.0.optimizer.epsilon"},
                                          {"model.head.1.Dense.units=5", "model.head"},
                                          {"data.train.x=\"c.h5:/x\"", "data.train.x"},
                                          {"stages.0.freeze=all", "stages.0.freeze"},
                                          {"training.monitor_mode=max", "training.monitor_mode"},
                                          {"data.scaled_decoding=true", "data.scaled_decoding"},
                                          {"cache.variants=3", "cache.variants"},
                                          {"cache.precision=fp16", "cache.precision"}};
    thaw_job *a = parse(FULL, NULL, 0);
    for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
        thaw_job *b = parse(FULL, &sets[i][0], 1);
        char *text = thaw_job_difference(a, b);
        assert_string_equal(text, sets[i][1]);
        thaw_free(text);
        thaw_job_free(b);
    }
    thaw_job_free(a);
}

static void test_manual(void **state) {
    (void)state;
    for (int markdown = 0; markdown < 2; markdown++) {
        char *text = thaw_job_manual(markdown != 0);
        assert_non_null(text);
        for (int i = 0; i < thaw_n_keys; i++) {
            char *name = thaw_format(markdown ? "\n| `%s` | " : "\n%s\n", thaw_keys[i].name);
            if (strstr(text, name) == NULL || (markdown && strstr(text, thaw_keys[i].help) == NULL))
                fail_msg("the manual does not explain %s", thaw_keys[i].name);
            thaw_free(name);
        }
        assert_non_null(strstr(text, "sgd 0.01, adam 0.001"));
        assert_non_null(strstr(text, "before:NAME"));
        thaw_free(text);
    }
}

/* The table itself: unique names, sections before their keys, help and a default or the words for its absence. */
static void test_table(void **state) {
    (void)state;
    for (int i = 0; i < thaw_n_keys; i++) {
        const thaw_key *key = &thaw_keys[i];
        assert_ptr_equal(thaw_key_full(key->name), key);
        assert_true(key->help != NULL && key->help[strlen(key->help) - 1] == '.');
        assert_true(key->preset != NULL || key->absent != NULL || (key->rules & THAW_KEY_REQUIRED));
        char section[128];
        snprintf(section, sizeof(section), "%s", key->name);
        char *dot = strrchr(section, '.');
        if (dot == NULL)
            continue;
        *dot = '\0';
        if (strcmp(section, "stages[]") == 0)
            *strchr(section, '[') = '\0';
        const thaw_key *parent = thaw_key_full(section);
        assert_true(parent != NULL && parent < key);
    }
}

static void read_job(const char *name) {
    char path[512];
    void *text;
    size_t size;
    thaw_job *job = NULL;
    snprintf(path, sizeof(path), "%s/jobs/%s", THAW_SOURCE_DIR, name);
    assert_int_equal(thaw_io_read(&text, &size, path, 1 << 20), THAW_OK);
    if (thaw_job_parse(&job, path, text, NULL, 0) != THAW_OK)
        fail_msg("%s", thaw_message());
    thaw_job_free(job);
    expect_round_trip(text, NULL, 0);
    thaw_free(text);
}

static void test_example_jobs(void **state) {
    (void)state;
    read_job("vgg16-cats-dogs.yaml");
    read_job("resnet50-gap.yaml");
    read_job("regression.yaml");
    read_job("quickstart/job.yaml");
    read_job("quickstart/pretrain.yaml");
    void *readme;
    size_t size;
    assert_int_equal(thaw_io_read(&readme, &size, THAW_SOURCE_DIR "/jobs/README.md", 0), THAW_OK);
    char *manual = thaw_job_manual(true);
    assert_string_equal(readme, manual); /* tests/docs.sh --write renews the page */
    thaw_free(manual);
    thaw_free(readme);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),           cmocka_unit_test(test_hash),   cmocka_unit_test(test_difference),
        cmocka_unit_test(test_difference_names_key), cmocka_unit_test(test_manual), cmocka_unit_test(test_table),
        cmocka_unit_test(test_example_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
