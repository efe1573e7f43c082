#!/usr/bin/env python3
"""training.accumulate: a batch in parts gives the same step in less memory.

37 images in batches of 10 (the last one has 7, and shares of parts differ), on 1, 2 and 3 ranks, in 2, 3 and 10 parts: losses
within 1e-5 of the whole batch, each image once, one exchange a step, bits that repeat, and a stop in the middle that shows
nowhere. Batch statistics are those of a part: other numbers, still equal on all ranks.
"""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import small_network  # noqa: E402


class Accumulate(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.plain = small_network(os.path.join(cls.shared, "plain.h5"))
        cls.norm = small_network(os.path.join(cls.shared, "norm.h5"), batch_norm=True)
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 13, "b": 12, "c": 12}, seed=1)
        cls.validation = harness.make_folders(os.path.join(cls.shared, "val"), {"a": 5, "b": 4, "c": 4}, seed=2)

    def job(self, accumulate, base=None, statistics="moving", epochs=3, **more):
        stage = {"name": "late", "freeze": "before:block2_conv1", "epochs": epochs, "batch_norm_statistics": statistics,
                 "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "clipnorm": 1.0}}
        return dict({"model": {"base": base or self.plain},
                     "data": {"train": self.train, "validation": self.validation, "preprocess": "rescale",
                              "augment": {"horizontal_flip": True}},
                     "training": {"seed": 5, "batch_size": 10, "accumulate": accumulate,
                                  "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
                     "stages": [stage], "cache": "off"}, **more)

    def go(self, job, ranks, *more, **options):
        folder = self.path("run-%d" % len(os.listdir(self.dir)))
        self.succeed("train", harness.write_job(self.path("job.yaml"), dict(job, output=folder)), *more, ranks=ranks, **options)
        self.assertEqual(harness.events(folder, "start")[0]["accumulate"], job["training"]["accumulate"])
        for e in harness.events(folder, "verify"):
            self.assertIs(e["replicas_equal"], True, e)
        stage = harness.events(folder, "stage")[0]
        for e in harness.events(folder, "epoch"):
            self.assertEqual((e["images"], e["steps"]), (37, 4))
            self.assertEqual(e["exchanged_bytes"], 4 * stage["gradient_bytes"])
        return folder

    def test_same_steps(self):
        for base in (self.plain, self.norm):
            for ranks in (1, 2, 3):
                whole = harness.history(self.go(self.job(1, base), ranks))
                for accumulate in (2, 3, 10):
                    rows = harness.history(self.go(self.job(accumulate, base), ranks))
                    self.assertEqual(len(rows), len(whole))
                    for want, got in zip(whole, rows):
                        for key in ("loss", "val_loss"):
                            self.assert_close(got[key], want[key], 1e-5, "%d ranks, %d parts" % (ranks, accumulate))

    def test_bits(self):
        """Of repetitions, of both exchanges, with the cache."""
        for ranks in (1, 2):
            job = self.job(3, self.norm, "batch")
            a, b, c = (harness.read_bytes(os.path.join(self.go(dict(job, **more), ranks), "model.h5"))
                       for more in ({}, {"exchange": "mpi"}, {"cache": "memory"}))
            self.assertEqual(a, b, "%d ranks: exchange mpi differs" % ranks)
            self.assertEqual(a, c, "%d ranks: with the cache differs" % ranks)

    def test_batch_statistics(self):
        """Are those of a part, over all ranks: ranks change nothing, parts do."""
        rows = [harness.history(self.go(self.job(2, self.norm, "batch"), ranks)) for ranks in (1, 2, 3)]
        whole = harness.history(self.go(self.job(1, self.norm, "batch"), 1))
        for other in rows[1:]:
            for want, got in zip(rows[0], other):
                self.assert_close(got["loss"], want["loss"], 1e-5, "loss")
        self.assertGreater(abs(whole[0]["loss"] - rows[0][0]["loss"]), 1e-4 * whole[0]["loss"])

    def test_memory(self):
        def needed(accumulate, *more):
            job = harness.write_job(self.path("job.yaml"), self.job(accumulate, output=self.path("run")))
            plan = self.succeed("plan", job, "--set", "training.batch_size=4096", "--json", "--no-probe", *more).json
            return plan["stages"][0]["memory"]["suffix"]  # activations and their gradients
        self.assertLess(needed(8), 0.2 * needed(1))
        self.assertLess(needed(8, "--ranks", "2"), 0.2 * needed(1, "--ranks", "2"))

    def test_stop_in_the_middle(self):
        job = self.job(3, self.norm, "batch", epochs=40)
        want = harness.read_bytes(os.path.join(self.go(job, 2), "model.h5"))
        folder = self.path("stopped")
        arguments = ("train", harness.write_job(self.path("stopped.yaml"), dict(job, output=folder)))
        process = harness.start(arguments, ranks=2)
        rows = os.path.join(folder, "history.csv")
        self.assertTrue(harness.wait_for(lambda: os.path.exists(rows) and len(harness.history(folder)) > 2, 60, 0.002))
        os.kill(harness.ranks_of(process)[1], signal.SIGTERM)
        self.assertEqual(harness.finish(process, 60).status, 75)
        self.succeed(*arguments, ranks=2)
        self.assertEqual(harness.read_bytes(os.path.join(folder, "model.h5")), want)

    def test_refusals(self):
        for value, words in ((11, "a batch has 10 images"), (0, "from 1"), ("two", "accumulate")):
            job = harness.write_job(self.path("job.yaml"), self.job(value, output=self.path("run")))
            result = harness.run("plan", job)
            self.assertEqual(result.status, 64, str(result))
            self.assertIn(words, result.messages[0])


if __name__ == "__main__":
    harness.main()
