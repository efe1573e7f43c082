/* Every rule of job files, with the parts of its message that a person needs: place, key, value, fix. */
#include "job_case.h"

static void test_yaml(void **state) {
    (void)state;
    refuse("", "a.yaml:1:|empty");
    refuse("# only a comment\n", "empty");
    refuse("[1]", "a.yaml:1:|a list of 1|mapping");
    refuse("model:\n\tbase: vgg16\n", "a.yaml:2:|tabs|spaces");
    refuse("model: {base: vgg16\n", "a.yaml:|not valid YAML");
    refuse("model: 1\ndata: 2\nmodel: 3\n", "a.yaml:3:|duplicate key 'model'|line 1");
    refuse("model: &a {base: vgg16}\n", "a.yaml:1:|anchors");
    refuse("model: *a\n", "a.yaml:1:|alias|quotes");
    refuse("model: !!map {base: vgg16}\n", "a.yaml:1:|tags");
    refuse("model: !local vgg16\n", "a.yaml:1:|tags");
    refuse("model: {base: a}\n---\nmodel: {base: b}\n", "a.yaml:2:|second document");
    refuse("model: {base: \"a\\0b\"}\n", "a.yaml:1:|zero byte");
    refuse("model: {base: \xff}\n", "a.yaml:1:|UTF-8");
    refuse("model: {base:vgg16}\n", "a.yaml:1:|'base:vgg16'|space after the colon");
    refuse("model: {[1]: 2}\n", "a.yaml:1:|key must be text");
    refuse("a: [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]\n", "a.yaml:1:|deeper than 16");
    refuse("model:\n  base: @vgg16\n", "a.yaml:2:|special character|quotes");
    char *large = malloc((1 << 20) + 2);
    memset(large, '#', (1 << 20) + 1);
    large[(1 << 20) + 1] = '\0';
    refuse(large, "1 MiB");
    free(large);
}

/* The deepest nesting that is allowed reaches the table of keys. */
static void test_depth_limit(void **state) {
    (void)state;
    refuse("a: [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]\n", "unknown key 'a'");
}

static void test_missing(void **state) {
    (void)state;
    refuse("data: {train: d}\nstages: [{freeze: all}]\n", "a.yaml:1:|model is missing");
    refuse("model: {weights: none}\ndata: {train: d}\nstages: [{freeze: all}]\n", "a.yaml:1:|model.base is missing");
    refuse("model: {base: a}\ndata: {shuffle: true}\nstages: [{freeze: all}]\n", "a.yaml:2:|data.train is missing");
    refuse("model: {base: a}\ndata: {train: {x: \"a.h5:/x\"}}\nstages: [{freeze: all}]\n",
           "a.yaml:2:|data.train.y is missing");
    refuse("model: {base: a}\ndata: {train: d}\n", "stages is missing");
    refuse("model: {base: a}\ndata: {train: d}\nstages: []\n", "a.yaml:3:|stages has 0 entries|1 to");
    refuse("model: {base: a}\ndata: {train: d}\nstages:\n  - epochs: 2\n",
           "a.yaml:4:|stages.0 has no freeze|all (the base)");
    refuse("model: {base: a}\ndata: {train: d}\nstages: {freeze: all}\n", "a.yaml:3:|stages is a mapping|list");
    refuse("model: {base: a}\ndata: {train: d}\nstages: [all]\n", "a.yaml:3:|stages.0 is 'all'|mapping");
    refuse("model: vgg16\n", "a.yaml:1:|model is 'vgg16'|a mapping");
}

static void test_unknown_keys(void **state) {
    (void)state;
    refuse("model:\n  base: a\n  inputshape: [1, 2, 3]\n", "a.yaml:3:|unknown key 'inputshape' in model|'input_shape'");
    refuse("modle: {base: a}\n", "a.yaml:1:|unknown key 'modle' at the top level|'model'");
    refuse_set("batch_size=4", "--set batch_size=4:|unknown key 'batch_size'|training.batch_size");
    refuse_set("training.batch_sze=4", "--set training.batch_sze=4:|'batch_size'");
    refuse_set("stages.0.epoch=4", "unknown key 'epoch' in stages.0|'epochs'");
    refuse_set("stages.0.optimizer={name: adam, lr: 1e-3}", "unknown key 'lr' in stages.0.optimizer|'learning_rate'");
    refuse_set("stages.0.early_stopping={patence: 3}", "unknown key 'patence' in stages.0.early_stopping|'patience'");
    refuse_set("training.early_stopping={patence: 3}", "unknown key 'patence' in training.early_stopping|'patience'");
    refuse_set("data.augment={rotation_range: 30}", "unknown key 'rotation_range' in data.augment|horizontal_flip");
    refuse_set("data.train={x: \"a.h5:/x\", z: \"a.h5:/z\"}", "unknown key 'z' in data.train|x, y");
    refuse_set("data.validation_data=d", "'validation'");
    refuse_set("checkpoint.every=1", "unknown key 'every' in checkpoint|every_epochs");
}

static void test_types_and_ranges(void **state) {
    (void)state;
    refuse("model: {base: a}\ndata: {train: d}\ntraining:\n  batch_size: 0\nstages: [{freeze: all}]\n",
           "a.yaml:4:|training.batch_size is '0'|an integer from 1 to 1048576");
    refuse_set("training.batch_size=2.5", "'2.5'|an integer");
    refuse_set("training.batch_size=many", "'many'|an integer");
    refuse_set("training.batch_size=[8]", "a list of 1|an integer");
    refuse_set("training.batch_size=\"8\"", "quoted text '8'|without quotes");
    refuse_set("training.batch_size=99999999999999999999", "an integer from 1");
    refuse_set("training.seed=-1", "training.seed is '-1'|from 0");
    refuse_set("training.seed=010", "octal|leading zero");
    refuse_set("stages.0.epochs=0", "stages.0.epochs is '0'|from 1");
    refuse_set("data.validation_split=1", "data.validation_split is '1'|below 1");
    refuse_set("data.validation_split=-0.1", "from 0");
    refuse_set("data.validation_split=.nan", "a number");
    refuse_set("data.validation_split=1e-400000x", "a number");
    refuse_set("stages.0.optimizer={name: adam, learning_rate: 1e400}", "a number");
    refuse_set("stages.0.optimizer={name: adam, epsilon: 0}", "epsilon is '0'|above 0");
    refuse_set("stages.0.optimizer={name: adam, beta_2: 1}", "beta_2 is '1'|below 1");
    refuse_set("stages.0.reduce_lr_on_plateau={factor: 1}", "factor is '1'|below 1");
    refuse_set("checkpoint.keep=1", "checkpoint.keep is '1'|from 2");
    refuse_set("model.input_shape=[150, 150]", "a list of 2|[height, width, channels]");
    refuse_set("model.input_shape=[150, 150, 0]", "'0'|from 1 to 65536");
    refuse_set("model.pooling=average", "model.pooling is 'average'|none, avg, max");
    refuse_set("model.weights=random", "'random'|imagenet, none or a file");
    refuse_set("data.preprocess=imagenet", "auto, caffe, tf, torch, rescale, none");
    refuse_set("data.on_bad_image=ignore", "error, skip");
    refuse_set("data.shuffle=perhaps", "data.shuffle is 'perhaps'|true or false");
    refuse_set("data.shuffle=\"true\"", "quoted text 'true'|true or false");
    refuse_set("data.class_names=[]", "an empty list|list of names");
    refuse_set("data.class_names=[a, b, a]", "'a' twice");
    refuse_set("training.loss=mean_square_error", "unknown loss 'mean_square_error'|mean_squared_error");
    refuse_set("training.loss=hinge", "unknown loss 'hinge'|binary_crossentropy");
    refuse_set("training.metrics=[auc]", "unknown metric 'auc'|accuracy, mse and mae");
    refuse_set("training.metrics=[acc, accuracy]", "accuracy twice");
    refuse_set("training.class_weight=[1, 2]", "a list of 2|mapping of classes");
    refuse_set("training.class_weight={cat: -1}", "class_weight of 'cat'|at least 0");
    refuse_set("stages.0.batch_norm_statistics=frozen", "moving, batch");
    refuse_set("stages.0.early_stopping=5", "a mapping or none");
    refuse_set("stages.0.early_stopping={mode: low}", "auto, min, max");
}

static void test_yaml_reads_otherwise(void **state) {
    (void)state;
    refuse("model: {base: a}\ndata: {train: d}\nstages:\n  - freeze: [:-5]\n", "a.yaml:4:|quoted|\"[:-5]\"");
    refuse("model: {base: a}\ndata: {train: d}\nstages:\n  - freeze: [0:15]\n",
           "a.yaml:4:|stages.0.freeze|freeze: \"[0:15]\"");
    refuse("model: {base: a}\ndata: {train: d}\nstages:\n  - freeze: [3:]\n", "a.yaml:4:|\"[3:]\"");
    refuse("model: {base: a}\ndata: {train: d}\nstages:\n  - freeze: before: x\n", "a.yaml:4:|quotes");
    refuse("model: {base: a}\ndata: {train: d}\nstages:\n  - freeze: [glob:block[1-4]_*]\n", "a.yaml:4:|quotes");
    refuse_set("stages.0.freeze={before: x}", "freeze: \"before:x\"");
    refuse_set("stages.0.freeze=yes", "'yes'|boolean|all, none");
    refuse_set("stages.0.freeze=true", "'true'|boolean|all, none");
    refuse_set("stages.0.freeze=null", "null|all, none");
    refuse_set("stages.0.freeze=[]", "empty list|none");
    refuse_set("stages.0.freeze=\"a\\nb\"", "line break");
    refuse_set("model.\"a\\nb\"=1", "unknown key");
    refuse("model: {\"a\\nb\": 1}\n", "a.yaml:1:|unknown key 'a b'");
    refuse_set("stages.0.freeze=[[a]]", "list inside a list");
    refuse_set("stages.0.train=[]", "stages.0.train is an empty list");
    refuse_set("stages.0.name=on", "'on'|boolean|\"on\"");
    refuse_set("data.class_names=[yes, no]", "'yes'|boolean|\"yes\"");
    refuse_set("data.train=no", "data.train is 'no'|boolean");
    refuse_set("model.pooling=~", "model.pooling has no value|none, avg, max");
    refuse_set("model.weights=null", "no value|none");
    refuse("model:\n  base: a\n  output:\ndata: {train: d}\nstages: [{freeze: all}]\n",
           "a.yaml:3:|model.output has no value");
    refuse_set("model.head=[{Dense: {use_bias: no}}]", "use_bias of Dense is 'no'|false");
    refuse_set("model.head=[{Dense: {activation: null}}]", "activation of Dense has no value");
}

static void test_head(void **state) {
    (void)state;
    refuse("model:\n  base: a\n  head:\n    - Dense:\n      units: 3\n",
           "a.yaml:5:|'units' stands beside 'Dense'|indent");
    refuse_set("model.head={Dense: {units: 3}}", "a list of layers");
    refuse_set("model.head=[]", "empty list");
    refuse_set("model.head=[[Dense]]", "Dense: {units");
    refuse_set("model.head=[{}]", "without class");
    refuse_set("model.head=[{Dense: 3}]", "Dense has '3'|by name");
    refuse_set("model.head=[{Reshape: {target_shape: [a]}}]", "target_shape of Reshape has 'a'|numbers");
    refuse_set("model.head=[{Reshape: {target_shape: []}}]", "empty list");
    refuse_set("model.head=[{Dense: {kernel_regularizer: {}}}]", "empty mapping");
    refuse_set("model.head=[{Dense: {kernel_regularizer: {l2: 1}, kernel_regularizer.l2: 2}}]", "given twice");
    refuse("model: {base: a, include_top: true, head: [Flatten]}\ndata: {train: d}\nstages: [{freeze: all}]\n",
           "a.yaml:1:|include_top|output:");
    thaw_job_free(parse("model: {base: a, include_top: true, output: fc2, head: [Flatten]}\ndata: {train: d}\n"
                        "stages: [{freeze: all}]\n",
                        NULL, 0));
    refuse_set("model={base: a.h5, include_top: false}", "built-in|a.h5|output:");
}

static void test_data(void **state) {
    (void)state;
    refuse_set("data={train: d, validation: v, validation_split: 0.2}",
               "data.validation and data.validation_split|keep one");
    refuse_set("data={train: d, validation: {x: \"a.h5:/x\", y: \"a.h5:/y\"}}", "data.train is a folder|one form");
    refuse_set("data={train: {x: \"a.h5:/x\", y: \"a.h5:/y\"}, validation: v}", "data.train is arrays|one form");
    refuse_set("data.train=a.h5:/x", "one array|{x: FILE.h5:/x, y: FILE.h5:/y}");
    refuse_set("data.train={x: a.h5, y: \"a.h5:/y\"}", "data.train.x is 'a.h5'|FILE.h5:/dataset");
    refuse_set("data.train={x: \"a.h5:/\", y: \"a.h5:/y\"}", "FILE.h5:/dataset");
    refuse_set("data.train=[a, b]", "a list of 2|a folder or");
    unsetenv("THAW_TEST_UNSET");
    refuse_set("data.train=$THAW_TEST_UNSET/x", "--set data.train=|THAW_TEST_UNSET");
}

static void test_training(void **state) {
    (void)state;
    const char *both[] = {"data.class_names=[cat, dog]", "training.class_weight={cats: 2}"};
    thaw_job *job = NULL;
    thaw_status status = thaw_job_parse(&job, "a.yaml", MINIMAL, both, 2);
    expect_parts(status, job, "training.class_weight has 'cats'|'cat'|index from 0 to 1");
    both[1] = "training.class_weight={2: 2}";
    status = thaw_job_parse(&job, "a.yaml", MINIMAL, both, 2);
    expect_parts(status, job, "has '2'");
    both[1] = "training.class_weight={1: 2, cat: 3}";
    thaw_job_free(parse(MINIMAL, both, 2));
    refuse_set("training.monitor=val_accuracy",
               "training.monitor is 'val_accuracy'|training.metrics does not have accuracy");
    refuse_set("training.monitor=val_auc", "loss or a metric");
    refuse_set("stages.0.early_stopping={monitor: accuracy}", "stages.0.early_stopping.monitor|add it");
    refuse_set("training.reduce_lr_on_plateau={monitor: mae}", "training.reduce_lr_on_plateau.monitor|add it");
}

static void test_stages(void **state) {
    (void)state;
    refuse("model: {base: a}\ndata: {train: d}\nstages:\n  - {name: x, freeze: all}\n  - {name: x, freeze: none}\n",
           "a.yaml:5:|both named 'x'");
    refuse("model: {base: a}\ndata: {train: d}\nstages:\n  - {name: stage2, freeze: all}\n  - {freeze: none}\n",
           "a.yaml:5:|both named 'stage2'");
    refuse_set("stages.0.name=\"a,b\"", "comma");
    refuse_set("stages.0.optimizer=adagrad", "'adagrad'|sgd, adam, adamw, rmsprop");
    refuse_set("stages.0.optimizer=[adam]", "stages.0.optimizer is a list of 1|sgd");
    refuse_set("stages.0.optimizer={learning_rate: 1}", "stages.0.optimizer has no name");
    refuse_set("stages.0.optimizer={name: sgd, beta_1: 0.9}",
               "stages.0.optimizer.beta_1|adam, adamw, not of sgd|momentum");
    refuse_set("stages.0.optimizer={name: adam, momentum: 0.9}",
               "momentum is an argument of sgd, rmsprop, not of adam");
    refuse_set("stages.0.optimizer={name: adam, amsgrad: true}", "amsgrad: true is not supported");
    refuse_set("stages.0.optimizer={name: rmsprop, centered: true}", "centered: true is not supported");
    refuse_set("stages.0.optimizer={name: adam, use_ema: true}", "unknown key 'use_ema'");
    refuse_set("stages.0.optimizer={name: adam, clipnorm: 1, clipvalue: 1}", "more than one of clipnorm");
    refuse_set("stages.0.optimizer={name: adam, clipnorm: 1, global_clipnorm: 1}", "more than one of clipnorm");
}

static void test_set(void **state) {
    (void)state;
    refuse_set("training.batch_size", "--set training.batch_size:|key=value");
    refuse_set("=3", "key=value");
    refuse_set("training.batch_size=\n3", "line break");
    refuse_set("training..batch_size=3", "empty part");
    refuse_set("training.batch_size=", "no value");
    refuse_set("training.batch_size.x=3", "'batch_size' has the value '8'|'x'");
    refuse_set("stages.4.epochs=3", "'stages' is a list of 1|'4'");
    refuse_set("stages.first.epochs=3", "'stages' is a list of 1|'first'");
    refuse_set("stages.0.freeze=[:-5]", "--set stages.0.freeze=[:-5]:|\"[:-5]\"");
    refuse_set("training.batch_size={a: 1, a: 2}", "--set|duplicate key 'a'");
    refuse_set("trai ning.x=1", "character");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_depth_limit),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_types_and_ranges),
        cmocka_unit_test(test_yaml_reads_otherwise),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
