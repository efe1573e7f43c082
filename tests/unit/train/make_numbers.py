#!/usr/bin/env python3
"""Writes keras_numbers.h: losses, gradients, metrics and optimizer steps as Keras 3.15 on TensorFlow computes them.

    python tests/unit/train/make_numbers.py > tests/unit/train/keras_numbers.h
"""
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

rng = np.random.default_rng(7)


def floats(values):
    texts = ["%.9g" % v for v in np.asarray(values, "f4").ravel()]
    texts = [t + ("f" if "." in t or "e" in t else ".0f") for t in texts]
    return ",\n      ".join(", ".join(texts[i:i + 7]) for i in range(0, len(texts), 7))


def activate(final, z, matching):
    if matching:  # leaves the logits attached, as the last layer of a model does
        return {"SIGMOID": keras.activations.sigmoid, "SOFTMAX": keras.activations.softmax}[final](z)
    return {"SIGMOID": tf.math.sigmoid, "SOFTMAX": tf.nn.softmax, "LINEAR": tf.identity}[final](z)


LOSSES = {"BINARY_CROSSENTROPY": keras.losses.BinaryCrossentropy, "CATEGORICAL_CROSSENTROPY": None,
          "MSE": keras.losses.MeanSquaredError, "MAE": keras.losses.MeanAbsoluteError}


def loss_case(loss, final, units, labels, z=None, y=None, n=4):
    z = rng.normal(0, 2, (n, units)).astype("f4") if z is None else np.asarray(z, "f4")
    n = len(z)
    if y is None and labels == "index":
        y = rng.integers(0, units, (n, 1)).astype("f4")
    elif y is None and labels == "onehot":
        y = np.eye(units, dtype="f4")[rng.integers(0, units, n)]
    elif y is None and labels == "binary":
        y = rng.integers(0, 2, (n, units)).astype("f4")
    elif y is None:
        y = rng.uniform(0, 1, (n, units)).astype("f4")
    y = np.asarray(y, "f4")
    expand = labels == "index" and loss != "CATEGORICAL_CROSSENTROPY"
    target = np.eye(units, dtype="f4")[y[:, 0].astype(int)] if expand else y
    maker = LOSSES[loss]
    if maker is None:
        maker = keras.losses.SparseCategoricalCrossentropy if labels == "index" else keras.losses.CategoricalCrossentropy
    matching = (loss, final) in (("BINARY_CROSSENTROPY", "SIGMOID"), ("CATEGORICAL_CROSSENTROPY", "SOFTMAX"))
    variable = tf.Variable(z)
    with tf.GradientTape() as tape:
        p = activate(final, variable, matching)
        value = maker()(target, p)
    dz = tape.gradient(value, variable).numpy()
    p = p.numpy()
    if units == 1:
        accuracy = keras.metrics.BinaryAccuracy()
    elif y.shape[1] == 1:
        accuracy = keras.metrics.SparseCategoricalAccuracy()
    else:
        accuracy = keras.metrics.CategoricalAccuracy()
    accuracy.update_state(y, p)
    wide = np.eye(units, dtype="f4")[y[:, 0].astype(int)] if y.shape[1] == 1 and units > 1 else y
    print("    {THAW_LOSS_%s, THAW_ACTIVATION_%s, %d, %d, %d,\n     {%s},\n"
          "     {%s},\n     %.9g,\n     {%s},\n     %.9g, %.9g, %.9g},"
          % (loss, final, n, units, y.shape[1], floats(z), floats(y), float(value), floats(dz), float(accuracy.result()),
             np.mean((wide - p) ** 2), np.mean(np.abs(wide - p))))


def losses():
    print("static const keras_loss keras_losses[] = {")
    loss_case("BINARY_CROSSENTROPY", "SIGMOID", 1, "binary")
    loss_case("BINARY_CROSSENTROPY", "SIGMOID", 3, "binary")
    loss_case("BINARY_CROSSENTROPY", "SIGMOID", 3, "index")
    loss_case("BINARY_CROSSENTROPY", "SIGMOID", 1, "binary", z=[[60], [-60], [0], [-40]], y=[[0], [1], [1], [0]])
    loss_case("BINARY_CROSSENTROPY", "LINEAR", 1, "binary", z=[[0.3], [0.9], [1.5], [-0.2]], y=[[0], [1], [0], [1]])
    loss_case("BINARY_CROSSENTROPY", "SOFTMAX", 3, "onehot")
    loss_case("CATEGORICAL_CROSSENTROPY", "SOFTMAX", 4, "onehot")
    loss_case("CATEGORICAL_CROSSENTROPY", "SOFTMAX", 4, "index")
    loss_case("CATEGORICAL_CROSSENTROPY", "SOFTMAX", 3, "values", y=[[.2, .3, .5], [0, 1, 0], [.9, .05, .05], [.1, .1, .8]])
    loss_case("CATEGORICAL_CROSSENTROPY", "SOFTMAX", 3, "onehot", z=[[90, 0, -90], [0, 90, 0], [1, 1, 1], [-90, 90, 1]])
    loss_case("CATEGORICAL_CROSSENTROPY", "LINEAR", 3, "onehot", z=rng.uniform(.1, .9, (4, 3)))
    loss_case("CATEGORICAL_CROSSENTROPY", "LINEAR", 3, "index", z=rng.uniform(.1, .9, (4, 3)))
    loss_case("CATEGORICAL_CROSSENTROPY", "SIGMOID", 3, "onehot")
    loss_case("CATEGORICAL_CROSSENTROPY", "SIGMOID", 3, "index")
    loss_case("MSE", "LINEAR", 1, "values")
    loss_case("MSE", "LINEAR", 3, "values")
    loss_case("MSE", "SIGMOID", 2, "values")
    loss_case("MSE", "SOFTMAX", 3, "onehot")
    loss_case("MSE", "SOFTMAX", 3, "index")
    loss_case("MAE", "LINEAR", 3, "values")
    loss_case("MAE", "SIGMOID", 2, "values")
    loss_case("MAE", "SOFTMAX", 3, "onehot")
    print("};\n")


def optimizer_case(text, kind, fields, make, l2=0.0, scale=1.0):
    sizes, steps = (5, 3), 3
    local = np.random.default_rng(11)
    start = [local.normal(0, 1, s).astype("f4") for s in sizes]
    grads = [[(scale * local.normal(0, 1, s)).astype("f4") for s in sizes] for _ in range(steps)]
    variables = [keras.Variable(w) for w in start]
    optimizer = make()
    for step in grads:
        given = [g + np.float32(l2) * 2 * v.numpy() if l2 else g for g, v in zip(step, variables)]
        optimizer.apply_gradients([(tf.constant(g), v) for g, v in zip(given, variables)])
    print("    {\"%s\",\n     {.kind = %s,\n      %s},\n     %s,\n     {%s},\n     {%s},\n     {%s}}," % (
        text, kind, fields, floats([l2]), floats(np.concatenate(start)), floats(np.concatenate([g for s in grads for g in s])),
        floats(np.concatenate([v.numpy() for v in variables]))))


def optimizers():
    o = keras.optimizers
    print("static const keras_optimizer keras_optimizers[] = {")
    sgd, adam, rms = ".learning_rate = 0.1", ".beta_1 = 0.9, .beta_2 = 0.999, .epsilon = 1e-7", ".rho = 0.9, .epsilon = 1e-7"
    optimizer_case("sgd", "THAW_SGD", sgd, lambda: o.SGD(0.1))
    optimizer_case("momentum", "THAW_SGD", sgd + ", .momentum = 0.9", lambda: o.SGD(0.1, 0.9))
    optimizer_case("nesterov", "THAW_SGD", sgd + ", .momentum = 0.9, .nesterov = true", lambda: o.SGD(0.1, 0.9, nesterov=True))
    optimizer_case("sgd, weight_decay", "THAW_SGD", sgd + ", .weight_decay = 0.05", lambda: o.SGD(0.1, weight_decay=0.05))
    optimizer_case("sgd, l2", "THAW_SGD", sgd, lambda: o.SGD(0.1), l2=0.03)
    optimizer_case("sgd, clipnorm", "THAW_SGD", sgd + ", .clipnorm = 1.5", lambda: o.SGD(0.1, clipnorm=1.5))
    optimizer_case("sgd, global_clipnorm", "THAW_SGD", sgd + ", .global_clipnorm = 2",
                   lambda: o.SGD(0.1, global_clipnorm=2.0))
    optimizer_case("sgd, global_clipnorm not reached", "THAW_SGD", sgd + ", .global_clipnorm = 20",
                   lambda: o.SGD(0.1, global_clipnorm=20.0))
    optimizer_case("sgd, clipvalue", "THAW_SGD", sgd + ", .clipvalue = 0.5", lambda: o.SGD(0.1, clipvalue=0.5))
    optimizer_case("adam", "THAW_ADAM", ".learning_rate = 0.01, " + adam, lambda: o.Adam(0.01))
    optimizer_case("adam, other betas", "THAW_ADAM", ".learning_rate = 0.01, .beta_1 = 0.8, .beta_2 = 0.95, .epsilon = 1e-3",
                   lambda: o.Adam(0.01, 0.8, 0.95, 1e-3))
    optimizer_case("adam, clipnorm, weight_decay", "THAW_ADAM",
                   ".learning_rate = 0.01, " + adam + ", .clipnorm = 1, .weight_decay = 0.1",
                   lambda: o.Adam(0.01, clipnorm=1.0, weight_decay=0.1))
    optimizer_case("adam, tiny gradients", "THAW_ADAM", ".learning_rate = 0.01, " + adam, lambda: o.Adam(0.01), scale=1e-6)
    optimizer_case("adamw", "THAW_ADAMW", ".learning_rate = 0.01, .weight_decay = 0.004, " + adam, lambda: o.AdamW(0.01))
    optimizer_case("adamw, clipvalue", "THAW_ADAMW", ".learning_rate = 0.01, .weight_decay = 0.3, .clipvalue = 0.2, " + adam,
                   lambda: o.AdamW(0.01, weight_decay=0.3, clipvalue=0.2))
    optimizer_case("rmsprop", "THAW_RMSPROP", ".learning_rate = 0.01, " + rms, lambda: o.RMSprop(0.01))
    optimizer_case("rmsprop, momentum", "THAW_RMSPROP", ".learning_rate = 0.01, .momentum = 0.5, " + rms,
                   lambda: o.RMSprop(0.01, momentum=0.5))
    optimizer_case("rmsprop, global_clipnorm, weight_decay", "THAW_RMSPROP",
                   ".learning_rate = 0.01, .global_clipnorm = 1, .weight_decay = 0.1, " + rms,
                   lambda: o.RMSprop(0.01, global_clipnorm=1.0, weight_decay=0.1))
    print("};")


print("""/* Made by make_numbers.py with Keras %s; do not edit. */
#ifndef THAW_TEST_KERAS_NUMBERS_H
#define THAW_TEST_KERAS_NUMBERS_H

#include "train/loss.h"
#include "train/optimizer.h"

typedef struct keras_loss {
    thaw_loss loss;
    thaw_activation final;
    int n, units, width;
    float z[16], y[16]; /* (n,units), (n,width) */
    double value;       /* mean over the batch */
    float dz[16];
    double accuracy, mse, mae;
} keras_loss;

typedef struct keras_optimizer {
    const char *name;
    thaw_job_optimizer config;
    float l2;
    float start[8], gradients[24], end[8]; /* tensors of 5 and 3 values; three steps */
} keras_optimizer;
""" % keras.__version__)
losses()
optimizers()
print("#endif")
