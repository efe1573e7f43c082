#include "job/job_keys.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define JOB(field) offsetof(thaw_job, field)
#define STAGE(field) offsetof(thaw_job_stage, field)
#define OFF THAW_NO_FLAG
#define TRUTH "false|true"
#define MONITORS "val_loss (loss without validation data)"

/* Order is the order of the manual and of the effective job: a section stands before its keys. Optimizer defaults are
 * Keras 3.15's keras.optimizers, callbacks' are keras.callbacks'. */
const thaw_key thaw_keys[] = {
    {"model", THAW_KEY_SECTION, 0, OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL, "The network: a base and a head."},
    {"model.base", THAW_KEY_BASE, JOB(base), OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL,
     "Built-in network (vgg16, resnet50, ...) or a Keras file that carries its configuration; a name with '/' "
     "or ending in .h5, .hdf5, .keras or .safetensors is a file."},
    {"model.weights", THAW_KEY_WEIGHTS, JOB(weights), OFF, 0, 0, 0, NULL, NULL,
     "a file's own; imagenet for a built-in name",
     "imagenet (official file, looked for in $THAW_WEIGHTS, ./weights, ~/.keras/models), none (random), or a file."},
    {"model.input_shape", THAW_KEY_SHAPE, JOB(input_shape), OFF, 1, 65536, 0, NULL, NULL, "the network's own",
     "Height, width and channels that images are resized to."},
    {"model.include_top", THAW_KEY_INDEX, JOB(include_top), OFF, 0, 0, 0, TRUTH, NULL,
     "true, as in keras.applications; false with a head",
     "Keep the classifier of a built-in network."},
    {"model.pooling", THAW_KEY_CHOICE, JOB(pooling), OFF, 0, 0, 0, "none|avg|max", "none", NULL,
     "Global pooling behind a base without top, as in keras.applications."},
    {"model.output", THAW_KEY_STRING, JOB(output), OFF, 0, 0, 0, NULL, NULL, "the base's output",
     "Last layer kept of the base; drops a file's own head."},
    {"model.head", THAW_KEY_HEAD, 0, OFF, 0, 0, 0, NULL, NULL, "no head",
     "Layers appended to the base: Keras class names with Keras arguments, e.g. Dense: {units: 10, activation: "
     "softmax}."},
    {"data", THAW_KEY_SECTION, 0, OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL,
     "Images or arrays, and how they are read."},
    {"data.train", THAW_KEY_DATASET, JOB(train), OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL,
     "Folder with one folder of images per class, or arrays {x: FILE.h5:/x, y: FILE.h5:/y}."},
    {"data.train.x", THAW_KEY_ARRAY, JOB(train_x), OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL,
     "Samples (N, H, W, C) of an HDF5 file."},
    {"data.train.y", THAW_KEY_ARRAY, JOB(train_y), OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL,
     "Labels (N) or (N, outputs) of an HDF5 file."},
    {"data.validation", THAW_KEY_DATASET, JOB(validation), OFF, 0, 0, 0, NULL, NULL, "no validation",
     "Validation data, in the form of data.train."},
    {"data.validation.x", THAW_KEY_ARRAY, JOB(validation_x), OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL,
     "Samples for validation."},
    {"data.validation.y", THAW_KEY_ARRAY, JOB(validation_y), OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL,
     "Labels for validation."},
    {"data.validation_split", THAW_KEY_REAL, JOB(validation_split), OFF, 0, 1, THAW_KEY_BELOW, NULL, "0", NULL,
     "Share of the training data, drawn by the seed, that is kept for validation instead of data.validation."},
    {"data.class_names", THAW_KEY_NAMES, 0, OFF, 0, 0, 0, NULL, NULL,
     "sorted folders, or what a file written by thaw carries", "Order of the network's outputs."},
    {"data.preprocess", THAW_KEY_CHOICE, JOB(preprocess), OFF, 0, 0, 0, "auto|caffe|tf|torch|rescale|none", NULL,
     "auto for images, none for arrays",
     "Scaling of pixels: modes of keras.applications, rescale is x/255; auto follows a built-in network."},
    {"data.augment", THAW_KEY_SECTION, 0, OFF, 0, 0, 0, NULL, NULL, "none", "Random changes of training images."},
    {"data.augment.horizontal_flip", THAW_KEY_BOOL, JOB(horizontal_flip), OFF, 0, 0, 0, TRUTH, "false", NULL,
     "Mirror half of the images, drawn anew each epoch."},
    {"data.shuffle", THAW_KEY_BOOL, JOB(shuffle), OFF, 0, 0, 0, TRUTH, "true", NULL,
     "New order of the training samples each epoch."},
    {"data.scaled_decoding", THAW_KEY_BOOL, JOB(scaled_decoding), OFF, 0, 0, 0, TRUTH, "false", NULL,
     "Decode JPEG at the smallest of its scales 1/8, 2/8, ... that is not below the network's input, in training and its "
     "validation: faster for large photographs, other pixels (evaluate and predict decode whole images)."},
    {"data.on_bad_image", THAW_KEY_BOOL, JOB(skip_bad_images), OFF, 0, 0, 0, "error|skip", "error", NULL,
     "What an image that cannot be decoded does: ends the job before it starts, or is left out with a warning."},
    {"data.stage_data", THAW_KEY_BOOL, JOB(stage_data), OFF, 0, 0, THAW_KEY_UNHASHED, "none|node-local", "none", NULL,
     "node-local: before the first stage every host copies the training and validation data from a network file system to a disk "
     "of its own, checked by hash, and reads it there. What is there already is used again; copies are never removed."},
    {"data.stage_dir", THAW_KEY_PATH, JOB(stage_folder), OFF, 0, 0, THAW_KEY_UNHASHED, NULL, NULL, "$TMPDIR, else /tmp",
     "Where data.stage_data puts its folder thaw-data-USERID."},
    {"data.threads", THAW_KEY_INT, JOB(threads), OFF, 0, 256, THAW_KEY_UNHASHED, NULL, "0", NULL,
     "Decoding threads of a rank; 0 chooses."},
    {"data.prefetch", THAW_KEY_INT, JOB(prefetch), OFF, 1, 64, THAW_KEY_UNHASHED, NULL, "3", NULL,
     "Batches decoded ahead."},
    {"training", THAW_KEY_SECTION, 0, OFF, 0, 0, 0, NULL, NULL, "all defaults", "What is common to all stages."},
    {"training.seed", THAW_KEY_INT, JOB(seed), OFF, 0, 9007199254740992.0, 0, NULL, "1", NULL,
     "Seed of order, augmentation, dropout, split and initial weights."},
    {"training.batch_size", THAW_KEY_INT, JOB(batch_size), OFF, 1, 1048576, 0, NULL, "32", NULL,
     "Images per step, over all ranks."},
    {"training.accumulate", THAW_KEY_INT, JOB(accumulate), OFF, 1, 1048576, 0, NULL, "1", NULL,
     "Parts of a batch whose gradients are added before they are exchanged: a step remains batch_size images, memory is needed "
     "for one part. Batch statistics (batch_norm_statistics: batch) are then those of each part."},
    {"training.exchange_precision", THAW_KEY_BOOL, JOB(exchange_half), OFF, 0, 0, 0, "fp32|fp16", "fp32", NULL,
     "fp16 halves what ranks send: gradients travel as IEEE half, each piece scaled by a power of two, and are summed in fp32. "
     "What rounding loses is added to the next step's gradient (error feedback; each epoch, and a resumed one, starts without). "
     "Weights stay equal on all ranks, but depend on their number."},
    {"training.reproducible", THAW_KEY_BOOL, JOB(reproducible), OFF, 0, 0, 0, "threads|ranks", "threads", NULL,
     "threads: the same bits with any number of threads. ranks: and with any number of ranks, from loss to weights: sums are "
     "made over fixed slices of the batch, in one tree. Ranks then hold whole slices, so a power of two of them is best."},
    {"training.slices", THAW_KEY_INT, JOB(slices), OFF, 0, 65536, 0, NULL, "0", NULL,
     "Slices of a batch with reproducible: ranks, a power of two, at least one for each rank. 0: of 8 images, but at least 8."},
    {"training.validation_batch_size", THAW_KEY_INT, JOB(validation_batch_size), OFF, 1, 1048576, 0, NULL, NULL,
     "batch_size / accumulate", "Images per step of validation, over all ranks."},
    {"training.loss", THAW_KEY_LOSS, JOB(loss), JOB(loss_given), 0, 0, 0, NULL, NULL, "what fits the last layer",
     "binary_crossentropy, categorical_crossentropy or sparse_categorical_crossentropy (labels may be indices or "
     "one-hot for both), mean_squared_error (mse), mean_absolute_error (mae)."},
    {"training.metrics", THAW_KEY_METRICS, 0, OFF, 0, 0, 0, NULL, NULL, "none",
     "List of accuracy (also under Keras' names for the cases), mse, mae."},
    {"training.class_weight", THAW_KEY_CLASS_WEIGHT, 0, OFF, 0, 1e9, 0, NULL, NULL, "1 for every class",
     "Weight of each class in the loss, by name or index: {cat: 1, dog: 2.5}."},
    {"training.monitor", THAW_KEY_STRING, JOB(monitor), OFF, 0, 0, 0, NULL, NULL, MONITORS,
     "Value that best.h5 goes by: loss or a metric, with val_ for validation."},
    {"training.monitor_mode", THAW_KEY_CHOICE, JOB(monitor_mode), OFF, 0, 0, 0, "auto|min|max", "auto", NULL,
     "Whether less or more is better; auto takes accuracy as more."},
    {"training.watchdog_seconds", THAW_KEY_REAL, JOB(watchdog_seconds), OFF, 0, 1e6, THAW_KEY_UNHASHED, NULL, "120", NULL,
     "A rank that gives no sign of life for so long (stopped, or its host lost) ends the run with status 76; one that is slow "
     "but alive is waited for, 30 times as long at most. 0: no watchdog. Signs are UDP datagrams to rank 0."},
    {"training.early_stopping", THAW_KEY_DEFAULTS, 0, OFF, 0, 0, 0, "stages[].early_stopping", NULL, "none",
     "early_stopping of every stage that does not say otherwise."},
    {"training.reduce_lr_on_plateau", THAW_KEY_DEFAULTS, 0, OFF, 0, 0, 0, "stages[].reduce_lr_on_plateau", NULL, "none",
     "reduce_lr_on_plateau of every stage that does not say otherwise."},
    {"stages", THAW_KEY_STAGES, 0, OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL, "List of stages, run in order."},
    {"stages[].name", THAW_KEY_STRING, STAGE(name), OFF, 0, 0, 0, NULL, NULL, "stage1, stage2, ...",
     "Name in logs and history; every stage has its own."},
    {"stages[].freeze", THAW_KEY_FREEZE, STAGE(freeze), OFF, 0, 0, THAW_KEY_REQUIRED, NULL, NULL, NULL,
     "Selector or list of selectors: layers that are not trained (see below)."},
    {"stages[].train", THAW_KEY_FREEZE, STAGE(train), OFF, 0, 0, 0, NULL, NULL, "nothing",
     "Selector or list: layers that are trained although freeze names them."},
    {"stages[].epochs", THAW_KEY_INT, STAGE(epochs), OFF, 1, 1000000, 0, NULL, "1", NULL,
     "Passes over the training data."},
    {"stages[].optimizer", THAW_KEY_OPTIMIZER, 0, OFF, 0, 0, 0, NULL, NULL, "rmsprop, as in Keras' compile",
     "Name, or mapping with the name and Keras' arguments."},
    {"stages[].optimizer.name", THAW_KEY_INDEX, STAGE(optimizer.kind), OFF, 0, 0, THAW_KEY_REQUIRED,
     "sgd|adam|adamw|rmsprop", NULL, NULL, "Optimizer."},
    {"stages[].optimizer.learning_rate", THAW_KEY_REAL, STAGE(optimizer.learning_rate), OFF, 0, 1000, 0, NULL,
     "sgd=0.01 adam=0.001 adamw=0.001 rmsprop=0.001", NULL, "Step size; does not grow with the ranks."},
    {"stages[].optimizer.momentum", THAW_KEY_REAL, STAGE(optimizer.momentum), OFF, 0, 1, 0, NULL, "sgd=0 rmsprop=0",
     NULL, "Momentum."},
    {"stages[].optimizer.nesterov", THAW_KEY_BOOL, STAGE(optimizer.nesterov), OFF, 0, 0, 0, TRUTH, "sgd=false", NULL,
     "Nesterov momentum."},
    {"stages[].optimizer.rho", THAW_KEY_REAL, STAGE(optimizer.rho), OFF, 0, 1, THAW_KEY_BELOW, NULL, "rmsprop=0.9",
     NULL, "Decay of the mean of squared gradients."},
    {"stages[].optimizer.beta_1", THAW_KEY_REAL, STAGE(optimizer.beta_1), OFF, 0, 1, THAW_KEY_BELOW, NULL,
     "adam=0.9 adamw=0.9", NULL, "Decay of the first moment."},
    {"stages[].optimizer.beta_2", THAW_KEY_REAL, STAGE(optimizer.beta_2), OFF, 0, 1, THAW_KEY_BELOW, NULL,
     "adam=0.999 adamw=0.999", NULL, "Decay of the second moment."},
    {"stages[].optimizer.epsilon", THAW_KEY_REAL, STAGE(optimizer.epsilon), OFF, 0, 10, THAW_KEY_ABOVE, NULL,
     "adam=1e-7 adamw=1e-7 rmsprop=1e-7", NULL, "Keeps the divisor from zero."},
    {"stages[].optimizer.centered", THAW_KEY_BOOL, STAGE(optimizer.centered), OFF, 0, 0, THAW_KEY_FALSE, TRUTH,
     "rmsprop=false", NULL, "Only false: centered RMSprop is not supported."},
    {"stages[].optimizer.amsgrad", THAW_KEY_BOOL, STAGE(optimizer.amsgrad), OFF, 0, 0, THAW_KEY_FALSE, TRUTH,
     "adam=false adamw=false", NULL, "Only false: AMSGrad is not supported."},
    {"stages[].optimizer.weight_decay", THAW_KEY_REAL, STAGE(optimizer.weight_decay), OFF, 0, 100, 0, NULL,
     "sgd=0 adam=0 adamw=0.004 rmsprop=0", NULL, "Decoupled decay; 0: none."},
    {"stages[].optimizer.clipnorm", THAW_KEY_REAL, STAGE(optimizer.clipnorm), OFF, 0, 1e30, 0, NULL, "0", NULL,
     "Largest norm of each tensor's gradient; 0: off. At most one of the three clips."},
    {"stages[].optimizer.global_clipnorm", THAW_KEY_REAL, STAGE(optimizer.global_clipnorm), OFF, 0, 1e30, 0, NULL, "0",
     NULL, "Largest norm of all gradients together; 0: off."},
    {"stages[].optimizer.clipvalue", THAW_KEY_REAL, STAGE(optimizer.clipvalue), OFF, 0, 1e30, 0, NULL, "0", NULL,
     "Largest absolute value in a gradient; 0: off."},
    {"stages[].optimizer.keep_state", THAW_KEY_BOOL, STAGE(optimizer.keep_state), OFF, 0, 0, 0, TRUTH, "false", NULL,
     "Carry momentum and moments over from the stage before, by tensor name."},
    {"stages[].batch_norm_statistics", THAW_KEY_INDEX, STAGE(batch_norm_statistics), OFF, 0, 0, 0, "moving|batch", NULL,
     "moving for a pretrained base, batch with weights: none",
     "What an unfrozen BatchNormalization of the base normalises with: moving statistics, as base(x, training=False), "
     "or those of the global batch, as plain fit. In the head always batch."},
    {"stages[].early_stopping", THAW_KEY_SWITCH, 0, STAGE(early_stopping.on), 0, 0, 0, NULL, NULL, "none",
     "Ends the stage when the monitored value no longer improves; none switches training.early_stopping off."},
    {"stages[].early_stopping.monitor", THAW_KEY_STRING, STAGE(early_stopping.monitor), OFF, 0, 0, 0, NULL, NULL,
     MONITORS, "Value watched."},
    {"stages[].early_stopping.mode", THAW_KEY_CHOICE, STAGE(early_stopping.mode), OFF, 0, 0, 0, "auto|min|max", "auto",
     NULL, "Whether less or more is better."},
    {"stages[].early_stopping.min_delta", THAW_KEY_REAL, STAGE(early_stopping.min_delta), OFF, 0, 1e30, 0, NULL, "0",
     NULL, "Smallest change that counts."},
    {"stages[].early_stopping.patience", THAW_KEY_INT, STAGE(early_stopping.patience), OFF, 0, 1000000, 0, NULL, "0",
     NULL, "Epochs without improvement that are waited for."},
    {"stages[].early_stopping.start_from_epoch", THAW_KEY_INT, STAGE(early_stopping.start_from_epoch), OFF, 0, 1000000,
     0, NULL, "0", NULL, "First epoch of the stage that is watched."},
    {"stages[].early_stopping.restore_best_weights", THAW_KEY_BOOL, STAGE(early_stopping.restore_best_weights), OFF, 0,
     0, 0, TRUTH, "false", NULL, "Go back to the weights of the best epoch."},
    {"stages[].early_stopping.baseline", THAW_KEY_REAL, STAGE(early_stopping.baseline),
     STAGE(early_stopping.has_baseline), -1e30, 1e30, 0, NULL, NULL, "none", "Value that must be reached."},
    {"stages[].reduce_lr_on_plateau", THAW_KEY_SWITCH, 0, STAGE(plateau.on), 0, 0, 0, NULL, NULL, "none",
     "Lowers the learning rate when the monitored value no longer improves; none switches "
     "training.reduce_lr_on_plateau off."},
    {"stages[].reduce_lr_on_plateau.monitor", THAW_KEY_STRING, STAGE(plateau.monitor), OFF, 0, 0, 0, NULL, NULL,
     MONITORS, "Value watched."},
    {"stages[].reduce_lr_on_plateau.mode", THAW_KEY_CHOICE, STAGE(plateau.mode), OFF, 0, 0, 0, "auto|min|max", "auto",
     NULL, "Whether less or more is better."},
    {"stages[].reduce_lr_on_plateau.factor", THAW_KEY_REAL, STAGE(plateau.factor), OFF, 0, 1,
     THAW_KEY_ABOVE | THAW_KEY_BELOW, NULL, "0.1", NULL, "New rate over old rate."},
    {"stages[].reduce_lr_on_plateau.patience", THAW_KEY_INT, STAGE(plateau.patience), OFF, 0, 1000000, 0, NULL, "10",
     NULL, "Epochs without improvement that are waited for."},
    {"stages[].reduce_lr_on_plateau.min_delta", THAW_KEY_REAL, STAGE(plateau.min_delta), OFF, 0, 1e30, 0, NULL,
     "0.0001", NULL, "Smallest change that counts."},
    {"stages[].reduce_lr_on_plateau.cooldown", THAW_KEY_INT, STAGE(plateau.cooldown), OFF, 0, 1000000, 0, NULL, "0",
     NULL, "Epochs after a lowering that are not watched."},
    {"stages[].reduce_lr_on_plateau.min_lr", THAW_KEY_REAL, STAGE(plateau.min_lr), OFF, 0, 1000, 0, NULL, "0", NULL,
     "Lowest learning rate."},
    {"checkpoint", THAW_KEY_SECTION, 0, OFF, 0, 0, 0, NULL, NULL, "all defaults", "When the run can be resumed from."},
    {"checkpoint.every_epochs", THAW_KEY_INT, JOB(checkpoint_epochs), OFF, 0, 1000000, THAW_KEY_UNHASHED, NULL, "1",
     NULL, "A checkpoint every so many epochs; 0: never."},
    {"checkpoint.every_minutes", THAW_KEY_REAL, JOB(checkpoint_minutes), OFF, 0, 1e6, THAW_KEY_UNHASHED, NULL, "10",
     NULL, "A checkpoint every so many minutes; 0: never."},
    {"checkpoint.keep", THAW_KEY_INT, JOB(checkpoint_keep), OFF, 2, 1000, THAW_KEY_UNHASHED, NULL, "2", NULL,
     "Newest checkpoints that are kept."},
    {"checkpoint.before_end", THAW_KEY_REAL, JOB(checkpoint_before_end), OFF, 0, 1e6, THAW_KEY_UNHASHED, NULL, "120", NULL,
     "Seconds that are left when the run saves and stops (status 75) before its allocation ends, beside the time that a step, "
     "a validation and a checkpoint take. The end is $SLURM_JOB_END_TIME; without it, or with 0, there is no such stop."},
    {"cache", THAW_KEY_SHORT, 0, OFF, 0, 0, 0, "cache.mode", NULL, "auto",
     "Activations at the boundary between layers that never change and those that train, computed once and kept, so that "
     "later epochs skip images and frozen layers; mode, memory and dir change no bit of the result. cache: off is short for "
     "cache: {mode: off}."},
    {"cache.mode", THAW_KEY_CHOICE, JOB(cache_mode), OFF, 0, 0, THAW_KEY_UNHASHED, "auto|off|memory|file", "auto", NULL,
     "auto keeps them where that pays, in memory as long as they fit, else in a file if dir is given; memory and file say "
     "where, whether it pays or not. A file is used again by later runs with the same images and layers."},
    {"cache.memory", THAW_KEY_BYTES, JOB(cache_memory), OFF, 1, 9007199254740992.0, THAW_KEY_UNHASHED, NULL, NULL,
     "half of what the host, its control group and SLURM leave",
     "Most memory of a host for cached activations, over all its ranks."},
    {"cache.dir", THAW_KEY_PATH, JOB(cache_folder), OFF, 0, 0, THAW_KEY_UNHASHED, NULL, NULL,
     "no file with mode auto; $TMPDIR (else /tmp) with mode file",
     "Folder on a disk of the node for files of cached activations. The 16 used last are kept, fewer if the disk is full."},
    {"cache.variants", THAW_KEY_INT, JOB(cache_variants), OFF, 0, 4096, 0, NULL, "0", NULL,
     "Draws of augmentation that each image has: epochs take one of them instead of a new one, kept or not, so that random "
     "augmentation can be cached. 0: augmentation is never restricted; both forms of horizontal_flip are kept."},
    {"cache.precision", THAW_KEY_BOOL, JOB(cache_half), OFF, 0, 0, 0, "fp32|fp16", "fp32", NULL,
     "fp16 keeps activations as IEEE half, in half the memory. They are rounded whether they are kept or not, so that the "
     "result does not depend on mode; the error is reported. Beyond 65504 they are cut, with a warning."},
    {"exchange", THAW_KEY_CHOICE, JOB(exchange), OFF, 0, 0, THAW_KEY_UNHASHED, "auto|overlap|mpi", "auto", NULL,
     "How ranks sum gradients: overlap while the backward pass and the frozen layers' part of the next step are computed; mpi "
     "by blocking MPI_Allreduce, for comparison; auto is overlap, but in memory in common inside of a host where "
     "hosts have equal runs of 2^k ranks (one host: any number); fp16 always sends. With more than two ranks mpi may round "
     "differently from the others, which have equal bits."},
    {"output", THAW_KEY_PATH, JOB(output_folder), OFF, 0, 0, THAW_KEY_UNHASHED, NULL, NULL, "must be given to train",
     "Run folder: effective job, history, log, checkpoints, model.h5, best.h5."},
};
const int thaw_n_keys = (int)(sizeof(thaw_keys) / sizeof(*thaw_keys));

bool thaw_key_of_stage(const thaw_key *key) {
    return strncmp(key->name, "stages[].", 9) == 0;
}

bool thaw_key_below(const thaw_key *key, const char *section) {
    size_t length = strlen(section);
    const char *rest = key->name;
    if (length > 0) {
        if (strncmp(rest, section, length) != 0 || rest[length] != '.')
            return false;
        rest += length + 1;
    }
    return strchr(rest, '.') == NULL;
}

const char *thaw_key_last(const thaw_key *key) {
    const char *dot = strrchr(key->name, '.');
    return dot != NULL ? dot + 1 : key->name;
}

const thaw_key *thaw_key_find(const char *section, const char *name) {
    for (int i = 0; i < thaw_n_keys; i++)
        if (thaw_key_below(&thaw_keys[i], section) && strcmp(thaw_key_last(&thaw_keys[i]), name) == 0)
            return &thaw_keys[i];
    return NULL;
}

const thaw_key *thaw_key_full(const char *dotted) {
    for (int i = 0; i < thaw_n_keys; i++)
        if (strcmp(thaw_keys[i].name, dotted) == 0)
            return &thaw_keys[i];
    return NULL;
}

bool thaw_key_preset(const thaw_key *key, thaw_optimizer_kind kind, char *buffer, size_t size) {
    static const char *const names[] = {"sgd", "adam", "adamw", "rmsprop"};
    const char *preset = key->preset != NULL ? key->preset : "";
    buffer[0] = '\0';
    if (strchr(preset, '=') == NULL) {
        snprintf(buffer, size, "%s", preset);
        return true;
    }
    size_t length = strlen(names[kind]);
    for (const char *at = preset; *at != '\0'; at += strspn(at, " ")) {
        size_t token = strcspn(at, " ");
        if (strncmp(at, names[kind], length) == 0 && at[length] == '=') {
            snprintf(buffer, size, "%.*s", (int)(token - length - 1), at + length + 1);
            return true;
        }
        at += token;
    }
    return false;
}

static void describe_choices(const char *choices, char *buffer, size_t size) {
    size_t n = (size_t)snprintf(buffer, size, "%s", "");
    for (const char *c = choices; *c != '\0' && n + 3 < size; c++) {
        if (*c == '|')
            n += (size_t)snprintf(buffer + n, size - n, ", ");
        else
            n += (size_t)snprintf(buffer + n, size - n, "%c", *c);
    }
}

const char *thaw_key_expected(const thaw_key *key, char *buffer, size_t size) {
    char choices[128];
    const char *kind = key->type == THAW_KEY_INT ? "an integer" : "a number";
    bool above = key->rules & THAW_KEY_ABOVE;
    switch (key->type) {
    case THAW_KEY_INT:
    case THAW_KEY_REAL:
        if (key->low <= -1e30)
            snprintf(buffer, size, "%s", kind);
        else if (key->high >= 1e30)
            snprintf(buffer, size, "%s %s %g", kind, above ? "above" : "of at least", key->low);
        else
            snprintf(buffer, size, "%s %s %.16g %s %.16g", kind, above ? "above" : "from", key->low,
                     key->rules & THAW_KEY_BELOW ? (above ? "and below" : "to below") : (above ? "up to" : "to"),
                     key->high);
        break;
    case THAW_KEY_CHOICE:
    case THAW_KEY_INDEX:
    case THAW_KEY_BOOL:
        describe_choices(key->choices, choices, sizeof(choices));
        snprintf(buffer, size, strcmp(key->choices, TRUTH) == 0 ? "true or false" : "one of %s", choices);
        break;
    case THAW_KEY_SECTION:
    case THAW_KEY_DEFAULTS:
    case THAW_KEY_SWITCH:
        snprintf(buffer, size, "a mapping%s", key->type == THAW_KEY_SECTION ? "" : " or none");
        break;
    case THAW_KEY_SHORT:
        thaw_key_expected(thaw_key_full(key->choices), choices, sizeof(choices));
        snprintf(buffer, size, "a mapping, or %s", choices);
        break;
    case THAW_KEY_BYTES:
        snprintf(buffer, size, "bytes, or a size like 4GB or 512MiB");
        break;
    case THAW_KEY_STAGES:
        snprintf(buffer, size, "a list of mappings");
        break;
    case THAW_KEY_STRING:
        snprintf(buffer, size, "text");
        break;
    case THAW_KEY_PATH:
        snprintf(buffer, size, "a path");
        break;
    case THAW_KEY_ARRAY:
        snprintf(buffer, size, "FILE.h5:/dataset");
        break;
    case THAW_KEY_DATASET:
        snprintf(buffer, size, "a folder or {x: FILE.h5:/x, y: FILE.h5:/y}");
        break;
    case THAW_KEY_BASE:
        snprintf(buffer, size, "a network's name or a file");
        break;
    case THAW_KEY_WEIGHTS:
        snprintf(buffer, size, "imagenet, none or a file");
        break;
    case THAW_KEY_SHAPE:
        snprintf(buffer, size, "a list [height, width, channels] of integers from 1 to 65536");
        break;
    case THAW_KEY_HEAD:
        snprintf(buffer, size, "a list of layers");
        break;
    case THAW_KEY_NAMES:
        snprintf(buffer, size, "a list of names");
        break;
    case THAW_KEY_LOSS:
        snprintf(buffer, size,
                 "binary_crossentropy, categorical_crossentropy, sparse_categorical_crossentropy, "
                 "mean_squared_error or mean_absolute_error");
        break;
    case THAW_KEY_METRICS:
        snprintf(buffer, size, "a list of accuracy, mse, mae");
        break;
    case THAW_KEY_CLASS_WEIGHT:
        snprintf(buffer, size, "a mapping of classes to numbers of at least 0");
        break;
    case THAW_KEY_FREEZE:
        snprintf(buffer, size, "a selector or a list of selectors");
        break;
    case THAW_KEY_OPTIMIZER:
        snprintf(buffer, size, "sgd, adam, adamw or rmsprop, or a mapping with name");
        break;
    }
    return buffer;
}

/* Keras' spellings: function names, short forms and class names. */
static const struct {
    const char *name;
    thaw_loss loss;
} losses[] = {
    {"binary_crossentropy", THAW_LOSS_BINARY_CROSSENTROPY},
    {"BinaryCrossentropy", THAW_LOSS_BINARY_CROSSENTROPY},
    {"bce", THAW_LOSS_BINARY_CROSSENTROPY},
    {"BCE", THAW_LOSS_BINARY_CROSSENTROPY},
    {"categorical_crossentropy", THAW_LOSS_CATEGORICAL_CROSSENTROPY},
    {"CategoricalCrossentropy", THAW_LOSS_CATEGORICAL_CROSSENTROPY},
    {"sparse_categorical_crossentropy", THAW_LOSS_CATEGORICAL_CROSSENTROPY},
    {"SparseCategoricalCrossentropy", THAW_LOSS_CATEGORICAL_CROSSENTROPY},
    {"mean_squared_error", THAW_LOSS_MSE},
    {"MeanSquaredError", THAW_LOSS_MSE},
    {"mse", THAW_LOSS_MSE},
    {"MSE", THAW_LOSS_MSE},
    {"mean_absolute_error", THAW_LOSS_MAE},
    {"MeanAbsoluteError", THAW_LOSS_MAE},
    {"mae", THAW_LOSS_MAE},
    {"MAE", THAW_LOSS_MAE},
};

static const struct {
    const char *name;
    thaw_metric metric;
} metrics[] = {
    {"accuracy", THAW_METRIC_ACCURACY},
    {"acc", THAW_METRIC_ACCURACY},
    {"Accuracy", THAW_METRIC_ACCURACY},
    {"binary_accuracy", THAW_METRIC_ACCURACY},
    {"BinaryAccuracy", THAW_METRIC_ACCURACY},
    {"categorical_accuracy", THAW_METRIC_ACCURACY},
    {"CategoricalAccuracy", THAW_METRIC_ACCURACY},
    {"sparse_categorical_accuracy", THAW_METRIC_ACCURACY},
    {"SparseCategoricalAccuracy", THAW_METRIC_ACCURACY},
    {"mse", THAW_METRIC_MSE},
    {"MSE", THAW_METRIC_MSE},
    {"mean_squared_error", THAW_METRIC_MSE},
    {"MeanSquaredError", THAW_METRIC_MSE},
    {"mae", THAW_METRIC_MAE},
    {"MAE", THAW_METRIC_MAE},
    {"mean_absolute_error", THAW_METRIC_MAE},
    {"MeanAbsoluteError", THAW_METRIC_MAE},
};

enum { N_LOSSES = sizeof(losses) / sizeof(*losses), N_METRICS = sizeof(metrics) / sizeof(*metrics) };

bool thaw_loss_parse(thaw_loss *out, const char *name) {
    for (int i = 0; i < N_LOSSES; i++)
        if (strcmp(losses[i].name, name) == 0) {
            *out = losses[i].loss;
            return true;
        }
    return false;
}

bool thaw_metric_parse(thaw_metric *out, const char *name) {
    for (int i = 0; i < N_METRICS; i++)
        if (strcmp(metrics[i].name, name) == 0) {
            *out = metrics[i].metric;
            return true;
        }
    return false;
}

const char *thaw_loss_nearest(const char *wrong) {
    const char *names[N_LOSSES];
    for (int i = 0; i < N_LOSSES; i++)
        names[i] = losses[i].name;
    return thaw_nearest(wrong, names, N_LOSSES);
}

const char *thaw_metric_nearest(const char *wrong) {
    const char *names[N_METRICS];
    for (int i = 0; i < N_METRICS; i++)
        names[i] = metrics[i].name;
    return thaw_nearest(wrong, names, N_METRICS);
}

const char *thaw_loss_name(thaw_loss loss) {
    static const char *const names[] = {"binary_crossentropy", "categorical_crossentropy", "mean_squared_error",
                                        "mean_absolute_error"};
    return names[loss];
}

/* The names that history.csv shows: what Keras logs for metrics=["accuracy", "mse", "mae"]. */
const char *thaw_metric_name(thaw_metric metric) {
    static const char *const names[] = {"accuracy", "mse", "mae"};
    return names[metric];
}
