#!/usr/bin/env python3
"""The gradient exchange: sums in the documented order on 1 to 8 ranks, and trainings whose bits it must not change.

The sums themselves are checked by exchange_program.c, which the build makes beside thaw when it has MPI (THAW_EXCHANGE names
another place). Trainings with `exchange: overlap` run the prefix of the next step while gradients are under way: on one rank
and two they must give the bits of `exchange: mpi`, which does one thing after the other; on three, where MPI may add in
another order, the numbers, and their own bits again.
"""
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import small_network  # noqa: E402

PROGRAM = os.path.abspath(os.environ.get("THAW_EXCHANGE",
                                         os.path.join(os.path.dirname(harness.THAW), "tests", "exchange_program")))


class Sums(unittest.TestCase):
    def check(self, rank_counts, *more):
        for ranks in rank_counts:
            with self.subTest(ranks=ranks):
                done = subprocess.run(harness.mpirun(ranks) + [PROGRAM, str(ranks), *more], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=600,
                                      env=harness.environment())
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, r"^ok %d \d+\n$" % ranks)

    @unittest.skipUnless(os.access(PROGRAM, os.X_OK), "no exchange_program: built without MPI")
    def test_sums(self):
        self.check((1, 2, 3, 4, 5, 8) + ((6, 7, 9, 16) if harness.LONG else ()))

    @unittest.skipUnless(os.access(PROGRAM, os.X_OK), "no exchange_program: built without MPI")
    def test_three_hosts(self):
        """Hosts of two ranks, one of which is folded into its neighbour."""
        self.check((6,), "common")


class Training(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.plain = small_network(os.path.join(cls.shared, "plain.h5"))
        cls.norm = small_network(os.path.join(cls.shared, "norm.h5"), batch_norm=True)
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 13, "b": 12, "c": 12}, seed=1)
        cls.validation = harness.make_folders(os.path.join(cls.shared, "val"), {"a": 5, "b": 4, "c": 4}, seed=2)

    def job(self, base, stages, batch=10, **more):
        return dict({"model": {"base": base},
                     "data": {"train": self.train, "validation": self.validation, "preprocess": "rescale",
                              "augment": {"horizontal_flip": True}},
                     "training": {"seed": 5, "batch_size": batch, "loss": "categorical_crossentropy",
                                  "metrics": ["accuracy"]},
                     "stages": stages, "output": self.path("run"), "cache": "off"}, **more)

    def stage(self, name, freeze, epochs=2, **more):
        return dict({"name": name, "freeze": freeze, "epochs": epochs,
                     "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "global_clipnorm": 1.0}}, **more)

    def jobs(self):
        late = self.stage("late", "before:block2_conv1", batch_norm_statistics="batch")
        return {"two stages": self.job(self.plain, [self.stage("head", "before:fc1"), self.stage("all", "none")]),
                "batch norm": self.job(self.norm, [late]),
                "frozen middle": self.job(self.plain, [self.stage("middle", ["block2_conv1", "block2_conv2"])]),
                "a rank without images": self.job(self.norm, [late], batch=3),
                "cache": self.job(self.norm, [late], cache="memory")}

    def go(self, job, ranks, exchange, **options):
        folder = self.path("run-%d" % len(os.listdir(self.dir)))
        self.succeed("train", harness.write_job(self.path("job.yaml"), dict(job, exchange=exchange, output=folder)),
                     ranks=ranks, **options)
        self.assertEqual(harness.events(folder, "start")[0]["exchange"], exchange)
        for e in harness.events(folder, "epoch"):
            self.assertEqual(e["images"], 37)
            self.assertTrue(0 <= e["hidden_bytes"] <= e["exchanged_bytes"] * 1.1 + 4096, e)
            if exchange == "mpi" or ranks == 1:
                self.assertEqual(e["hidden_bytes"], 0)
        return folder

    def same(self, a, b, what):
        for name in ("model.h5", "best.h5", "history.csv"):
            self.assertEqual(harness.read_bytes(os.path.join(a, name)), harness.read_bytes(os.path.join(b, name)),
                             "%s differs: %s" % (name, what))

    def test_same_bits(self):
        for name, job in self.jobs().items():
            for ranks in (1, 2):
                mpi = self.go(job, ranks, "mpi")
                for exchange in ("overlap", "auto"):
                    self.same(mpi, self.go(job, ranks, exchange), "%s on %d ranks, %s" % (name, ranks, exchange))

    def test_three_ranks(self):
        for name, job in self.jobs().items():
            mpi, own, again, common = (self.go(job, 3, exchange) for exchange in ("mpi", "overlap", "overlap", "auto"))
            self.same(own, again, name + ", repeated")
            self.same(own, common, name + ", in common memory")
            for folder, sharers in ((own, 1), (common, 3)):
                self.assertEqual({e["exchange_sharers"] for e in harness.events(folder, "stage")}, {sharers})
            for want, got in zip(harness.history(mpi), harness.history(own)):
                for key in ("loss", "val_loss"):
                    self.assert_close(got[key], want[key], 1e-5, "%s: %s" % (name, key))

    def test_work_hides_the_exchange(self):
        """Between begin and finish sums come to their end by polls. Which ones depends on the machine, not whether any."""
        job = self.job(self.plain, [self.stage("all", "none", 6)])
        epochs = harness.events(self.go(job, 2, "overlap"), "epoch")
        self.assertGreater(sum(e["hidden_bytes"] for e in epochs), 0, epochs)

    def test_image_gone_in_the_middle(self):
        """A batch that cannot be read is found while the step before is under way; it is told once, and all ranks end."""
        for exchange in ("mpi", "overlap"):
            train = harness.make_folders(self.path("data-" + exchange), {"a": 13, "b": 12, "c": 12})
            folder = self.path("run-" + exchange)
            job = self.job(self.plain, [self.stage("late", "before:block2_conv1", 100000)], batch=4, exchange=exchange,
                           output=folder, data={"train": train, "preprocess": "rescale"})
            process = harness.start(("train", harness.write_job(self.path("job.yaml"), job)), ranks=2)
            rows = os.path.join(folder, "history.csv")
            self.assertTrue(harness.wait_for(lambda: os.path.exists(rows) and len(harness.history(folder)) > 1, 60))
            os.unlink(os.path.join(train, "b", "007.png"))
            result = harness.finish(process, 60)
            self.assertEqual(result.status, 66, str(result))
            self.assertEqual(len(result.messages), 1, str(result))
            self.assertRegex(result.messages[0], r"^thaw: rank [01] \(.*007\.png")
            self.assertEqual(harness.events(folder, "end")[-1]["status"], 66)

    def test_unknown_word(self):
        job = harness.write_job(self.path("job.yaml"), self.job(self.plain, [self.stage("head", "before:fc1")]))
        result = harness.run("train", job, "--set", "exchange=ring")
        self.assertEqual(result.status, 64, str(result))
        self.assertIn("one of auto, overlap, mpi", result.messages[0])


if __name__ == "__main__":
    harness.main()
