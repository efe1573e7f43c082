#!/usr/bin/env python3
"""Ranks of one host have frozen weights and their packed forms in common: equal bits, less memory, as planned.

Where /dev/shm has no room every rank keeps its own, says so once, and computes the same; this needs a mount namespace.
"""
import os
import signal
import subprocess
import sys
import unittest

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import Network  # noqa: E402

SIZE, BATCH, STEPS = 48, 8, 2
LARGE = 96
POOLED = [{"GlobalAveragePooling2D": {}}, {"Dense": {"units": 3, "activation": "softmax", "name": "predictions"}}]
# A /dev/shm with room for MPI alone.
SMALL = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=24m tmpfs /dev/shm && exec "$@"', "sh"]


def can_mount():
    try:
        return subprocess.run(SMALL + ["true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


class NodeMemory(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = os.path.join(cls.shared, "data.h5")
        draw = np.random.default_rng(3)
        with h5py.File(cls.data, "w") as f:
            f["x"] = draw.integers(0, 256, (STEPS * BATCH, SIZE, SIZE, 3), "u1")
            f["large"] = draw.integers(0, 256, (STEPS * BATCH, LARGE, LARGE, 3), "u1")
            f["y"] = draw.integers(0, 3, STEPS * BATCH).astype("i4")

    def job(self, name, stages, base="vgg16", x="x", **more):
        size = LARGE if x == "large" else SIZE
        return harness.write_job(self.path(name + ".yaml"), dict(
            {"model": {"base": base, "weights": "none", "include_top": False, "input_shape": [size, size, 3], "head": POOLED},
             "data": {"train": {"x": self.data + ":/" + x, "y": self.data + ":/y"}, "preprocess": "rescale"},
             "training": {"seed": 1, "batch_size": BATCH, "loss": "sparse_categorical_crossentropy"},
             "stages": [dict({"name": "stage-%d" % i, "epochs": 1, "batch_norm_statistics": "moving",
                              "optimizer": {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9}}, **stage)
                        for i, stage in enumerate(stages)],
             "cache": {"mode": "off"}, "output": self.path(name)}, **more))

    def same(self, a, b):
        for name in ("model.h5", "history.csv"):
            self.assertEqual(*(harness.read_bytes(os.path.join(self.path(run), name)) for run in (a, b)), name + " differs")

    STAGES = [{"freeze": "all"}, {"freeze": ["before:block4_conv1", "block5_conv2"]}, {"freeze": "all", "epochs": 2}]

    @unittest.skipUnless(can_mount(), "no mount namespace: /dev/shm cannot be made small")
    def test_no_room(self):
        """With and without room the same bits, over changes of stage; one line says why memory is not saved."""
        for base, ranks in (("vgg16", 2), ("resnet50", 3)) if harness.LONG else (("vgg16", 2),):
            stages = self.STAGES if base == "vgg16" else [{"freeze": "all"}, {"freeze": "before:conv5_block1_1_conv"}]
            common, own = ("%s-%s-%d" % (base, kind, ranks) for kind in ("common", "own"))
            with self.subTest(base=base, ranks=ranks):
                result = self.succeed("train", self.job(common, stages, base), ranks=ranks)
                self.assertNotIn("/dev/shm", result.err)
                result = self.succeed("train", self.job(own, stages, base), prefix=SMALL + harness.mpirun(ranks))
                lines = [line for line in result.err.splitlines() if "copy of what is frozen" in line]
                self.assertEqual(len(lines), len(stages), result.err)
                self.assertRegex(lines[0], r"every rank keeps its own copy of what is frozen: rank 0 \(.*\): /dev/shm has "
                                           r"[0-9.]+ MB left, [0-9.]+ MB are needed")
                self.same(common, own)
                for name, shared in ((common, True), (own, False)):
                    for event in harness.events(self.path(name), "memory"):
                        self.assertEqual(event["shared_bytes_per_host"] > 0, shared)

    def test_gradient_of_one_part(self):
        """Each rank looks at the gradients of its part alone: what is not finite in one of them ends all ranks."""
        x = np.full((STEPS * BATCH, LARGE, LARGE, 3), 0.5, "f4")
        x[:, 0, 0, 0] = 3e38  # times a weight of 1 % finite, and so is the loss; eight of them times half are not
        for exchange, units in (("auto", 32), ("overlap", 8)):  # weights in common memory; updates by owners of sums
            net = Network("flat", (LARGE, LARGE, 3))
            net.flatten("flatten")
            net.dense("predictions", units, "softmax")
            label = int(np.argmin(net.weights["predictions"]["kernel"][0]))  # what that is multiplied by is in the first part
            with h5py.File(self.path("data.h5"), "w") as f:
                f["x"], f["y"] = x, np.full(STEPS * BATCH, label, "i4")
            for weight, status in ((1, 0), (4, 77)):
                folder = self.path("%s-%d" % (exchange, weight))
                job = harness.write_job(self.path("job.yaml"), {
                    "model": {"base": net.save(self.path("flat.h5"))},
                    "data": {"train": {"x": self.path("data.h5:/x"), "y": self.path("data.h5:/y")}, "preprocess": "none"},
                    "training": {"batch_size": BATCH, "loss": "sparse_categorical_crossentropy",
                                 "class_weight": {str(label): weight}},
                    "stages": [{"name": "all", "freeze": "none", "epochs": 1,
                                "optimizer": {"name": "sgd", "learning_rate": 1e-41}}],
                    "exchange": exchange, "cache": {"mode": "off"}, "output": folder})
                result = harness.run("train", job, ranks=2)
                self.assertEqual(result.status, status, result)
                self.assertEqual(os.path.exists(os.path.join(folder, "model.h5")), status == 0)
                if status == 0:
                    shared = harness.events(folder, "memory")[0]["shared_bytes_per_host"]
                    self.assertEqual(shared > 0, exchange == "auto")
                else:
                    self.assertRegex(result.err, "stage all epoch 1 step 1: the loss or a gradient is not finite")

    def test_one_rank_and_two(self):
        """Where a batch has one image for each rank and sums are made by slices, sharing changes nothing either."""
        for ranks in (1, 2):
            self.succeed("train", self.job("ranks-%d" % ranks, self.STAGES,
                                           training={"seed": 1, "batch_size": BATCH, "reproducible": "ranks",
                                                     "loss": "sparse_categorical_crossentropy"}), ranks=ranks)
        self.assertEqual(*(harness.read_bytes(os.path.join(self.path("ranks-%d" % r), "model.h5")) for r in (1, 2)))

    def test_memory(self):
        """Plan, run and measured peak agree on two ranks as on one, and a rank holds about half of the frozen weights less."""
        job = self.job("run", [{"freeze": "all"}, {"freeze": "before:block4_conv1"}], x="large")
        alone = self.succeed("plan", job, "--no-probe", "--json", "--ranks", "2").json["stages"]
        plan = self.succeed("plan", job, "--no-probe", "--json", ranks=2).json["stages"]
        self.succeed("train", job, ranks=2)
        found = harness.events(self.path("run"), "memory")
        largest = 0
        for one, stage, event in zip(alone, plan, found):
            self.assertEqual((one["ranks_per_host"], stage["ranks_per_host"]), (1, 2))
            shared = stage["shareable_bytes"]
            self.assertEqual(event["shared_bytes_per_host"], shared)
            self.assert_close(one["memory_bytes_per_rank"] - shared / 2, stage["memory_bytes_per_rank"], 0.05, "plan alone")
            self.assertEqual(stage["memory_bytes_per_host"], 2 * stage["memory_bytes_per_rank"])
            self.assert_close(stage["memory_bytes_per_rank"], event["memory_bytes_per_rank"], 0.02, "plan and run")
            largest = max(largest, stage["memory_bytes_per_rank"])
            self.assert_close(largest, event["peak_memory_bytes"], 0.05, stage["name"])
        self.assertGreater(plan[0]["shareable_bytes"], 4 * 58e6)  # all weights of the base and their packed forms
        trained = 13e6 * 4  # bytes of the kernels of blocks 4 and 5: with momentum, and packed for both passes
        self.assertGreater(plan[1]["shareable_bytes"], (2 + 2 * 36 / 9 - 1) * trained)

    def test_killed_and_resumed(self):
        """A run whose ranks were killed goes on with the bits of an undisturbed one."""
        stages = [{"freeze": "all", "epochs": 2}, {"freeze": "before:block5_conv1", "epochs": 3}]
        whole, broken = self.job("whole", stages), self.job("broken", stages, checkpoint={"every_epochs": 1})
        self.succeed("train", whole, ranks=2)
        process = harness.start(("train", broken), ranks=2)
        rows = os.path.join(self.path("broken"), "history.csv")
        self.assertTrue(harness.wait_for(lambda: os.path.exists(rows) and len(harness.history(self.path("broken"))) > 2, 300))
        for rank in harness.ranks_of(process):
            os.kill(rank, signal.SIGKILL)
        harness.finish(process, 60)
        self.succeed("train", broken, ranks=2)
        self.same("whole", "broken")

    def test_predict(self):
        self.succeed("train", self.job("run", [{"freeze": "all"}]), ranks=2)
        model = os.path.join(self.path("run"), "model.h5")
        one, three = (self.predict(model, ranks) for ranks in (1, 3))
        self.assertEqual(one, three)

    def predict(self, model, ranks):
        out = self.path("y-%d.csv" % ranks)
        self.succeed("predict", model, self.data + ":/x", "--output", out, ranks=ranks)
        return harness.read_bytes(out)


if __name__ == "__main__":
    harness.main()
