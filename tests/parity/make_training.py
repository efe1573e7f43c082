#!/usr/bin/env python3
"""Makes tests/parity/training: python3 make_training.py [CASE]...     needs Keras 3 (3.15) with TensorFlow.

Each case is one small network trained by Keras in two or three stages from the weights of init.h5, not shuffled, in
batches of 10 of 37 images (the last one has 7), once in float32 and once in float64. Kept are, for tests/parity/
test_training.py, which trains the same with thaw:

    CASE/init.h5      whole model, as Keras 3 writes it
    CASE/job.yaml     the same stages for thaw
    CASE/history.csv  epoch, stage, metrics (float32 run)
    CASE/final.h5     LAYER/VARIABLE: weights after the last stage, float32; attribute "noise": names of biases in
                      front of a batch norm that normalises with batch statistics (their true gradient is zero)
    CASE/stages.json  per stage: names of the frozen layers
    data.h5           arrays that all cases share

A case is accepted when float32 and float64 agree ten times better than the test asks of thaw; else the script fails.
"""
import csv
import json
import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # plain kernels: the same numbers everywhere, and no crash in batch norm
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "training")
N_TRAIN, N_VALIDATION, BATCH = 37, 13, 10
LOSS_BOUND, WEIGHT_BOUND = 1e-4, 1e-4


def make_data(path):
    """Four kinds of stripes and blobs in noise: 8-bit images, so that the file stays small."""
    import h5py
    import numpy as np
    rng = np.random.default_rng(7)
    with h5py.File(path, "w", libver="earliest") as f:
        for part, n in (("train", N_TRAIN), ("val", N_VALIDATION)):
            kind = np.arange(n) % 4
            x = rng.normal(110, 35, (n, 12, 12, 3))
            for i, k in enumerate(kind):
                at = rng.integers(1, 8)
                tint = rng.uniform(40, 120, 3)
                if k == 0:
                    x[i, at:at + 3, :, :] += tint
                elif k == 1:
                    x[i, :, at:at + 3, :] += tint
                elif k == 2:
                    x[i, at:at + 4, at:at + 4, :] += tint
                else:
                    x[i] -= tint * 0.5
            x = x.clip(0, 255).round().astype("u1")
            f["x_" + part] = x
            f["kind_" + part] = kind.astype("i4")
            f["onehot_" + part] = np.eye(4, dtype="f4")[kind]
            f["binary_" + part] = (kind % 2).astype("f4").reshape(n, 1)
            f["values_" + part] = np.stack([x.mean((1, 2, 3)) / 128 - 1, x[..., 0].std((1, 2)) / 64], 1).astype("f4")


# Networks. `bn` makes their batch norms: Keras' own, or the one that always normalises by moving statistics, which is
# what layer(x, training=False) means in Keras 2 (Keras 3's fit overrides that argument in a Functional model).

def moving_batch_norm(k):
    class MovingBatchNormalization(k.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=False)
    return MovingBatchNormalization


def vgg(k, bn):
    L = k.layers
    x = i = L.Input((12, 12, 3), name="image")
    for name, f in (("block1_conv1", 8), ("block1_conv2", 8), ("block1_pool", 0), ("block2_conv1", 16),
                    ("block2_conv2", 16), ("block2_pool", 0)):
        x = (L.Conv2D(f, 3, padding="same", activation="relu", name=name) if f else L.MaxPooling2D(2, name=name))(x)
    x = L.Flatten(name="flatten")(x)
    x = L.Dense(24, activation="relu", name="fc1")(x)
    return k.Model(i, L.Dense(4, activation="softmax", name="predictions")(x), name="small_vgg")


def residual(k, bn):
    L = k.layers

    def unit(x, name, f, size, stride, relu=True):
        x = L.Conv2D(f, size, strides=stride, padding="same", name=name + "_conv")(x)
        x = bn(epsilon=1.001e-5, momentum=0.9, name=name + "_bn")(x)
        return L.Activation("relu", name=name + "_relu")(x) if relu else x

    i = L.Input((12, 12, 3), name="image")
    x = L.ZeroPadding2D(1, name="stem_pad")(i)
    x = L.Conv2D(8, 3, name="stem_conv")(x)
    x = bn(epsilon=1.001e-5, momentum=0.9, name="stem_bn")(x)
    x = L.Activation("relu", name="stem_relu")(x)
    for b, (f, s) in enumerate(((16, 2), (16, 1)), 1):
        p = "unit%d_" % b
        shortcut = unit(x, p + "0", f, 1, s, False) if b == 1 else x
        y = unit(x, p + "1", 8, 1, s)
        y = unit(y, p + "2", 8, 3, 1)
        y = unit(y, p + "3", f, 1, 1, False)
        x = L.Add(name=p + "add")([shortcut, y])
        x = L.Activation("relu", name=p + "out")(x)
    x = L.GlobalAveragePooling2D(name="avg_pool")(x)
    return k.Model(i, L.Dense(4, activation="softmax", name="predictions")(x), name="small_residual")


def branching(k, bn):
    L = k.layers

    def unit(x, name, f, size, **more):
        x = L.Conv2D(f, size, padding=more.pop("padding", "same"), use_bias=False, name=name, **more)(x)
        x = bn(scale=False, momentum=0.8, name=name + "_bn")(x)
        return L.Activation("relu", name=name + "_relu")(x)

    i = L.Input((12, 12, 3), name="image")
    x = unit(i, "stem", 8, 3, strides=2, padding="valid")
    a = unit(x, "a", 6, 1)
    b = unit(unit(x, "b1", 6, (1, 3)), "b2", 8, (3, 1))
    c = unit(L.AveragePooling2D(3, strides=1, padding="same", name="c_pool")(x), "c", 4, 1)
    x = L.Concatenate(name="mixed0")([a, b, c])
    d = unit(x, "d", 10, 3, strides=2)
    e = L.MaxPooling2D(3, strides=2, padding="same", name="e_pool")(x)
    x = L.Concatenate(name="mixed1")([d, e])
    x = L.GlobalAveragePooling2D(name="avg_pool")(x)
    return k.Model(i, L.Dense(1, activation="sigmoid", name="predictions")(x), name="small_branching")


def nested_base(k, bn):
    L = k.layers
    x = i = L.Input((12, 12, 3), name="image")
    for b, f in enumerate((8, 12), 1):
        x = L.Conv2D(f, 3, padding="same", name="conv%d" % b)(x)
        x = bn(momentum=0.9, name="bn%d" % b)(x)
        x = L.ReLU(name="relu%d" % b)(x)
        x = L.MaxPooling2D(2, name="pool%d" % b)(x)
    return k.Model(i, x, name="stem")


def nested_sequential(k, bn):
    L = k.layers
    return k.Sequential([L.Input((12, 12, 3), name="pixels"), nested_base(k, bn),
                         L.GlobalAveragePooling2D(name="avg_pool"), L.Dense(16, activation="relu", name="fc1"),
                         L.Dense(4, activation="softmax", name="predictions")], name="outer")


def nested_functional(k, bn):
    """The usual form of transfer learning: base(x, training=False)."""
    L = k.layers
    i = L.Input((12, 12, 3), name="pixels")
    x = nested_base(k, bn)(i, training=False)
    x = L.GlobalMaxPooling2D(name="max_pool")(x)
    return k.Model(i, L.Dense(4, activation="softmax", name="predictions")(x), name="outer")


def regression(k, bn):
    L = k.layers
    l2, l1 = k.regularizers.L2(1e-2), k.regularizers.L1(1e-3)
    i = L.Input((12, 12, 3), name="image")
    x = L.Rescaling(1 / 127.5, offset=-1.0, name="scale")(i)
    x = L.Conv2D(6, 3, dilation_rate=2, activation="swish", kernel_regularizer=l2, name="conv1")(x)
    x = L.Conv2D(6, 3, strides=2, activation="tanh", kernel_regularizer=l2, name="conv2")(x)
    x = L.AveragePooling2D(2, name="pool")(x)
    x = L.Flatten(name="flatten")(x)
    x = L.Dense(12, activation="elu", kernel_regularizer=l1, bias_regularizer=l2, name="fc1")(x)
    return k.Model(i, L.Dense(2, name="values")(x), name="small_regression")


def before(name):
    return lambda names: names[:names.index(name)]


# stage: (freeze for thaw, the frozen layers for Keras, epochs, optimizer for thaw = arguments of Keras' class)
SGD = {"name": "sgd", "learning_rate": 0.05}
MOMENTUM = {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}
NESTEROV = {"name": "sgd", "learning_rate": 0.01, "momentum": 0.8, "nesterov": True}
ADAM = {"name": "adam", "learning_rate": 0.001}
CASES = {
    "vgg_sgd": dict(net=vgg, loss="sparse_categorical_crossentropy", y="kind", stages=[
        ('"before:fc1"', before("fc1"), 3, SGD),
        ("[block2_conv1, block2_conv2]", lambda n: ["block2_conv1", "block2_conv2"], 2, MOMENTUM),
        ("none", lambda n: [], 2, NESTEROV)]),
    "vgg_adaptive": dict(net=vgg, loss="categorical_crossentropy", y="onehot", stages=[
        ('"[:-4]"', lambda n: n[:-4], 2, ADAM),
        ('"glob:block2_*"', lambda n: [m for m in n if m.startswith("block2_")], 2,
         {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.01}),
        ("before:block1_conv2", before("block1_conv2"), 2, {"name": "rmsprop", "learning_rate": 0.0005})]),
    "residual_moving": dict(net=residual, moving=True, loss="sparse_categorical_crossentropy", y="kind", stages=[
        ('"[:-1]"', lambda n: n[:-1], 2, ADAM),
        ('["before:unit1_0_conv", "glob:unit2_2_*"]',
         lambda n: before("unit1_0_conv")(n) + [m for m in n if m.startswith("unit2_2_")], 3,
         dict(MOMENTUM, learning_rate=0.004))]),
    "residual_batch": dict(net=residual, loss="sparse_categorical_crossentropy", y="kind", stages=[
        ("before:unit2_1_conv", before("unit2_1_conv"), 2, SGD),
        ('"glob:unit2_*"', lambda n: [m for m in n if m.startswith("unit2_")], 2, MOMENTUM),
        ("class:BatchNormalization", lambda n: [m for m in n if m.endswith("_bn")], 2,
         {"name": "adam", "learning_rate": 0.0005, "epsilon": 0.001})]),
    "branching_batch": dict(net=branching, loss="binary_crossentropy", y="binary", stages=[
        ("before:d", before("d"), 2, {"name": "rmsprop", "learning_rate": 0.0005, "momentum": 0.5}),
        ("none", lambda n: [], 2, NESTEROV)]),
    "branching_moving": dict(net=branching, moving=True, loss="binary_crossentropy", y="binary", stages=[
        ('["before:a", b1, b1_bn]', lambda n: before("a")(n) + ["b1", "b1_bn"], 3, NESTEROV),
        ("none", lambda n: [], 2, {"name": "adam", "learning_rate": 0.0005, "clipvalue": 0.05})]),
    "nested_sequential": dict(net=nested_sequential, moving=True, loss="sparse_categorical_crossentropy", y="kind",
                              stages=[
        ("before:fc1", lambda n: ["stem/" + m for m in ("conv1", "bn1", "conv2", "bn2")], 2, ADAM),
        ("[stem/conv2]", lambda n: ["stem/conv2"], 2, SGD)]),
    "nested_functional": dict(net=nested_functional, moving=True, mode="batch", loss="categorical_crossentropy",
                              y="onehot", stages=[
        ("before:predictions", lambda n: ["stem/" + m for m in ("conv1", "bn1", "conv2", "bn2")], 2, SGD),
        ("before:stem/conv2", lambda n: ["stem/conv1", "stem/bn1"], 2, dict(ADAM, global_clipnorm=0.5))]),
    "regression": dict(net=regression, loss="mse", y="values", metrics=["mae", "mse"], preprocess="none", stages=[
        ("before:conv2", before("conv2"), 3, dict(SGD, learning_rate=0.01, clipnorm=0.1)),
        ("[conv2]", lambda n: ["conv2"], 2, {"name": "sgd", "learning_rate": 0.01, "weight_decay": 0.01})]),
}
# Those biases stand before a batch norm that normalises with batch statistics at some stage.
NOISE = {"residual_batch": lambda name: name.endswith("_conv/bias"), "branching_batch": lambda name: False}


def leaves(model, prefix=""):
    """(path name, layer) of every layer, nested models opened."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from leaves(layer, prefix + layer.name + "/")
        else:
            yield prefix + layer.name, layer


def variables(model):
    return {name + "/" + v.name: v for name, layer in leaves(model) for v in layer.weights}


def build(keras, case):
    import numpy as np
    bn = moving_batch_norm(keras) if CASES[case].get("moving") else keras.layers.BatchNormalization
    model = CASES[case]["net"](keras, bn)
    rng = np.random.default_rng(len(case))
    for name, v in variables(model).items():
        what, shape = name.split("/")[-1], tuple(v.shape)
        if what == "kernel":
            w = rng.normal(0, (1.6 / np.prod(shape[:-1])) ** 0.5, shape)
        elif what in ("gamma", "moving_variance"):
            w = rng.uniform(0.6, 1.4, shape)
        else:
            w = rng.normal(0.05, 0.1, shape)
        v.assign(w.astype("f4"))
    return model


def run(case, floatx):
    """Trains one case; returns history rows and final weights."""
    import h5py
    import keras
    keras.config.set_floatx(floatx)
    spec = CASES[case]
    with h5py.File(os.path.join(OUT, "data.h5"), "r") as f:
        scale = 1.0 if spec.get("preprocess") == "none" else 255.0
        data = [(f["x_" + p][:].astype(floatx) / scale, f[spec["y"] + "_" + p][:].astype(floatx)) for p in
                ("train", "val")]
    model = build(keras, case)
    metrics = spec.get("metrics", ["accuracy"])
    rows, frozen_names = [], []
    for number, (_, frozen, epochs, optimizer) in enumerate(spec["stages"]):
        names = [name for name, _ in leaves(model)]
        frozen = set(frozen(names))
        frozen_names.append(sorted(frozen))
        for name, layer in leaves(model):
            layer.trainable = name not in frozen
        kind = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}[optimizer["name"]]
        args = {k: v for k, v in optimizer.items() if k != "name"}
        model.compile(getattr(keras.optimizers, kind)(**args), spec["loss"], metrics=metrics)
        history = model.fit(*data[0], batch_size=BATCH, epochs=epochs, validation_data=data[1], shuffle=False,
                            validation_batch_size=BATCH, verbose=0).history
        for e in range(epochs):
            rows.append(dict({"stage": "stage%d" % number}, **{k: v[e] for k, v in history.items()}))
    return rows, {k: v.numpy() for k, v in variables(model).items()}, frozen_names


def job(case):
    spec = CASES[case]
    lines = ["# Made by make_training.py.", "model: {base: init.h5}", "data:"]
    for key, part in (("train", "train"), ("validation", "val")):
        lines.append('  %s: {x: "../data.h5:/x_%s", y: "../data.h5:/%s_%s"}' % (key, part, spec["y"], part))
    lines += ["  preprocess: " + spec.get("preprocess", "rescale"), "  shuffle: false", "training:", "  seed: 1",
              "  batch_size: %d" % BATCH, "  loss: " + spec["loss"],
              "  metrics: [%s]" % ", ".join(spec.get("metrics", ["accuracy"])), "stages:"]
    for number, (freeze, _, epochs, optimizer) in enumerate(spec["stages"]):
        args = ", ".join("%s: %s" % (k, str(v).lower() if isinstance(v, bool) else v) for k, v in optimizer.items())
        lines += ["  - name: stage%d" % number, "    freeze: " + (freeze if ":" not in freeze or freeze[0] in '"[' else
                                                                 '"%s"' % freeze),
                  "    batch_norm_statistics: " + spec.get("mode", "moving" if spec.get("moving") else "batch"),
                  "    epochs: %d" % epochs, "    optimizer: {%s}" % args]
    return "\n".join(lines + ["output: ../../../../runs/parity-" + case, ""])


def make(case):
    import h5py
    import keras
    import numpy as np
    import pickle
    folder = os.path.join(OUT, case)
    os.makedirs(folder, exist_ok=True)
    rows, final, frozen = run(case, "float32")
    other = pickle.loads(subprocess.run([sys.executable, __file__, "--float64", case], check=True,
                                        stdout=subprocess.PIPE).stdout)
    worst_loss = max(abs(a[k] - b[k]) / max(abs(b[k]), 1e-3) for a, b in zip(rows, other[0]) for k in a if "loss" in k)
    accuracy = all(abs(a[k] - b[k]) < 1e-6 for a, b in zip(rows, other[0]) for k in a if "acc" in k)
    noise = [k for k in final if NOISE.get(case, lambda n: False)(k)]
    errors = {k: float(np.linalg.norm(final[k] - other[1][k]) / max(np.linalg.norm(other[1][k]), 1e-3))
              for k in final if k not in noise}
    worst = max(errors, key=errors.get)
    print("%-18s loss %.1e  weights %.1e (%s)  accuracy %s   %s" % (case, worst_loss, errors[worst], worst, accuracy,
          " ".join("%.3f/%.2f" % (r["loss"], r.get("accuracy", -1)) for r in rows)), flush=True)
    if worst_loss > LOSS_BOUND / 10 or errors[worst] > WEIGHT_BOUND / 10 or not accuracy:
        return False
    keras.config.set_floatx("float32")
    plain = dict(CASES[case], moving=False)
    saved = CASES[case]
    CASES[case] = plain
    try:
        build(keras, case).save(os.path.join(folder, "init.h5"), include_optimizer=False)
    finally:
        CASES[case] = saved
    with open(os.path.join(folder, "job.yaml"), "w") as f:
        f.write(job(case))
    with open(os.path.join(folder, "history.csv"), "w", newline="") as f:
        writer = csv.DictWriter(f, ["epoch", "stage"] + sorted(k for k in rows[0] if k != "stage"), lineterminator="\n")
        writer.writeheader()
        for e, row in enumerate(rows):
            writer.writerow(dict({k: v if k == "stage" else "%.9g" % v for k, v in row.items()}, epoch=e))
    with h5py.File(os.path.join(folder, "final.h5"), "w", libver="latest") as f:
        f.attrs["noise"] = " ".join(noise)
        for k, v in final.items():
            f[k] = v.astype("f4")
    with open(os.path.join(folder, "stages.json"), "w") as f:
        json.dump(frozen, f, indent=0)
        f.write("\n")
    return True


if __name__ == "__main__":
    if sys.argv[1:2] == ["--float64"]:
        import pickle
        sys.stdout.buffer.write(pickle.dumps(run(sys.argv[2], "float64")))
    else:
        os.makedirs(OUT, exist_ok=True)
        if not sys.argv[1:] or not os.path.exists(os.path.join(OUT, "data.h5")):
            make_data(os.path.join(OUT, "data.h5"))
        failed = [c for c in (sys.argv[1:] or CASES) if not make(c)]
        if failed:
            sys.exit("float32 and float64 differ too much: " + " ".join(failed))
