"""Keras on TensorFlow as a peer: keras_peer.py THREADS. Batch norm uses its moving statistics, as in thaw bench.

With --graph NETWORK prints the base as JSON (layers in order with inputs and arguments), from which torch_peer.py builds
exactly the same network.
"""
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import numpy as np
import tensorflow as tf

from networks import CLASSES, NETWORKS, serve


def base_of(network):
    import keras
    _, builder, size, _ = NETWORKS[network]
    keras.utils.clear_session()
    return getattr(keras.applications, builder)(weights=None, include_top=False, input_shape=(size, size, 3)), size


def prepare(network, plan, batch):
    import keras
    base, size = base_of(network)
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (batch, size, size, 3)).astype("f4")
    if plan == "forward":
        return lambda: base.predict_on_batch(x)
    late = NETWORKS[network][3]
    names = [layer.name for layer in base.layers]
    first = {"head": len(names), "late": names.index(late) if late else 0, "everything": 0}[plan]
    for i, layer in enumerate(base.layers):
        layer.trainable = i >= first
    inputs = keras.Input((size, size, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(base(inputs, training=False))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(pooled))
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), "sparse_categorical_crossentropy")
    y = rng.integers(0, CLASSES, batch)
    return lambda: model.train_on_batch(x, y)


def graph(network):
    base, size = base_of(network)
    layers = []
    for layer in base.layers:
        node = layer._inbound_nodes[0]
        inputs = [t._keras_history.operation.name for t in node.input_tensors] if node.input_tensors else []
        config = {k: v for k, v in layer.get_config().items() if isinstance(v, (int, float, str, bool, list, tuple, type(None)))}
        layers.append({"name": layer.name, "class": type(layer).__name__, "inputs": inputs, "config": config})
    print(json.dumps({"size": size, "output": base.layers[-1].name, "layers": layers}))


if __name__ == "__main__":
    if sys.argv[1] == "--graph":
        graph(sys.argv[2])
        sys.exit(0)
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    serve(prepare)
