#!/usr/bin/env python3
"""Trains the cases of tests/parity/training with thaw and compares with what Keras got (see make_training.py).

Asked are, on one process and on two ranks, and for some cases with every instruction set and every algorithm of
convolution: loss of every epoch within 1e-4 relative, accuracy within one sample, final weights within 1e-4 relative (norm
of the difference over norm), tensors that no stage trained bit for bit as they were.
"""
import csv
import json
import os
import sys

import h5py
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import harness  # noqa: E402
from keras_file import read_weights  # noqa: E402

CASES = sorted(os.path.basename(os.path.dirname(os.path.join(r, f)))
               for r, _, files in os.walk(os.path.join(HERE, "training")) for f in files if f == "job.yaml")
SAMPLES = {"": 37, "val_": 13}
SAME = {"mse": "mean_squared_error", "mae": "mean_absolute_error"}


class Training(harness.Case):
    def compare(self, case, ranks, isa=None, conv=None):
        folder = os.path.join(HERE, "training", case)
        output = self.path("run")
        result = self.succeed("train", os.path.join(folder, "job.yaml"), "--set", "output=" + output,
                              *(["--conv", conv] if conv else []), ranks=ranks, env={"THAW_ISA": isa} if isa else None)
        if isa and "THAW_ISA=%s is not among" % isa in result.err:
            self.skipTest("this processor has no " + isa)
        kernels = harness.events(output, "start")[0]["kernels"]
        self.assertIn("(%s, convolution %s;" % (isa or kernels[6:].split(",")[0], conv or "auto"), kernels)
        with open(os.path.join(folder, "history.csv"), newline="") as f:
            expected = list(csv.DictReader(f))
        found = harness.history(output)
        self.assertEqual(len(found), len(expected))
        for want, got in zip(expected, found):
            self.assertEqual(got["stage"], want["stage"])
            for key, value in want.items():
                if key in ("epoch", "stage"):
                    continue
                prefix = "val_" if key.startswith("val_") else ""
                value, have = float(value), got.get(key, got.get(prefix + SAME.get(key[len(prefix):], "")))
                where = "%s epoch %s: %s" % (case, want["epoch"], key)
                self.assertIsNotNone(have, where + " is missing; columns " + " ".join(got))
                if "accuracy" in key:
                    self.assertLessEqual(abs(have - value) * SAMPLES[prefix], 1.001, where)
                else:
                    self.assert_close(have, value, 1e-4, where)
        self.compare_weights(folder, output)

    def compare_weights(self, folder, output):
        before, after = read_weights(os.path.join(folder, "init.h5")), read_weights(os.path.join(output, "model.h5"))
        with open(os.path.join(folder, "stages.json")) as f:
            stages = [set(s) for s in json.load(f)]
        self.assertEqual(set(before), set(after))
        with h5py.File(os.path.join(folder, "final.h5"), "r") as f:
            noise = str(f.attrs["noise"]).split()
            for name, value in after.items():
                want = f[name][()]
                layer = name.rsplit("/", 1)[0]
                if all(layer in s for s in stages):
                    self.assertEqual(value.tobytes(), before[name].tobytes(), name + " is always frozen but changed")
                elif name not in noise:
                    error = float(np.linalg.norm(value - want) / max(np.linalg.norm(want), 1e-3))
                    self.assertLessEqual(error, 1e-4, name)


def add(case, ranks, **kernels):
    def test(self):
        self.compare(case, ranks, **kernels)
    words = list(kernels.values()) or ["single" if not ranks else "%d_ranks" % ranks]
    setattr(Training, "_".join(["test", case] + words), test)


for one in CASES:
    add(one, 0)
    add(one, 2)
for one in ("vgg_sgd", "residual_moving", "branching_batch"):
    for name in ("avx512", "avx2", "portable"):
        add(one, 0, isa=name)
    for name in ("direct", "winograd", "blas"):
        add(one, 0, conv=name)

if __name__ == "__main__":
    harness.main()
