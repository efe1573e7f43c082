"""Writes small networks as whole-model legacy HDF5 files, as Keras 2 (TensorFlow's) writes them, with h5py alone.

    net = Network("tiny", (16, 16, 3))
    net.conv("conv1", 8)            # 3x3, same, relu
    net.pool("pool1")
    net.flatten("flatten")
    net.dense("predictions", 3, "softmax")
    net.save("tiny.h5")

Every layer is called on the one before, or on inputs=["name", ...]. Weights are drawn from `seed`; change them in
net.weights["conv1"]["kernel"] before saving.
"""
import json

import h5py
import numpy as np


class Network:
    def __init__(self, name, shape, seed=1):
        self.name, self.rng = name, np.random.default_rng(seed)
        self.layers, self.shapes, self.weights, self.last = [], {}, {}, None
        self._add("InputLayer", "image", [], tuple(shape), {"batch_input_shape": [None] + list(shape), "sparse": False,
                                                            "ragged": False})

    def _add(self, kind, name, inputs, shape, config, **weights):
        config = dict({"name": name, "trainable": True, "dtype": "float32"}, **config)
        if kind == "InputLayer":
            del config["trainable"]
        nodes = [[[i, 0, 0, {}] for i in inputs]] if inputs else []
        self.layers.append({"class_name": kind, "config": config, "name": name, "inbound_nodes": nodes})
        self.shapes[name], self.weights[name], self.last = shape, weights, name

    def _input(self, inputs):
        inputs = inputs or [self.last]
        return inputs, self.shapes[inputs[0]]

    def layer(self, name):
        return next(layer for layer in self.layers if layer["name"] == name)

    def conv(self, name, filters, size=3, strides=1, padding="same", activation="relu", bias=True, inputs=None):
        inputs, (h, w, c) = self._input(inputs)
        shape = tuple(-(-n // strides) if padding == "same" else (n - size) // strides + 1 for n in (h, w)) + (filters,)
        deviation = (2.0 / (size * size * c)) ** 0.5
        weights = {"kernel": self.rng.normal(0, deviation, (size, size, c, filters)).astype("f4")}
        if bias:
            weights["bias"] = self.rng.normal(0, 0.05, filters).astype("f4")
        self._add("Conv2D", name, inputs, shape, {
            "filters": filters, "kernel_size": [size, size], "strides": [strides, strides], "padding": padding,
            "data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1, "activation": activation,
            "use_bias": bias, "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
            "bias_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": None,
            "bias_regularizer": None, "activity_regularizer": None, "kernel_constraint": None,
            "bias_constraint": None}, **weights)

    def batch_norm(self, name, momentum=0.9, inputs=None):
        inputs, shape = self._input(inputs)
        c, r = shape[-1], self.rng
        self._add("BatchNormalization", name, inputs, shape, {
            "axis": [len(shape)], "momentum": momentum, "epsilon": 0.001, "center": True, "scale": True},
            gamma=r.uniform(0.7, 1.3, c).astype("f4"), beta=r.normal(0, 0.1, c).astype("f4"),
            moving_mean=r.normal(0, 0.2, c).astype("f4"), moving_variance=r.uniform(0.5, 1.5, c).astype("f4"))

    def activation(self, name, kind="relu", inputs=None):
        inputs, shape = self._input(inputs)
        self._add("Activation", name, inputs, shape, {"activation": kind})

    def add(self, name, inputs):
        self._add("Add", name, inputs, self.shapes[inputs[0]], {})

    def pool(self, name, size=2, inputs=None):
        inputs, (h, w, c) = self._input(inputs)
        self._add("MaxPooling2D", name, inputs, (h // size, w // size, c), {
            "pool_size": [size, size], "padding": "valid", "strides": [size, size], "data_format": "channels_last"})

    def global_pool(self, name, inputs=None):
        inputs, shape = self._input(inputs)
        self._add("GlobalAveragePooling2D", name, inputs, shape[-1:], {"data_format": "channels_last",
                                                                       "keepdims": False})

    def flatten(self, name, inputs=None):
        inputs, shape = self._input(inputs)
        self._add("Flatten", name, inputs, (int(np.prod(shape)),), {"data_format": "channels_last"})

    def dropout(self, name, rate, inputs=None):
        inputs, shape = self._input(inputs)
        self._add("Dropout", name, inputs, shape, {"rate": rate, "noise_shape": None, "seed": None})

    def dense(self, name, units, activation="linear", inputs=None):
        inputs, shape = self._input(inputs)
        n = shape[-1]
        self._add("Dense", name, inputs, shape[:-1] + (units,), {
            "units": units, "activation": activation, "use_bias": True,
            "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
            "bias_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": None,
            "bias_regularizer": None, "activity_regularizer": None, "kernel_constraint": None, "bias_constraint": None},
            kernel=self.rng.normal(0, (1.5 / n) ** 0.5, (n, units)).astype("f4"),
            bias=self.rng.normal(0, 0.05, units).astype("f4"))

    def other(self, kind, name, config):
        """A layer of any class that keeps the shape (for files that must be refused)."""
        inputs, shape = self._input(None)
        self._add(kind, name, inputs, shape, config)

    def config(self):
        return {"class_name": "Functional", "config": {
            "name": self.name, "trainable": True, "layers": self.layers,
            "input_layers": [[self.layers[0]["name"], 0, 0]], "output_layers": [[self.last, 0, 0]]}}

    def save(self, path):
        with h5py.File(path, "w", libver="earliest") as f:
            f.attrs["keras_version"], f.attrs["backend"] = "2.15.0", "tensorflow"
            f.attrs["model_config"] = json.dumps(self.config()).encode()
            group = f.create_group("model_weights")
            group.attrs["keras_version"], group.attrs["backend"] = b"2.15.0", b"tensorflow"
            group.attrs["layer_names"] = [layer["name"].encode() for layer in self.layers]
            for layer in self.layers:
                name = layer["name"]
                names = ["%s/%s:0" % (name, v) for v in self.weights[name]]
                group.create_group(name).attrs["weight_names"] = [n.encode() for n in names]
                for n, values in zip(names, self.weights[name].values()):
                    group[name][n] = values
        return path


def read_weights(path):
    """{"layer/variable": array} of a legacy HDF5 file, whole model or weights; nested: "outer/layer/variable"."""
    def text(s):
        return s.decode() if isinstance(s, bytes) else str(s)

    found = {}
    with h5py.File(path, "r") as f:
        group = f["model_weights"] if "model_weights" in f else f
        for layer in (text(n) for n in group.attrs["layer_names"]):
            for entry in group[layer].attrs.get("weight_names", []):
                name = text(entry)
                parts = name.split(":")[0].split("/")[-2:]
                key = "/".join(parts) if parts[0] == layer else layer + "/" + "/".join(parts)
                found[key] = group[layer][name][()]
    return found


def small_network(path, classes=3, size=(16, 16), batch_norm=False, seed=1, top=True):
    """Two blocks of convolutions and a head: what most tests train. Returns path."""
    net = Network("small", tuple(size) + (3,), seed)
    for block, filters in ((1, 8), (2, 12)):
        for i in (1, 2):
            name = "block%d_conv%d" % (block, i)
            net.conv(name, filters, activation="linear" if batch_norm else "relu")
            if batch_norm:
                net.batch_norm("block%d_bn%d" % (block, i))
                net.activation("block%d_relu%d" % (block, i))
        net.pool("block%d_pool" % block)
    if top:
        net.flatten("flatten")
        net.dense("fc1", 16, "relu")
        net.dense("predictions", classes, "softmax")
    return net.save(path)


def wide_network(path):
    """Enough parameters that their gradients can be told from other traffic. Returns path."""
    net = Network("wide", (16, 16, 3))
    net.conv("block1_conv1", 16)
    net.pool("block1_pool")
    net.conv("block2_conv1", 64)
    net.conv("block2_conv2", 64)
    net.pool("block2_pool")
    net.flatten("flatten")
    net.dense("fc1", 96, "relu")
    net.dense("predictions", 3, "softmax")
    return net.save(path)
