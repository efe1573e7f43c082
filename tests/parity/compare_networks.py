#!/usr/bin/env python3
"""Compares thaw's outputs with Keras': compare_networks.py FOLDER [NETWORK]...     (FOLDER: of make_networks.py)

Relative L2 error of the logits and of each cut at most 1e-5. Prints one line per output; exit status 1 on a difference.
"""
import glob
import os
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402

BOUND = 1e-5


def main():
    folder, failed = sys.argv[1], 0
    names = sys.argv[2:] or sorted(os.path.basename(p)[:-len(".expected.h5")]
                                   for p in glob.glob(os.path.join(folder, "*.expected.h5")))
    for name in names:
        with h5py.File(os.path.join(folder, name + ".expected.h5"), "r") as f:
            expected = {k: f[k][()] for k in f}
        for key, want in expected.items():
            model = os.path.join(folder, name + (".h5" if key == "logits" else "." + key + ".h5"))
            out = os.path.join(folder, "out.h5")
            result = harness.run("predict", model, os.path.join(folder, name + ".x.h5:/x"), "--output", out, "--logits",
                                 timeout=300, env={"OMP_NUM_THREADS": os.cpu_count()})
            if result.status != 0:
                print("FAIL %s %s: %s" % (name, key, result))
                failed += 1
                continue
            with h5py.File(out, "r") as f:
                got = f["y"][()]
            os.remove(out)
            error = np.linalg.norm(got.astype("f8").reshape(want.shape) - want) / np.linalg.norm(want.astype("f8"))
            ok = error <= BOUND
            failed += not ok
            print("%s %s %s: relative L2 %.2e" % ("ok  " if ok else "FAIL", name, key, error), flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
