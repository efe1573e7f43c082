#!/usr/bin/env python3
"""Loads files that thaw wrote in Keras 3 and tf-keras and compares predictions with the file that thaw read.

    THAW_KEEP_WRITTEN=FOLDER build/tests/test_keras_file; check_written.py FOLDER     needs keras and tf_keras

NAME.written.h5 is the fixture NAME.h5 rewritten: both families must load it and predict the same (a Functional inside a
Functional: its own family). Other files are compared between the
two families.
"""
import glob
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tf_keras

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../unit/formats/fixtures")
# No encoding of a Functional (or of a Sequential that begins with one) inside a Functional loads in both.
ONE_FAMILY = {"nested_functional", "twice"}


def predict(library, path, x=None):
    model = library.models.load_model(path, compile=False)
    if x is None:
        x = np.random.default_rng(1).normal(size=(3,) + tuple(model.input_shape[1:])).astype("f4")
    y = model(x, training=False)
    while isinstance(y, (list, tuple)):  # Keras 3 on files of Keras 2: a list of one
        y = y[0]
    return x, np.asarray(y), model


def flags(model):
    found = []
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found += [(layer.name + "/" + n, f) for n, f in flags(layer)]
        elif type(layer).__name__ != "InputLayer":
            found.append((layer.name, layer.trainable))
    return found


def main():
    failed = 0
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.h5"))):
        name = os.path.basename(path)
        results = {}
        source = os.path.join(FIXTURES, name.replace(".written.h5", ".h5"))
        own = None
        if name.endswith(".written.h5"):
            own = {"k3": keras, "tk": tf_keras, "k2": tf_keras}[name[:2]]
            x, want, model = predict(own, source)
            results["source"] = (want, flags(model))
        else:
            x = None
        kind = name[3:].split(".")[0]
        for tag, library in (("keras", keras), ("tf_keras", tf_keras)):
            if kind in ONE_FAMILY and own is not None and library is not own:
                continue
            if ".keras3." in name and library is tf_keras or ".keras2." in name and library is keras:
                continue
            try:
                x, y, model = predict(library, path, x)
                results[tag] = (y, flags(model))
            except Exception as error:  # pylint: disable=broad-except
                print("FAIL %s in %s: %s: %s" % (name, tag, type(error).__name__, str(error)[:1500]))
                failed += 1
        names = list(results)
        for tag in names[1:]:
            difference = float(np.max(np.abs(results[tag][0] - results[names[0]][0])))
            same = results[tag][1] == results[names[0]][1]
            ok = difference <= 1e-5 and same and results[tag][0].shape == results[names[0]][0].shape
            failed += not ok
            print("%s %s: %s against %s: %.1e%s" % ("ok  " if ok else "FAIL", name, tag, names[0], difference,
                                                    "" if same else ", other trainable flags"))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
