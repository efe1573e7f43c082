/* What a job file means: values, defaults, paths, heads, callbacks, --set. */
#include "job_case.h"

static const char *const DESIGN = "model:\n"
                                  "  base: vgg16                  # built-in name\n"
                                  "  weights: imagenet\n"
                                  "  input_shape: [150, 150, 3]\n"
                                  "  include_top: false\n"
                                  "  pooling: none\n"
                                  "  output: block5_pool\n"
                                  "  head:\n"
                                  "    - Flatten: {}\n"
                                  "    - Dense: {units: 256, activation: relu, name: fc1}\n"
                                  "    - Dropout: {rate: 0.5}\n"
                                  "    - Dense: {units: 1, activation: sigmoid, name: predictions}\n"
                                  "data:\n"
                                  "  train: data/train\n"
                                  "  validation: data/val\n"
                                  "  class_names: [cat, dog]\n"
                                  "  preprocess: auto\n"
                                  "  augment: {horizontal_flip: true}\n"
                                  "  shuffle: true\n"
                                  "training:\n"
                                  "  seed: 1\n"
                                  "  batch_size: 32\n"
                                  "  loss: binary_crossentropy\n"
                                  "  metrics: [accuracy]\n"
                                  "stages:\n"
                                  "  - name: head\n"
                                  "    freeze: all\n"
                                  "    epochs: 5\n"
                                  "    optimizer: {name: adam, learning_rate: 1.0e-3}\n"
                                  "  - name: finetune\n"
                                  "    freeze: \"before:block5_conv1\"\n"
                                  "    epochs: 5\n"
                                  "    optimizer: {name: sgd, learning_rate: 1.0e-4, momentum: 0.9}\n"
                                  "output: runs/cats-and-dogs\n";

static void test_design_example(void **state) {
    (void)state;
    thaw_job *job = parse(DESIGN, NULL, 0);
    assert_string_equal(job->path, "/jobs/a.yaml");
    assert_string_equal(job->folder, "/jobs");
    assert_string_equal(job->base, "vgg16");
    assert_false(job->base_is_file);
    assert_string_equal(job->weights, "imagenet");
    assert_int_equal(job->input_shape[0], 150);
    assert_int_equal(job->input_shape[2], 3);
    assert_int_equal(job->include_top, 0);
    assert_string_equal(job->pooling, "none");
    assert_string_equal(job->output, "block5_pool");
    assert_int_equal(job->n_head, 4);
    assert_string_equal(job->head[0].class_name, "Flatten");
    assert_int_equal(job->head[0].n_arguments, 0);
    assert_string_equal(job->head[1].class_name, "Dense");
    assert_int_equal(job->head[1].n_arguments, 3);
    assert_string_equal(job->head[1].arguments[0].key, "units");
    assert_string_equal(job->head[1].arguments[0].text, "256");
    assert_int_equal(job->head[1].line, 10);
    assert_string_equal(job->train, "/jobs/data/train");
    assert_string_equal(job->validation, "/jobs/data/val");
    assert_null(job->train_x);
    assert_int_equal(job->n_class_names, 2);
    assert_string_equal(job->class_names[1], "dog");
    assert_string_equal(job->preprocess, "auto");
    assert_true(job->horizontal_flip);
    assert_true(job->loss_given);
    assert_int_equal(job->loss, THAW_LOSS_BINARY_CROSSENTROPY);
    assert_int_equal(job->n_metrics, 1);
    assert_int_equal(job->n_stages, 2);
    const thaw_job_stage *head = &job->stages[0], *finetune = &job->stages[1];
    assert_string_equal(head->name, "head");
    assert_int_equal(head->freeze.n, 1);
    assert_int_equal(head->freeze.selectors[0].kind, THAW_SELECT_ALL);
    assert_int_equal(head->optimizer.kind, THAW_ADAM);
    assert_true(head->optimizer.learning_rate == 1e-3 && head->optimizer.epsilon == 1e-7);
    assert_int_equal(finetune->freeze.selectors[0].kind, THAW_SELECT_BEFORE);
    assert_string_equal(finetune->freeze.selectors[0].text, "block5_conv1");
    assert_int_equal(finetune->freeze.selectors[0].line, 31);
    assert_int_equal(finetune->optimizer.kind, THAW_SGD);
    assert_true(finetune->optimizer.momentum == 0.9 && finetune->optimizer.learning_rate == 1e-4);
    assert_string_equal(job->output_folder, "/jobs/runs/cats-and-dogs");
    thaw_job_free(job);
}

static void test_defaults(void **state) {
    (void)state;
    thaw_job *job =
        parse("model: {base: resnet50}\ndata: {train: d}\nstages: [{freeze: none}, {freeze: keep}]\n", NULL, 0);
    assert_null(job->weights);
    assert_int_equal(job->input_shape[0], 0);
    assert_int_equal(job->include_top, -1);
    assert_string_equal(job->pooling, "none");
    assert_null(job->output);
    assert_int_equal(job->n_head, 0);
    assert_null(job->validation);
    assert_true(job->validation_split == 0);
    assert_int_equal(job->n_class_names, 0);
    assert_null(job->preprocess);
    assert_false(job->horizontal_flip);
    assert_true(job->shuffle);
    assert_false(job->skip_bad_images);
    assert_int_equal(job->threads, 0);
    assert_true(job->prefetch >= 1);
    assert_int_equal(job->seed, 1);
    assert_int_equal(job->batch_size, 32);
    assert_int_equal(job->validation_batch_size, 0);
    assert_false(job->loss_given);
    assert_int_equal(job->n_metrics, 0);
    assert_string_equal(job->monitor, "loss"); /* nothing to validate with */
    assert_string_equal(job->monitor_mode, "auto");
    assert_int_equal(job->checkpoint_epochs, 1);
    assert_true(job->checkpoint_minutes == 10);
    assert_int_equal(job->checkpoint_keep, 2);
    assert_true(job->checkpoint_before_end == 120);
    assert_null(job->output_folder);
    assert_string_equal(job->exchange, "auto");
    assert_int_equal(job->accumulate, 1);
    assert_true(job->watchdog_seconds == 120);
    assert_false(job->stage_data);
    assert_null(job->stage_folder);
    assert_string_equal(job->cache_mode, "auto");
    assert_int_equal(job->cache_memory, 0);
    assert_null(job->cache_folder);
    assert_int_equal(job->cache_variants, 0);
    assert_false(job->cache_half);
    assert_false(job->scaled_decoding);
    const thaw_job_stage *stage = &job->stages[1];
    assert_string_equal(job->stages[0].name, "stage1");
    assert_string_equal(stage->name, "stage2");
    assert_int_equal(stage->epochs, 1);
    assert_int_equal(stage->batch_norm_statistics, -1);
    assert_int_equal(stage->train.n, 0);
    assert_int_equal(stage->optimizer.kind, THAW_RMSPROP);
    assert_false(stage->early_stopping.on);
    assert_false(stage->plateau.on);
    thaw_job_free(job);
    job = parse_set("data.validation_split=0.25");
    assert_string_equal(job->monitor, "val_loss");
    assert_true(job->validation_split == 0.25);
    thaw_job_free(job);
}

/* keras.optimizers.{SGD,Adam,AdamW,RMSprop} of Keras 3.15. */
static void test_optimizer_defaults(void **state) {
    (void)state;
    static const struct {
        const char *set;
        thaw_job_optimizer expected;
    } cases[] = {
        {"stages.0.optimizer=sgd", {.kind = THAW_SGD, .learning_rate = 0.01}},
        {"stages.0.optimizer=adam",
         {.kind = THAW_ADAM, .learning_rate = 0.001, .beta_1 = 0.9, .beta_2 = 0.999, .epsilon = 1e-7}},
        {"stages.0.optimizer={name: AdamW}",
         {.kind = THAW_ADAMW,
          .learning_rate = 0.001,
          .beta_1 = 0.9,
          .beta_2 = 0.999,
          .epsilon = 1e-7,
          .weight_decay = 0.004}},
        {"stages.0.optimizer=RMSprop", {.kind = THAW_RMSPROP, .learning_rate = 0.001, .rho = 0.9, .epsilon = 1e-7}},
        {"stages.0.optimizer={name: sgd, learning_rate: 1e-4, momentum: .9, nesterov: true, weight_decay: 1E-5, "
         "clipnorm: 1, keep_state: true}",
         {.kind = THAW_SGD,
          .learning_rate = 1e-4,
          .momentum = 0.9,
          .nesterov = true,
          .weight_decay = 1e-5,
          .clipnorm = 1,
          .keep_state = true}},
        {"stages.0.optimizer={clipvalue: 0.5, beta_1: 0.8, name: adam, amsgrad: false}",
         {.kind = THAW_ADAM,
          .learning_rate = 0.001,
          .beta_1 = 0.8,
          .beta_2 = 0.999,
          .epsilon = 1e-7,
          .clipvalue = 0.5}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        thaw_job *job = parse_set(cases[i].set);
        const thaw_job_optimizer *a = &job->stages[0].optimizer, *b = &cases[i].expected;
        assert_int_equal(a->kind, b->kind);
        assert_true(a->learning_rate == b->learning_rate && a->momentum == b->momentum && a->rho == b->rho);
        assert_true(a->beta_1 == b->beta_1 && a->beta_2 == b->beta_2 && a->epsilon == b->epsilon);
        assert_true(a->nesterov == b->nesterov && !a->centered && !a->amsgrad && a->keep_state == b->keep_state);
        assert_true(a->weight_decay == b->weight_decay && a->clipnorm == b->clipnorm && a->clipvalue == b->clipvalue &&
                    a->global_clipnorm == 0);
        thaw_job_free(job);
    }
}

static void test_callbacks(void **state) {
    (void)state;
    thaw_job *job = parse("model: {base: vgg16}\n"
                          "data: {train: d, validation: v}\n"
                          "training:\n"
                          "  metrics: [acc, mean_absolute_error]\n"
                          "  monitor: val_acc\n"
                          "  early_stopping: {patience: 4, monitor: val_mae}\n"
                          "stages:\n"
                          "  - freeze: all\n"
                          "  - {freeze: all, early_stopping: none, reduce_lr_on_plateau: {}}\n"
                          "  - {freeze: all, early_stopping: {patience: 7, baseline: 0.5, min_delta: 1e-3}}\n",
                          NULL, 0);
    const thaw_job_stage *stages = job->stages;
    assert_string_equal(job->monitor, "val_accuracy"); /* as history.csv names it */
    assert_true(stages[0].early_stopping.on);
    assert_string_equal(stages[0].early_stopping.monitor, "val_mae");
    assert_int_equal(stages[0].early_stopping.patience, 4);
    assert_string_equal(stages[0].early_stopping.mode, "auto");
    assert_true(stages[0].early_stopping.min_delta == 0);
    assert_false(stages[0].early_stopping.restore_best_weights);
    assert_false(stages[0].early_stopping.has_baseline);
    assert_int_equal(stages[0].early_stopping.start_from_epoch, 0);
    assert_false(stages[0].plateau.on);
    assert_false(stages[1].early_stopping.on);
    assert_true(stages[1].plateau.on);
    assert_string_equal(stages[1].plateau.monitor, "val_loss");
    assert_true(stages[1].plateau.factor == 0.1 && stages[1].plateau.min_delta == 1e-4 &&
                stages[1].plateau.min_lr == 0);
    assert_int_equal(stages[1].plateau.patience, 10);
    assert_int_equal(stages[1].plateau.cooldown, 0);
    assert_true(stages[2].early_stopping.on && stages[2].early_stopping.has_baseline);
    assert_true(stages[2].early_stopping.baseline == 0.5 && stages[2].early_stopping.min_delta == 1e-3);
    assert_int_equal(stages[2].early_stopping.patience, 7);
    assert_string_equal(stages[2].early_stopping.monitor, "val_mae"); /* from training */
    thaw_job_free(job);
}

static void test_keras_names(void **state) {
    (void)state;
    static const struct {
        const char *set;
        thaw_loss loss;
    } losses[] = {{"training.loss=bce", THAW_LOSS_BINARY_CROSSENTROPY},
                  {"training.loss=BinaryCrossentropy", THAW_LOSS_BINARY_CROSSENTROPY},
                  {"training.loss=categorical_crossentropy", THAW_LOSS_CATEGORICAL_CROSSENTROPY},
                  {"training.loss=sparse_categorical_crossentropy", THAW_LOSS_CATEGORICAL_CROSSENTROPY},
                  {"training.loss=mean_squared_error", THAW_LOSS_MSE},
                  {"training.loss=mse", THAW_LOSS_MSE},
                  {"training.loss=mean_absolute_error", THAW_LOSS_MAE},
                  {"training.loss=mae", THAW_LOSS_MAE}};
    static const struct {
        const char *set;
        thaw_metric metric;
    } metrics[] = {{"training.metrics=accuracy", THAW_METRIC_ACCURACY},
                   {"training.metrics=[acc]", THAW_METRIC_ACCURACY},
                   {"training.metrics=[binary_accuracy]", THAW_METRIC_ACCURACY},
                   {"training.metrics=[categorical_accuracy]", THAW_METRIC_ACCURACY},
                   {"training.metrics=[sparse_categorical_accuracy]", THAW_METRIC_ACCURACY},
                   {"training.metrics=[mean_squared_error]", THAW_METRIC_MSE},
                   {"training.metrics=[MAE]", THAW_METRIC_MAE}};
    for (size_t i = 0; i < sizeof(losses) / sizeof(*losses); i++) {
        thaw_job *job = parse_set(losses[i].set);
        assert_int_equal(job->loss, losses[i].loss);
        assert_true(job->loss_given);
        thaw_job_free(job);
    }
    for (size_t i = 0; i < sizeof(metrics) / sizeof(*metrics); i++) {
        thaw_job *job = parse_set(metrics[i].set);
        assert_int_equal(job->n_metrics, 1);
        assert_int_equal(job->metrics[0], metrics[i].metric);
        thaw_job_free(job);
    }
    assert_string_equal(thaw_loss_name(THAW_LOSS_MSE), "mean_squared_error");
    assert_string_equal(thaw_metric_name(THAW_METRIC_ACCURACY), "accuracy");
}

static void test_paths(void **state) {
    (void)state;
    setenv("THAW_TEST_FOLDER", "/somewhere", 1);
    static const struct {
        const char *set, *base;
        bool file;
    } bases[] = {{"model.base=mobilenet", "mobilenet", false},
                 {"model.base=net.h5", "/jobs/net.h5", true},
                 {"model.base=net.keras", "/jobs/net.keras", true},
                 {"model.base=net.hdf5", "/jobs/net.hdf5", true},
                 {"model.base=net.safetensors", "/jobs/net.safetensors", true},
                 {"model.base=./nets//vgg16", "/jobs/nets/vgg16", true},
                 {"model.base=/nets/vgg16.h5", "/nets/vgg16.h5", true},
                 {"model.base=../vgg16.h5", "/jobs/../vgg16.h5", true},
                 {"model.base=$THAW_TEST_FOLDER/vgg16.h5", "/somewhere/vgg16.h5", true}};
    for (size_t i = 0; i < sizeof(bases) / sizeof(*bases); i++) {
        thaw_job *job = parse_set(bases[i].set);
        assert_string_equal(job->base, bases[i].base);
        assert_int_equal(job->base_is_file, bases[i].file);
        thaw_job_free(job);
    }
    thaw_job *job = parse_set("data.train={x: \"sets/a.h5:/train/x\", y: $THAW_TEST_FOLDER/b.h5:/y}");
    assert_null(job->train);
    assert_string_equal(job->train_x, "/jobs/sets/a.h5:/train/x");
    assert_string_equal(job->train_y, "/somewhere/b.h5:/y");
    thaw_job_free(job);
    job = parse_set("model.weights=weights.h5");
    assert_string_equal(job->weights, "/jobs/weights.h5");
    thaw_job_free(job);
    job = parse_set("model.weights=none");
    assert_string_equal(job->weights, "none");
    thaw_job_free(job);
    /* relative to the job file wherever that is, so a relative job path gives absolute folders too */
    thaw_job *relative = NULL;
    assert_int_equal(thaw_job_parse(&relative, "sub/a.yaml", MINIMAL, NULL, 0), THAW_OK);
    assert_int_equal(relative->train[0], '/');
    assert_non_null(strstr(relative->train, "/sub/photos"));
    thaw_job_free(relative);
}

static void expect_argument(const thaw_job_argument *argument, const char *key, const char *text) {
    assert_string_equal(argument->key, key);
    assert_string_equal(argument->text, text);
}

static void test_head(void **state) {
    (void)state;
    thaw_job *job =
        parse("model:\n"
              "  base: vgg16\n"
              "  head:\n"
              "    - Flatten\n"
              "    - BatchNormalization:\n"
              "    - Dense: {units: 4, kernel_regularizer: {l2: 0.01}, use_bias: False}\n"
              "    - Dense: {units: 4, kernel_regularizer: {L2: {l2: 0.02}}, activation: \"no\"}\n"
              "    - Dense: {kernel_regularizer: {L1L2: {l1: 0.1, l2: 0.2}}}\n"
              "    - Dense: {kernel_initializer: {RandomNormal: {stddev: 0.5}}, bias_initializer: {Ones: {}}}\n"
              "    - Reshape:\n"
              "        target_shape: [2, 2, -1]\n"
              "data: {train: d}\n"
              "stages: [{freeze: all}]\n",
              NULL, 0);
    assert_int_equal(job->n_head, 7);
    const thaw_job_layer *head = job->head;
    assert_string_equal(head[0].class_name, "Flatten");
    assert_string_equal(head[1].class_name, "BatchNormalization");
    assert_int_equal(head[1].n_arguments, 0);
    expect_argument(&head[2].arguments[1], "kernel_regularizer.l2", "0.01");
    expect_argument(&head[2].arguments[2], "use_bias", "false");
    expect_argument(&head[3].arguments[1], "kernel_regularizer.l2", "0.02");
    expect_argument(&head[3].arguments[2], "activation", "no");
    expect_argument(&head[4].arguments[0], "kernel_regularizer.l1", "0.1");
    expect_argument(&head[4].arguments[1], "kernel_regularizer.l2", "0.2");
    expect_argument(&head[5].arguments[0], "kernel_initializer", "RandomNormal");
    expect_argument(&head[5].arguments[1], "kernel_initializer.stddev", "0.5");
    expect_argument(&head[5].arguments[2], "bias_initializer", "Ones");
    const thaw_job_argument *shape = &head[6].arguments[0];
    assert_null(shape->text);
    assert_int_equal(shape->n_numbers, 3);
    assert_true(shape->numbers[0] == 2 && shape->numbers[2] == -1);
    assert_int_equal(shape->line, 11);
    thaw_job_free(job);
}

static void test_set(void **state) {
    (void)state;
    const char *set[] = {"training.batch_size=16",
                         "stages.0.epochs=3",
                         "stages.0.optimizer=adam",
                         "stages.0.optimizer.learning_rate=2e-4",
                         "stages.1.freeze=[block1_conv1, 3]",
                         "training.class_weight.0=0.5",
                         "training.class_weight.1=2",
                         "data.augment.horizontal_flip=yes",
                         "model.head.0=Flatten",
                         "model.head.1.Dense.units=2",
                         "output=out",
                         "training.batch_size=24"};
    thaw_job *job = parse(MINIMAL, set, sizeof(set) / sizeof(*set));
    assert_int_equal(job->batch_size, 24); /* the last one counts */
    assert_int_equal(job->n_stages, 2);
    assert_int_equal(job->stages[0].epochs, 3);
    assert_int_equal(job->stages[0].optimizer.kind, THAW_ADAM);
    assert_true(job->stages[0].optimizer.learning_rate == 2e-4);
    assert_int_equal(job->stages[1].freeze.n, 2);
    assert_int_equal(job->stages[1].freeze.selectors[0].kind, THAW_SELECT_NAME);
    assert_int_equal(job->stages[1].freeze.selectors[0].line, 0);
    assert_int_equal(job->stages[1].freeze.selectors[1].kind, THAW_SELECT_INDEX);
    assert_int_equal(job->n_class_weights, 2);
    assert_string_equal(job->class_weight_keys[1], "1");
    assert_true(job->class_weights[1] == 2);
    assert_true(job->horizontal_flip);
    assert_int_equal(job->n_head, 2);
    assert_string_equal(job->head[1].arguments[0].text, "2");
    assert_string_equal(job->output_folder, "/jobs/out");
    thaw_job_free(job);
    job = parse_set("stages.0.freeze=\"[:-5]\"");
    assert_int_equal(job->stages[0].freeze.selectors[0].kind, THAW_SELECT_SLICE);
    assert_int_equal(job->stages[0].freeze.selectors[0].stop, -5);
    thaw_job_free(job);
}

static void test_choices(void **state) {
    (void)state;
    thaw_job *job = parse_set("stages.0.batch_norm_statistics=batch");
    assert_int_equal(job->stages[0].batch_norm_statistics, 1);
    thaw_job_free(job);
    job = parse_set("stages.0.batch_norm_statistics=moving");
    assert_int_equal(job->stages[0].batch_norm_statistics, 0);
    thaw_job_free(job);
    job = parse_set("data.on_bad_image=skip");
    assert_true(job->skip_bad_images);
    thaw_job_free(job);
    job = parse_set("model.include_top=True");
    assert_int_equal(job->include_top, 1);
    thaw_job_free(job);
    job = parse_set("data.shuffle=off");
    assert_false(job->shuffle);
    thaw_job_free(job);
    job = parse_set("training={seed: 9007199254740992, validation_batch_size: 5}");
    assert_true(job->seed == 9007199254740992u);
    assert_int_equal(job->validation_batch_size, 5);
    thaw_job_free(job);
}

/* Every failing request for memory is reported as such, and nothing stays behind. */
static void test_out_of_memory(void **state) {
    (void)state;
    size_t live = thaw_memory_live();
    int failures = 0;
    for (int n = 0;; n++) {
        const char *set[] = {"stages.1.optimizer.momentum=0.5"};
        thaw_job *job = NULL;
        thaw_memory_fail_after(n);
        thaw_status status = thaw_job_parse(&job, "/jobs/a.yaml", DESIGN, set, 1);
        thaw_memory_fail_after(-1);
        if (status == THAW_OK) {
            thaw_job_free(job);
            break;
        }
        failures++;
        assert_int_equal(status, THAW_RESOURCE);
        assert_null(job);
        assert_int_equal(thaw_memory_live(), live);
    }
    assert_true(failures > 20);
    assert_int_equal(thaw_memory_live(), live);
}

/* How a step is cut and summed. */
static void test_step_keys(void **state) {
    (void)state;
    const char *all[] = {"training.batch_size=8", "training.accumulate=8", "exchange=mpi"};
    thaw_job *job = parse(MINIMAL, all, 3);
    assert_int_equal(job->accumulate, 8);
    assert_string_equal(job->exchange, "mpi");
    thaw_job_free(job);
    refuse_set("exchange=ring", "exchange is 'ring'|one of auto, overlap, mpi");
    refuse_set("exchange=[mpi]", "exchange");
    refuse_set("training.accumulate=33", "training.accumulate is 33|at most one part per image");
    refuse_set("training.accumulate=0", "training.accumulate");
}

/* cache: a word is short for its mode; sizes with and without units. */
static void test_cache(void **state) {
    (void)state;
    static const struct {
        const char *set;
        const char *mode;
        int64_t memory;
    } cases[] = {{"cache=off", "off", 0},
                 {"cache=file", "file", 0},
                 {"cache=\"memory\"", "memory", 0},
                 {"cache={mode: off}", "off", 0},
                 {"cache={memory: 4GB}", "auto", 4000000000},
                 {"cache={mode: memory, memory: 2.5 GiB}", "memory", 2684354560},
                 {"cache.memory=123456", "auto", 123456},
                 {"cache.memory=10k", "auto", 10000},
                 {"cache.memory=1MiB", "auto", 1048576},
                 {"cache.memory=7B", "auto", 7}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        thaw_job *job = parse_set(cases[i].set);
        assert_string_equal(job->cache_mode, cases[i].mode);
        assert_int_equal(job->cache_memory, cases[i].memory);
        thaw_job_free(job);
    }
    const char *both[] = {"cache=file", "cache.dir=rows"};
    thaw_job *job = parse(MINIMAL, both, 2);
    assert_string_equal(job->cache_mode, "file");
    assert_string_equal(job->cache_folder, "/jobs/rows");
    thaw_job_free(job);
    const char *more[] = {"cache={variants: 8, precision: fp16}", "data.scaled_decoding=true"};
    job = parse(MINIMAL, more, 2);
    assert_string_equal(job->cache_mode, "auto");
    assert_int_equal(job->cache_variants, 8);
    assert_true(job->cache_half);
    assert_true(job->scaled_decoding);
    thaw_job_free(job);
    refuse_set("cache.variants=-1", "cache.variants is '-1'|an integer from 0 to 4096");
    refuse_set("cache.variants=all", "cache.variants is 'all'|an integer from 0 to 4096");
    refuse_set("cache.precision=bf16", "cache.precision is 'bf16'|fp32|fp16");
    refuse_set("data.scaled_decoding=4", "data.scaled_decoding is '4'|true or false");
    refuse_set("cache=on", "cache.mode is 'on'|one of auto, off, memory, file");
    refuse_set("cache=disk", "cache.mode is 'disk'|one of auto, off, memory, file");
    refuse_set("cache=[a]", "cache.mode");
    refuse_set("cache={size: 4}", "unknown key 'size' in cache|mode, memory, dir, variants, precision");
    for (size_t i = 0; i < 9; i++) {
        static const char *const wrong[] = {"4XB", "GB", "0", "-1", "1e30GB", "4GBB", "", "100TTB", "{a: b}"};
        char set[64];
        snprintf(set, sizeof set, "cache.memory=%s", wrong[i]);
        if (*wrong[i])
            refuse_set(set, "cache.memory");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_design_example),
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_cache), cmocka_unit_test(test_step_keys),
        cmocka_unit_test(test_optimizer_defaults),
        cmocka_unit_test(test_callbacks),
        cmocka_unit_test(test_keras_names),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
