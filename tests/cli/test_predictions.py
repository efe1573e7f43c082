#!/usr/bin/env python3
"""What `thaw plan` says before is what `thaw train` needs: the peak of memory, measured by thaw and by the kernel.

Small images, so that it is quick; the networks are whole, so that weights, their packed forms, gradients and activations
are each several times what the program itself takes. tests/bench/predictions.py does the same at the real sizes.
"""
import os
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402

SIZE, BATCH, STEPS = 96, 8, 3
POOLED = [{"GlobalAveragePooling2D": {}}, {"Dense": {"units": 3, "activation": "softmax", "name": "predictions"}}]


class Predictions(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = os.path.join(cls.shared, "data.h5")
        draw = np.random.default_rng(3)
        with h5py.File(cls.data, "w") as f:
            f["x"] = draw.integers(0, 256, (STEPS * BATCH, SIZE, SIZE, 3), "u1")
            f["y"] = draw.integers(0, 3, STEPS * BATCH).astype("i4")

    def job(self, base, stages, **more):
        return harness.write_job(self.path("job.yaml"), dict(
            {"model": {"base": base, "weights": "none", "include_top": False, "input_shape": [SIZE, SIZE, 3], "head": POOLED},
             "data": {"train": {"x": self.data + ":/x", "y": self.data + ":/y"}, "preprocess": "rescale"},
             "training": {"seed": 1, "batch_size": BATCH, "loss": "sparse_categorical_crossentropy"},
             "stages": [dict({"name": "stage-%d" % i, "epochs": 2, "batch_norm_statistics": "moving",
                              "optimizer": {"name": "sgd", "learning_rate": 1e-5, "momentum": 0.9}}, **stage)
                        for i, stage in enumerate(stages)],
             "cache": {"mode": "off"}, "output": self.path("run")}, **more))

    def check(self, base, stages, **more):
        """Every stage's prediction against its measured peak, and the largest against what the kernel says."""
        job = self.job(base, stages, **more)
        plan = self.succeed("plan", job, "--json").json["stages"]
        self.succeed("train", job, prefix=["/usr/bin/python3", "-c", WITH_MAXIMUM, self.path("maximum")])
        with open(self.path("maximum")) as f:
            maximum = int(f.read())
        found = harness.events(self.path("run"), "memory")
        self.assertEqual([e["stage"] for e in found], [s["name"] for s in plan])
        largest = 0  # the kernel's peak never falls
        for stage, event in zip(plan, found):
            largest = max(largest, stage["memory_bytes_per_rank"])
            self.assert_close(largest, event["peak_memory_bytes"], 0.05, base + " " + stage["name"])
            self.assert_close(stage["memory_bytes_per_rank"], event["memory_bytes_per_rank"], 0.02, "plan and run")
        self.assert_close(harness.events(self.path("run"), "end")[0]["peak_memory_bytes"], maximum, 0.02, "end and kernel")
        for epoch in harness.events(self.path("run"), "epoch"):
            self.assertLessEqual(epoch["peak_memory_bytes"], maximum * 1.02)
        return plan

    def test_vgg16(self):
        """Frozen, then trained: the memory of the first stage is given back before the second, which needs more."""
        plan = self.check("vgg16", [{"freeze": "all"}, {"freeze": "before:block4_conv1"}])
        self.assertLess(plan[0]["memory_bytes_per_rank"], 0.75 * plan[1]["memory_bytes_per_rank"])

    def test_resnet50_everything(self):
        self.check("resnet50", [{"freeze": "none", "early_stopping": {"monitor": "loss", "restore_best_weights": True}}],
                   checkpoint={"every_epochs": 1})

    def test_seconds(self):
        """Known epochs are steps times seconds; a cached stage begins with a dearer epoch. Nothing is timed if told so."""
        job = self.job("vgg16", [{"freeze": "all", "epochs": 30}], cache={"mode": "auto"})
        stage = self.succeed("plan", job, "--json", "--ranks", "1,2").json["stages"][0]
        self.assertTrue(stage["cache"]["expected"])
        self.assertGreater(stage["seconds_per_step"], 0.0)
        self.assertAlmostEqual(stage["seconds_per_epoch"], STEPS * stage["seconds_per_step"], places=6)
        self.assertGreater(stage["seconds_first_epoch"], 5 * stage["seconds_per_epoch"])
        self.assertAlmostEqual(stage["seconds"], stage["seconds_first_epoch"] + 29 * stage["seconds_per_epoch"], places=6)
        one, two = stage["by_ranks"]
        self.assertEqual(one["seconds_per_step"], stage["seconds_per_step"])
        self.assertLess(two["seconds_first_epoch"], 0.6 * one["seconds_first_epoch"])
        off = self.succeed("plan", job, "--json", "--set", "cache.mode=off").json["stages"][0]
        self.assertFalse(off["cache"]["expected"])
        self.assertEqual(off["seconds_first_epoch"], off["seconds_per_epoch"])
        self.assertGreater(off["seconds_per_step"], 5 * stage["seconds_per_step"])
        text = self.succeed("plan", job).out
        self.assertIn("caching epoch", text)
        silent = self.succeed("plan", job, "--json", "--no-probe").json["stages"][0]
        self.assertIsNone(silent["seconds_per_step"])
        self.assertIsNone(silent["probe"])
        self.assert_close(silent["memory_bytes_per_rank"], stage["memory_bytes_per_rank"], 0.05, "memory without probe")


# Runs a command, then writes the largest resident set of it into a file.
WITH_MAXIMUM = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024))
sys.exit(status)
"""

if __name__ == "__main__":
    harness.main()
