#!/usr/bin/env python3
"""The number of ranks and threads changes nothing that matters.

The same job on 1, 2, 3 and 4 ranks: 37 images in batches of 10 (the last one has 7, so that shares differ), three
epochs, batch norm in both modes, and batches smaller than the number of ranks (a rank without images). Asked are
equal losses within 1e-5, each image counted exactly once, replicas that are equal, and exchanged bytes that follow from
the trainable parameters alone. The same rank count must repeat its bits, whatever the number of threads.
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import read_weights, small_network  # noqa: E402


class Ranks(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.plain = small_network(os.path.join(cls.shared, "plain.h5"))
        cls.norm = small_network(os.path.join(cls.shared, "norm.h5"), batch_norm=True)
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 13, "b": 12, "c": 12}, seed=1)
        cls.validation = harness.make_folders(os.path.join(cls.shared, "val"), {"a": 5, "b": 4, "c": 4}, seed=2)

    def job(self, base, stages, batch=10):
        return {"model": {"base": base},
                "data": {"train": self.train, "validation": self.validation, "preprocess": "rescale",
                         "augment": {"horizontal_flip": True}},
                "training": {"seed": 5, "batch_size": batch, "loss": "categorical_crossentropy",
                             "metrics": ["accuracy"]},
                "stages": stages, "output": self.path("run")}

    def stage(self, name, freeze, epochs=3, optimizer=None, **more):
        return dict({"name": name, "freeze": freeze, "epochs": epochs,
                     "optimizer": optimizer or {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}}, **more)

    def train_on(self, ranks, job, env=None):
        """Trains into a new folder and returns it."""
        folder = self.path("run-%d-%d" % (ranks, len(os.listdir(self.dir))))
        self.succeed("train", harness.write_job(self.path("job.yaml"), job), "--set", "output=" + folder, ranks=ranks,
                     env=env)
        for e in harness.events(folder, "epoch"):
            self.assertEqual(e["images"], 37, e)
        verify = harness.events(folder, "verify")
        self.assertGreaterEqual(len(verify), len(job["stages"]))
        for e in verify:
            self.assertIs(e["replicas_equal"], True, e)
        self.assertEqual(harness.events(folder, "start")[0]["ranks"], max(1, ranks))
        self.assertEqual(harness.events(folder, "end")[-1]["status"] in (0, "OK", "ok", "done"), True)
        return folder

    def same_numbers(self, job):
        reference = None
        for ranks in (1, 2, 3, 4):
            rows = harness.history(self.train_on(ranks, job))
            self.assertEqual(len(rows), sum(s["epochs"] for s in job["stages"]))
            reference = reference or rows
            for want, got in zip(reference, rows):
                for key in ("loss", "val_loss"):
                    self.assert_close(got[key], want[key], 1e-5, "%d ranks, epoch %d: %s" % (ranks, want["epoch"], key))
                for key, n in (("accuracy", 37), ("val_accuracy", 13)):
                    self.assertLessEqual(abs(got[key] - want[key]) * n, 1.001, "%d ranks: %s" % (ranks, key))
                    self.assertAlmostEqual(got[key] * n, round(got[key] * n), 4, "a share of %d images" % n)
        self.assertLess(reference[-1]["loss"], reference[0]["loss"])

    def test_plain(self):
        self.same_numbers(self.job(self.plain, [self.stage("head", "before:fc1"),
                                                self.stage("late", "before:block2_conv1")]))

    def test_frozen_middle_adam(self):
        self.same_numbers(self.job(self.plain, [self.stage("middle", ["block2_conv1", "block2_conv2"],
                                                           optimizer={"name": "adam", "learning_rate": 0.001})]))

    def test_moving_statistics(self):
        self.same_numbers(self.job(self.norm, [self.stage("late", "before:block2_conv1",
                                                          batch_norm_statistics="moving")]))

    def test_batch_statistics(self):
        self.same_numbers(self.job(self.norm, [self.stage("late", "before:block2_conv1", batch_norm_statistics="batch"),
                                               self.stage("all", "none", batch_norm_statistics="batch")]))

    def test_rank_without_images(self):
        """Batches of 3: the last one has 1 image, so that up to three of four ranks have none."""
        stage = self.stage("late", "before:block2_conv1", batch_norm_statistics="batch")
        self.same_numbers(self.job(self.norm, [stage], batch=3))

    def test_bits_repeat(self):
        job = self.job(self.norm, [self.stage("late", "before:block2_conv1", 2, batch_norm_statistics="batch")])
        for ranks in (0, 1, 2, 3):
            files = []
            for threads in (1, 2, 1):
                folder = self.train_on(ranks, job, {"OMP_NUM_THREADS": threads})
                files.append(harness.read_bytes(os.path.join(folder, "model.h5")))
            self.assertEqual(files[0], files[1], "%d ranks: one and two threads differ" % ranks)
            self.assertEqual(files[0], files[2], "%d ranks: repetition differs" % ranks)

    def test_other_kernels_on_one_rank(self):
        """Ranks that compute in different ways would drift apart: refused before anything is written."""
        job = harness.write_job(self.path("job.yaml"), self.job(self.plain, [self.stage("head", "before:fc1", 1)]))
        prefix = harness.on_rank(1, 2, "export THAW_CONV=direct")
        result = harness.run("train", job, prefix=prefix)
        self.assertEqual(result.status, 78, str(result))
        self.assertEqual(len(result.messages), 1, str(result))
        self.assertIn("kernels", result.messages[0])
        self.assertFalse(os.path.exists(self.path("run")))

    def test_exchanged_bytes(self):
        job = self.job(self.plain, [self.stage("head", "before:fc1", 1), self.stage("late", "before:block2_conv2", 1),
                                    self.stage("full", "none", 1)])
        parameters = {name: int(np.prod(w.shape)) for name, w in read_weights(self.plain).items()}
        full = sum(parameters.values())
        want = {"head": sum(n for name, n in parameters.items() if name.split("/")[0] in ("fc1", "predictions")),
                "full": full}
        want["late"] = want["head"] + sum(n for name, n in parameters.items() if name.startswith("block2_conv2/"))
        for ranks in (1, 2, 3):
            folder = self.train_on(ranks, job)
            for e in harness.events(folder, "epoch"):
                self.assertEqual(e["exchanged_bytes"], 4 * 4 * want[e["stage"]], e)  # four steps, four bytes
                self.assertEqual(e["exchanged_bytes_if_unfrozen"], 4 * 4 * full, e)
            for e in harness.events(folder, "stage"):
                name = e.get("name", e["stage"])
                self.assertEqual(e["trainable_params"], want[name])
                self.assertEqual(e["non_trainable_params"], full - want[name])
                self.assertEqual((e["gradient_bytes"], e["full_gradient_bytes"]), (4 * want[name], 4 * full))

    def test_frozen_layers_keep_their_bits(self):
        job = self.job(self.norm, [self.stage("late", "before:block2_conv1", 2, batch_norm_statistics="batch")])
        before = read_weights(self.norm)
        for ranks in (1, 3):
            after = read_weights(os.path.join(self.train_on(ranks, job), "model.h5"))
            self.assertEqual(set(after), set(before))
            for name, value in before.items():
                same = value.tobytes() == after[name].tobytes()
                self.assertEqual(same, name.startswith("block1_"), name)


if __name__ == "__main__":
    harness.main()
