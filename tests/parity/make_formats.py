#!/usr/bin/env python3
"""Makes the model files of tests/unit/formats/fixtures: one network per dialect of the legacy HDF5 format.

    make_formats.py [FOLDER]

Files k3_* come from Keras 3, tk_* from tf-keras (Keras 2 in maintenance), k2_* and k1_* are written with h5py as Keras
2.2 and Keras 1 wrote them. Every weight has a value that follows from its name and index (see `value`), so that the C
tests check every number without a second file.
"""
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import h5py
import numpy as np


def value(layer, variable, shape):
    """The weight `variable` of `layer`: multiples of 1/64, positive for a variance. The same formula is in the tests."""
    key = sum(ord(c) for c in layer + "/" + variable)
    index = np.arange(int(np.prod(shape)))
    steps = (index * 7 + key) % 101
    if variable == "moving_variance":
        return ((steps + 1) / 64.0).astype(np.float32).reshape(shape)
    return ((steps - 50) / 64.0).astype(np.float32).reshape(shape)


def fill(model, path=""):
    """Sets every weight of a model of either Keras; a nested model's layers are named by their path."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            fill(layer, path + layer.name + "/")
            continue
        for weight in layer.weights:
            name = weight.name.split("/")[-1].split(":")[0]
            weight.assign(value(path + layer.name, name, tuple(weight.shape)))


def build(keras, folder, tag):
    L, M = keras.layers, keras.Model
    conv = dict(kernel_size=3, padding="same")

    def save(model, name):
        fill(model)
        model.save(os.path.join(folder, f"{tag}_{name}.h5"), include_optimizer=False)

    # A graph with branches, a shared layer called twice, regularizers, partly frozen.
    x = i = L.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, strides=2, padding="same", use_bias=False, kernel_regularizer=keras.regularizers.L2(1e-3),
                 name="conv_a")(x)
    x = L.BatchNormalization(epsilon=1e-5, name="bn_a")(x)
    x = s = L.ReLU(max_value=6.0, name="relu_a")(x)
    shared = L.Conv2D(4, activation="relu", name="conv_shared", kernel_initializer="he_normal", **conv)
    a = shared(shared(x))
    b = L.AveragePooling2D(3, strides=1, padding="same", name="pool_b")(s)
    x = L.Add(name="add")([a, s])
    x = L.Concatenate(name="cat")([x, b])
    x = L.GlobalAveragePooling2D(name="gap")(x)
    x = L.Dropout(0.25, seed=3, name="drop")(x)
    x = L.Dense(3, activation="softmax", name="out")(x)
    m = M(i, x, name="graph")
    m.get_layer("conv_a").trainable = False
    m.get_layer("bn_a").trainable = False
    save(m, "functional")

    # Every class that has no weights, in a Sequential.
    m = keras.Sequential([
        L.Input((8, 8, 2)),
        L.Rescaling([0.5, 0.25], offset=[-1.0, 1.0], name="rescale"),
        L.ZeroPadding2D(((1, 0), (2, 1)), name="pad"),
        L.Conv2D(3, (3, 2), dilation_rate=(1, 2), name="conv", kernel_regularizer=keras.regularizers.L1L2(1e-4, 1e-3)),
        L.Activation("swish", name="act"),
        L.MaxPooling2D(name="pool"),
        L.Flatten(name="flat"),
        L.Reshape((3, -1, 3), name="shape"),
        L.GlobalMaxPooling2D(keepdims=True, name="gmp"),
        L.Flatten(name="flat2"),
        L.Dense(4, use_bias=False, activation="tanh", name="fc"),
        L.BatchNormalization(scale=False, momentum=0.9, name="bn"),
        L.Dropout(0.5, name="drop"),
        L.Dense(2, name="logits"),
        L.Softmax(name="prob"),
    ], name="chain")
    save(m, "sequential")

    def base(name):
        x = i = L.Input((8, 8, 3), name=name + "_in")
        x = L.Conv2D(4, name="block1_conv", **conv)(x)
        x = L.BatchNormalization(name="block1_bn")(x)
        x = L.Activation("relu", name="block1_relu")(x)
        x = L.Conv2D(4, name="block2_conv", **conv)(x)
        x = L.BatchNormalization(name="block2_bn")(x)
        x = L.MaxPooling2D(name="block2_pool")(x)
        return M(i, x, name=name)

    # The transfer-learning idiom in a Sequential, base half frozen.
    b = base("tiny")
    b.get_layer("block1_conv").trainable = False
    b.get_layer("block1_bn").trainable = False
    m = keras.Sequential([L.Input((8, 8, 3)), b, L.Flatten(name="flat"),
                          L.Dense(3, activation="softmax", name="out")], name="transfer")
    save(m, "nested_sequential")

    # The same in a Functional model, base frozen and called with training=False.
    b = base("tiny")
    b.trainable = False
    i = L.Input((8, 8, 3), name="photo")
    x = b(i, training=False)
    x = keras.Sequential([L.Input((4, 4, 4)), L.Flatten(name="flat"), L.Dense(5, activation="relu", name="fc")],
                         name="top")(x)
    x = L.Dense(1, activation="sigmoid", name="out")(x)
    save(M(i, x, name="idiom"), "nested_functional")

    # A nested model called twice, its two outputs merged; models inside models.
    b = base("tiny")
    deep = keras.Sequential([L.Input((8, 8, 3)), b, L.Conv2D(2, 1, name="mix")], name="deep")
    i = L.Input((8, 8, 3), name="photo")
    x = L.Concatenate(name="cat")([deep(i), deep(L.Activation("tanh", name="squash")(i))])
    x = L.GlobalAveragePooling2D(name="gap")(x)
    save(M(i, L.Dense(2, name="out")(x), name="twice"), "twice")


def group_of(weights, layers, fixed):
    """Writes `layers` [(name, [(path, array)])] as Keras did; fixed: fixed-length strings (h5py before 3)."""
    def names(list_):
        return np.array([n.encode() for n in list_]) if fixed else [n.encode() for n in list_]
    weights.attrs["layer_names"] = names([n for n, _ in layers])
    for name, arrays in layers:
        g = weights.create_group(name)
        g.attrs["weight_names"] = names([p for p, _ in arrays]) if arrays else []
        for path, data in arrays:
            g.create_dataset(path, data=data)


def hand_made(folder):
    glorot = {"class_name": "VarianceScaling", "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform",
                                                         "seed": None}}
    zeros = {"class_name": "Zeros", "config": {}}

    def conv(name, filters, **more):
        return {"class_name": "Conv2D", "config": dict({
            "name": name, "trainable": True, "filters": filters, "kernel_size": [3, 3], "strides": [1, 1],
            "padding": "same", "data_format": "channels_last", "dilation_rate": [1, 1], "activation": "relu",
            "use_bias": True, "kernel_initializer": glorot, "bias_initializer": zeros, "kernel_regularizer":
            {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.0005000000237487257}}, "bias_regularizer": None,
            "activity_regularizer": None, "kernel_constraint": None, "bias_constraint": None}, **more)}

    def dense(name, units, activation):
        return {"class_name": "Dense", "config": {
            "name": name, "trainable": True, "units": units, "activation": activation, "use_bias": True,
            "kernel_initializer": glorot, "bias_initializer": zeros, "kernel_regularizer": None,
            "bias_regularizer": None, "activity_regularizer": None, "kernel_constraint": None,
            "bias_constraint": None}}

    def variables(layer, shapes, form):
        return (layer, [(form.format(layer=layer, variable=v), value(layer, v, s)) for v, s in shapes])

    flatten = {"class_name": "Flatten", "config": {"name": "flatten_1", "trainable": True,
                                                   "data_format": "channels_last"}}
    # Keras 2.2: a Sequential is a list, has no InputLayer; fixed-length strings.
    with h5py.File(os.path.join(folder, "k2_sequential.h5"), "w") as f:
        config = {"class_name": "Sequential", "config": [
            conv("conv2d_1", 2, batch_input_shape=[None, 4, 4, 3], dtype="float32"), flatten,
            dense("dense_1", 2, "softmax")]}
        f.attrs["model_config"] = json.dumps(config).encode()
        f.attrs["keras_version"] = b"2.2.2"
        f.attrs["backend"] = b"tensorflow"
        g = f.create_group("model_weights")
        g.attrs["backend"] = b"tensorflow"
        g.attrs["keras_version"] = b"2.2.2"
        group_of(g, [variables("conv2d_1", [("kernel", (3, 3, 3, 2)), ("bias", (2,))], "{layer}/{variable}:0"),
                     ("flatten_1", []),
                     variables("dense_1", [("kernel", (32, 2)), ("bias", (2,))], "{layer}/{variable}:0")], True)
    # Keras 2.2: class Model.
    with h5py.File(os.path.join(folder, "k2_model.h5"), "w") as f:
        def node(layer, *inputs):
            return dict(layer, name=layer["config"]["name"], inbound_nodes=[[[n, 0, 0, {}] for n in inputs]]
                        if inputs else [])
        config = {"class_name": "Model", "config": {"name": "model_1", "layers": [
            node({"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4, 4, 3], "dtype": "float32",
                                                         "sparse": False, "name": "input_1"}}),
            node(conv("conv2d_1", 2), "input_1"), node(conv("conv2d_2", 2), "conv2d_1"),
            node({"class_name": "Add", "config": {"name": "add_1", "trainable": True}}, "conv2d_1", "conv2d_2"),
            node({"class_name": "GlobalAveragePooling2D", "config": {
                "name": "gap_1", "trainable": True, "data_format": "channels_last"}}, "add_1"),
            node(dense("dense_1", 1, "sigmoid"), "gap_1")],
            "input_layers": [["input_1", 0, 0]], "output_layers": [["dense_1", 0, 0]]}}
        f.attrs["model_config"] = json.dumps(config).encode()
        f.attrs["keras_version"] = b"2.2.4"
        f.attrs["backend"] = b"tensorflow"
        group_of(f.create_group("model_weights"), [
            ("input_1", []),
            variables("conv2d_1", [("kernel", (3, 3, 3, 2)), ("bias", (2,))], "{layer}_9/{variable}:0"),
            variables("conv2d_2", [("kernel", (3, 3, 2, 2)), ("bias", (2,))], "{layer}_9/{variable}:0"),
            ("add_1", []), ("gap_1", []),
            variables("dense_1", [("kernel", (2, 1)), ("bias", (1,))], "{layer}/{variable}:0")], True)
    # Weights only, for the network [conv 3x3x3x2, dense 32x2] of k2_sequential: Keras 1 names, no versions, half floats.
    with h5py.File(os.path.join(folder, "k1_weights.h5"), "w") as f:
        group_of(f, [("block1_conv1", [("block1_conv1_W_1:0", value("conv2d_1", "kernel", (3, 3, 3, 2))),
                                       ("block1_conv1_b_1:0", value("conv2d_1", "bias", (2,)))]),
                     ("flatten", []),
                     ("predictions", [("predictions_W_1:0", value("dense_1", "kernel", (32, 2)).astype("<f2")),
                                      ("predictions_b_1:0", value("dense_1", "bias", (2,)).astype(">f8"))])], True)
    # The same with vlen strings and the list of layers in chunks, as very deep networks have it.
    with h5py.File(os.path.join(folder, "k2_weights_chunked.h5"), "w") as f:
        layers = [("flatten", []), variables("conv2d_1", [("kernel", (3, 3, 3, 2)), ("bias", (2,))],
                                             "{layer}/{variable}:0"),
                  ("dropout", []), variables("dense_1", [("kernel", (32, 2)), ("bias", (2,))],
                                             "{layer}/{variable}:0")]
        group_of(f, layers, False)
        del f.attrs["layer_names"]
        f.attrs["layer_names0"] = np.array([b"flatten", b"conv2d_1"])
        f.attrs["layer_names1"] = np.array([b"dropout", b"dense_1"])


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__),
                                                                "../unit/formats/fixtures")
    import keras
    build(keras, folder, "k3")
    import tf_keras
    build(tf_keras, folder, "tk")
    hand_made(folder)


if __name__ == "__main__":
    main()
