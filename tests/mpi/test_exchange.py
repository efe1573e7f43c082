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
    def check(self, rank_counts, *more, threads=1):
        for ranks in rank_counts:
            with self.subTest(ranks=ranks):
                done = subprocess.run(harness.mpirun(ranks) + [PROGRAM, str(ranks), *more], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=600,
                                      env=harness.environment({"OMP_NUM_THREADS": threads}))
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, r"^ok %d \d+\n$" % ranks)

    @unittest.skipUnless(os.access(PROGRAM, os.X_OK), "no exchange_program: built without MPI")
    def test_sums(self):
        few = harness.library() == "MPICH"  # whose ranks never sleep: many on few cores take minutes
        self.check((1, 2, 3) if few else (1, 2, 3, 4, 5, 8) + ((6, 7, 9, 16) if harness.LONG else ()))
        self.check((2,), threads=2)  # sums, and what owners make of them, by several threads at once

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
        """Behind the next prefix, and its polls, sums are complete. Which ones depends on the machine, not whether any."""
        job = self.job(self.plain, [self.stage("head", "before:fc1", 20)])
        epochs = harness.events(self.go(job, 2, "overlap"), "epoch")
        self.assertGreater(sum(e["hidden_bytes"] for e in epochs), 0, epochs)

    def test_image_gone_in_the_middle(self):
        """A batch that cannot be read is found while the step before is under way; it is told once, and all ranks end. Also
        where the frozen front takes two batches at once."""
        for exchange, batch in ("mpi", 4), ("overlap", 4), ("overlap", 2):
            train = harness.make_folders(self.path("data-%s-%d" % (exchange, batch)), {"a": 13, "b": 12, "c": 12})
            folder = self.path("run-%s-%d" % (exchange, batch))
            job = self.job(self.plain, [self.stage("late", "before:block2_conv1", 100000)], batch=batch, exchange=exchange,
                           output=folder, data={"train": train, "preprocess": "rescale"})
            process = harness.start(("train", harness.write_job(self.path("job.yaml"), job)), ranks=2)
            rows = os.path.join(folder, "history.csv")
            self.assertTrue(harness.wait_for(lambda: os.path.exists(rows) and len(harness.history(folder)) > 1, 60))
            os.unlink(os.path.join(train, "b", "007.png"))
            result = harness.finish(process, 60)
            self.assertEqual(result.status, 66, str(result))
            self.assertEqual("the images of 2 steps at once" in result.err, batch == 2, str(result))
            self.assertEqual(len(result.messages), 1, str(result))
            self.assertRegex(result.messages[0], r"^thaw: rank [01] \(.*007\.png")
            self.assertEqual(harness.events(folder, "end")[-1]["status"], 66)

    def halves(self, job, ranks, **training):
        job = dict(job, training=dict(job["training"], exchange_precision="fp16", **training))
        folder = self.go(job, ranks, "overlap")
        self.assertEqual(harness.events(folder, "start")[0]["exchange_precision"], "fp16")
        self.assertTrue(all(e["replicas_equal"] for e in harness.events(folder, "verify")))
        return folder

    def test_halves(self):
        """Half the bytes, equal weights on all ranks, the same bits again, and nearly the loss of floats."""
        for name, job in self.jobs().items():
            for ranks in (2, 3) if name == "batch norm" or harness.LONG else (2,):
                full, half = self.go(job, ranks, "overlap"), self.halves(job, ranks)
                if name == "batch norm":
                    self.same(half, self.halves(job, ranks), "%s on %d ranks, repeated" % (name, ranks))
                for a, b in zip(harness.events(full, "epoch"), harness.events(half, "epoch")):
                    for key in ("exchanged_bytes", "exchanged_bytes_if_unfrozen"):
                        self.assertEqual(a[key], 2 * b[key], name)
                rows = list(zip(harness.history(full), harness.history(half)))
                self.assertNotEqual([a["loss"] for a, _ in rows], [b["loss"] for _, b in rows], "nothing was rounded: " + name)
                for a, b in rows:
                    for key in ("loss", "val_loss"):
                        self.assert_close(b[key], a[key], 2e-3, "%s on %d ranks: %s" % (name, ranks, key))
        job = self.jobs()["batch norm"]
        self.same(self.go(job, 1, "overlap"), self.halves(job, 1), "one rank sends nothing")

    def test_halves_accumulated(self):
        job = self.job(self.plain, [self.stage("late", "before:block2_conv1")])
        job["training"]["accumulate"] = 2
        for a, b in zip(harness.history(self.go(job, 2, "overlap")), harness.history(self.halves(job, 2))):
            self.assert_close(b["loss"], a["loss"], 2e-3, "accumulated")

    def test_halves_resumed(self):
        """From the checkpoint behind an epoch: the same bits. In the middle of one: equal ranks, and nearly the same loss."""
        job = self.job(self.plain, [self.stage("all", "none", 4)], checkpoint={"keep": 9})
        whole = self.halves(job, 2)
        checkpoints = os.path.join(whole, "checkpoints")
        files = sorted(os.listdir(checkpoints), key=lambda f: os.stat(os.path.join(checkpoints, f)).st_mtime_ns)
        before = harness.history(whole)
        wanted = {name: harness.read_bytes(os.path.join(whole, name)) for name in ("model.h5", "history.csv")}
        self.assertGreater(len(files), 3, files)
        for name in files[-2:]:
            os.unlink(os.path.join(checkpoints, name))
        for name in ("model.h5", "best.h5"):
            os.unlink(os.path.join(whole, name))
        job = dict(job, output=whole, exchange="overlap", training=dict(job["training"], exchange_precision="fp16"))
        self.succeed("train", harness.write_job(self.path("job.yaml"), job), ranks=2)
        self.assertEqual(before, harness.history(whole))
        self.assertGreater(len(harness.events(whole, "start")), 1)
        for name, bytes_of in wanted.items():
            self.assertEqual(bytes_of, harness.read_bytes(os.path.join(whole, name)), name)

    def test_halves_refused(self):
        job = harness.write_job(self.path("job.yaml"), self.job(self.plain, [self.stage("head", "before:fc1")]))
        for more, words in ((("training.reproducible=ranks",), "reproducible: ranks"), (("exchange=mpi",), "exchange: mpi")):
            given = [w for text in ("training.exchange_precision=fp16",) + more for w in ("--set", text)]
            result = harness.run("train", job, *given)
            self.assertEqual(result.status, 64, str(result))
            self.assertEqual(len(result.messages), 1, str(result))
            self.assertIn("training.exchange_precision", result.messages[0])
            self.assertIn(words, result.messages[0])
        result = harness.run("train", job, "--set", "training.exchange_precision=fp8")
        self.assertEqual(result.status, 64, str(result))

    def test_unknown_word(self):
        job = harness.write_job(self.path("job.yaml"), self.job(self.plain, [self.stage("head", "before:fc1")]))
        result = harness.run("train", job, "--set", "exchange=ring")
        self.assertEqual(result.status, 64, str(result))
        self.assertIn("one of auto, overlap, mpi", result.messages[0])


if __name__ == "__main__":
    harness.main()
