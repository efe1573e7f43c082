#!/usr/bin/env python3
"""Makes large networks and what Keras computes with them: make_networks.py FOLDER     needs Keras 3 (TensorFlow).

VGG16, ResNet50 and InceptionV3 of keras.applications with weights drawn from a numpy seed (scaled so that activations
stay near 1 through all layers) and batch norm statistics drawn too, on inputs of full size. FOLDER receives per network

    NET.h5             whole model, legacy HDF5
    NET.LAYER.h5       the same cut behind an inner layer (five of them), followed by a Flatten
    NET.x.h5           /x (2,H,W,3) float32: the input as the network takes it
    NET.expected.h5    /logits, and /LAYER per cut (float64 run rounded to float32)

The files are too large to be kept; run.sh makes them, compares, and deletes them.
"""
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import h5py
import keras
import numpy as np

NETWORKS = {
    "vgg16": (keras.applications.VGG16, (224, 224, 3),
              ["block1_pool", "block2_pool", "block3_pool", "block4_pool", "block5_pool"]),
    "resnet50": (keras.applications.ResNet50, (224, 224, 3),
                 ["pool1_pool", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_add"]),
    "inceptionv3": (keras.applications.InceptionV3, (299, 299, 3), ["mixed0", "mixed3", "mixed7", "mixed8", "mixed10"]),
}


def randomize(model, rng):
    for layer in model.layers:
        for v in layer.weights:
            what, shape = v.name, tuple(v.shape)
            if what == "kernel":
                w = rng.normal(0, (2.0 / np.prod(shape[:-1])) ** 0.5, shape)
            elif what == "gamma":
                w = rng.uniform(0.5, 1.0, shape)
            elif what == "moving_variance":
                w = rng.uniform(0.5, 1.5, shape)
            else:
                w = rng.normal(0, 0.1, shape)
            v.assign(w.astype("f4"))


def make(name, folder):
    build, shape, cuts = NETWORKS[name]
    rng = np.random.default_rng(len(name))
    x = rng.normal(0, 1, (2,) + shape).astype("f4")
    with h5py.File(os.path.join(folder, name + ".x.h5"), "w") as f:
        f["x"] = x
    models = {}
    for floatx in ("float32", "float64"):
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(floatx)
        keras.utils.clear_session()
        models[floatx] = build(weights=None, input_shape=shape)
    randomize(models["float32"], rng)
    models["float64"].set_weights(models["float32"].get_weights())
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    base = models["float32"]
    base.save(os.path.join(folder, name + ".h5"), include_optimizer=False)
    for cut in cuts:
        y = keras.layers.Flatten(name="cut_flatten")(base.get_layer(cut).output)
        keras.Model(base.input, y).save(os.path.join(folder, "%s.%s.h5" % (name, cut)), include_optimizer=False)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    exact = models["float64"]
    exact.layers[-1].activation = keras.activations.linear
    whole = keras.Model(exact.input, [exact.get_layer(c).output for c in cuts] + [exact.output])
    outputs = whole(x.astype("f8"), training=False)
    with h5py.File(os.path.join(folder, name + ".expected.h5"), "w") as f:
        for key, value in zip(cuts + ["logits"], outputs):
            f[key] = np.asarray(value).reshape(2, -1).astype("f4")
    print(name, "made", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for one in sys.argv[2:] or NETWORKS:
        make(one, sys.argv[1])
