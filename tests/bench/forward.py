#!/usr/bin/env python3
"""Forward pass beside Keras, in one run on the same cores:  THAW_BIN=build/thaw KERAS_PYTHON tests/bench/forward.py

    --model vgg16|vgg19|resnet50|inceptionv3   --batch N   --threads T   --rounds R

Run by a Python that has Keras 3 with TensorFlow. Each round times Keras' predict_on_batch and then `thaw bench` (all layers
frozen, inference form) with as many threads; rounds alternate, so that both see the same neighbours on a shared machine.
Prints the images per second of each round, the medians, and thaw / Keras as the median of the rounds' ratios.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILDERS = {"vgg16": ("VGG16", 224), "vgg19": ("VGG19", 224), "resnet50": ("ResNet50", 224),
            "inceptionv3": ("InceptionV3", 299)}


def keras_forward(name, batch, threads):
    """A function that times one call of predict_on_batch, in seconds."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import numpy as np
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras
    builder, size = BUILDERS[name]
    model = getattr(keras.applications, builder)(weights=None)
    x = np.random.default_rng(1).uniform(-1, 1, (batch, size, size, 3)).astype("f4")
    model.predict_on_batch(x)

    def once():
        began = time.perf_counter()
        model.predict_on_batch(x)
        return time.perf_counter() - began
    return once, keras.__version__


def thaw_forward(thaw, name, batch, threads):
    out = subprocess.run([thaw, "bench", "--model", name, "--batch", str(batch), "--threads", str(threads), "--freeze",
                          "[:-1]", "--json"], check=True, stdout=subprocess.PIPE, env=dict(os.environ, LC_ALL="C.UTF-8"))
    return json.loads(out.stdout)["forward"]["images_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(BUILDERS), default="vgg16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    thaw = os.environ.get("THAW_BIN", os.path.join(ROOT, "build", "thaw"))
    once, version = keras_forward(options.model, options.batch, options.threads)
    theirs, ours = [], []
    for i in range(options.rounds):
        seconds = statistics.median(once() for _ in range(3))
        theirs.append(options.batch / seconds)
        ours.append(thaw_forward(thaw, options.model, options.batch, options.threads))
        print("round %d: Keras %s %7.2f img/s, thaw %7.2f img/s" % (i + 1, version, theirs[-1], ours[-1]), flush=True)
    ratios = sorted(o / t for o, t in zip(ours, theirs))
    print("%s, batch %d, %d threads: Keras %.2f img/s, thaw %.2f img/s, thaw / Keras %.2f (%.2f to %.2f)" % (
        options.model, options.batch, options.threads, statistics.median(theirs), statistics.median(ours),
        statistics.median(ratios), ratios[0], ratios[-1]))


if __name__ == "__main__":
    sys.exit(main())
