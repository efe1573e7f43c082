#!/usr/bin/env python3
"""Trains the cases of tests/parity/training and the quickstart with thaw, then loads model.h5 in Keras 3 and in tf-keras.

Asked are, per family: the file loads, predicts within 1e-5 of `thaw predict`, and has the trainable flags of the last stage.
A Functional inside a Functional loads in its source's family alone. Needs keras, tf_keras, h5py, Pillow; THAW_BIN names thaw.
Prints one line per case; exit status 1 on a difference.
"""
import json
import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import h5py
import keras
import numpy as np
import tf_keras

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import harness  # noqa: E402

BOUND = 1e-5
QUICKSTART = os.path.join(harness.ROOT, "jobs", "quickstart", "job.yaml")


def flags(model):
    """Trainable flags of the layers with weights, by path name."""
    found = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found.update({layer.name + "/" + k: v for k, v in flags(layer).items()})
        elif layer.weights:
            found[layer.name] = bool(layer.trainable)
    return found


def compare(name, job, folder):
    out = os.path.join(folder, name)
    result = harness.run("train", job, "--set", "output=" + out, ranks=2)
    if result.status:
        return ["FAIL %s: %s" % (name, result)]
    model = os.path.join(out, "model.h5")
    with h5py.File(model, "r") as f:
        config = f.attrs["model_config"]
    shape = tf_keras.models.load_model(model, compile=False).input_shape if name != "nested_functional" else \
        keras.models.load_model(model, compile=False).input_shape
    x = np.random.default_rng(3).uniform(0, 1, (5,) + tuple(shape[1:])).astype("f4")
    arrays = os.path.join(folder, name + ".x.h5")
    with h5py.File(arrays, "w") as f:
        f["x"] = x
    result = harness.run("predict", model, arrays + ":/x", "--output", arrays + ".y.h5", "--preprocess", "none", ranks=2)
    if result.status:
        return ["FAIL %s: %s" % (name, result)]
    with h5py.File(arrays + ".y.h5", "r") as f:
        ours = f["y"][()]
    stage = harness.events(out, "stage")[-1]["layers"]
    lines = []
    for tag, library in (("Keras " + keras.__version__, keras), ("tf-keras " + tf_keras.__version__, tf_keras)):
        if name == "nested_functional" and library is tf_keras:
            continue  # made by Keras 3
        try:
            loaded = library.models.load_model(model, compile=False)
            y = loaded(x, training=False)
            y = np.asarray(y[0] if isinstance(y, (list, tuple)) else y).reshape(ours.shape)
            error = float(np.abs(y - ours).max())
            want = {k: v for k, v in stage.items() if k in flags(loaded)}
            ok = error <= BOUND and flags(loaded) == want and len(want) > 0
            lines.append("%s %s in %s: largest difference %.1e, flags %s" % (
                "ok  " if ok else "FAIL", name, tag, error, "equal" if flags(loaded) == want else "differ"))
        except Exception as e:  # a file that does not load is what this looks for
            lines.append("FAIL %s in %s: %s %s" % (name, tag, type(e).__name__, str(e)[:300]))
    assert json.loads(config)
    return lines


def main():
    failed = 0
    cases = os.path.join(HERE, "training")
    with tempfile.TemporaryDirectory(prefix="thaw-trained-") as folder:
        jobs = {name: os.path.join(cases, name, "job.yaml") for name in sorted(os.listdir(cases))
                if os.path.exists(os.path.join(cases, name, "job.yaml"))}
        for name, job in dict(jobs, quickstart=QUICKSTART).items():
            for line in compare(name, job, folder):
                failed += line.startswith("FAIL")
                print(line, flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
