"""A training to time: VGG16 with a small head on random arrays, random weights, no cache."""
import os

import h5py
import numpy as np


def write_arrays(path, n, size):
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as f:
        f["x"] = rng.uniform(-100, 100, (n, size, size, 3)).astype("f4")
        f["y"] = rng.integers(0, 2, n)


def vgg16(folder, output, size, batch, freeze, training, **more):
    """A job of two epochs on folder/data.h5; the first warms up. batch: over all ranks."""
    arrays = os.path.join(folder, "data.h5")
    return dict({"model": {"base": "vgg16", "weights": "none", "include_top": False, "input_shape": [size, size, 3],
                           "head": [{"Flatten": {}}, {"Dense": {"units": 256, "activation": "relu"}},
                                    {"Dense": {"units": 1, "activation": "sigmoid"}}]},
                 "data": {"train": {"x": arrays + ":/x", "y": arrays + ":/y"}},
                 "training": dict({"batch_size": batch, "loss": "binary_crossentropy"}, **training),
                 "stages": [{"name": "timed", "freeze": freeze, "epochs": 2,
                             "optimizer": {"name": "sgd", "learning_rate": 1e-6, "momentum": 0.9}}],
                 "checkpoint": {"every_epochs": 0, "every_minutes": 0}, "cache": "off", "output": output}, **more)
