#!/usr/bin/env python3
"""`training.reproducible: ranks`: one run, bit for bit, on any number of ranks and threads.

Networks with plain, residual and branching paths, batch norm in both modes, SGD and Adam, with the boundary cache and without
it, on 1, 2, 3, 4, 5 and 8 ranks with one and two threads: model.h5 and the numbers of history.csv must have the same bytes.
90 images in batches of 32: the last batch has 26, so that slices differ in size. A run that is stopped goes on with another
number of ranks, and ends with the same bytes. Without the key they differ, or this test would prove nothing.
"""
import hashlib
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import Network  # noqa: E402


def vgg(path):
    net = Network("vgg", (16, 16, 3))
    for block, filters in ((1, 16), (2, 32)):
        net.conv("block%d_conv1" % block, filters)
        net.conv("block%d_conv2" % block, filters)
        net.pool("block%d_pool" % block)
    net.flatten("flatten")
    net.dense("fc1", 40, "relu")
    net.dropout("drop", 0.25)
    net.dense("predictions", 3, "softmax")
    return net.save(path)


def residual(path):
    net = Network("residual", (16, 16, 3), 2)
    net.conv("stem", 16)
    for block, strides in ((1, 1), (2, 2)):
        start = net.last
        net.conv("b%d_c1" % block, 16, 1, strides, activation="linear", bias=False)
        net.batch_norm("b%d_n1" % block)
        net.activation("b%d_r1" % block)
        net.conv("b%d_c2" % block, 16, 3, activation="linear", bias=False)
        net.batch_norm("b%d_n2" % block)
        net.conv("b%d_short" % block, 16, 1, strides, activation="linear", inputs=[start])
        net.add("b%d_sum" % block, ["b%d_n2" % block, "b%d_short" % block])
        net.activation("b%d_out" % block)
    net.global_pool("mean")
    net.dense("predictions", 3, "softmax")
    return net.save(path)


def branching(path):
    net = Network("branching", (16, 16, 3), 3)
    net.conv("stem", 16)
    net.conv("left", 20, 3, inputs=["stem"])
    net.conv("right", 20, 1, inputs=["stem"])
    net.conv("right_2", 20, 5)
    net.add("sum", ["left", "right_2"])
    net.pool("pool")
    net.conv("top", 24)
    net.global_pool("mean")
    net.dense("predictions", 3, "softmax")
    return net.save(path)


SGD = {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9}
ADAM = {"name": "adam", "learning_rate": 0.002}


class Bits(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.nets = {name: build(os.path.join(cls.shared, name + ".h5"))
                    for name, build in (("vgg", vgg), ("residual", residual), ("branching", branching))}
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 30, "b": 30, "c": 30}, seed=1)
        cls.validation = harness.make_folders(os.path.join(cls.shared, "val"), {"a": 5, "b": 6, "c": 6}, seed=2)

    def job(self, net, freeze, optimizer, reproducible="ranks", **more):
        stage = {"name": "only", "freeze": freeze, "epochs": 2, "optimizer": optimizer}
        stage.update({k: more.pop(k) for k in ("batch_norm_statistics", "epochs") if k in more})
        return dict({"model": {"base": self.nets[net]},
                     "data": {"train": self.train, "validation": self.validation, "preprocess": "rescale"},
                     "training": {"seed": 3, "batch_size": 32, "loss": "categorical_crossentropy", "metrics": ["accuracy"],
                                  "reproducible": reproducible},
                     "stages": [stage], "output": self.path("run")}, **more)

    def result(self, job, ranks, threads=1, *more, status=0, folder=None, prefix=None):
        """Digest of the trained model and of the history's numbers."""
        folder = folder or self.path("run-%d" % len(os.listdir(self.dir)))
        run = harness.run("train", harness.write_job(self.path("job.yaml"), job), "--set", "output=" + folder, *more,
                          ranks=ranks, prefix=prefix, env={"OMP_NUM_THREADS": threads})
        self.assertEqual(run.status, status, str(run))
        self.folder, self.err = folder, run.err
        if status:
            return None
        for event in harness.events(folder, "epoch"):
            self.assertEqual(event["images"], 90)
        text = repr([[row[k] for k in ("loss", "val_loss", "accuracy", "val_accuracy")] for row in harness.history(folder)])
        return hashlib.sha256(harness.read_bytes(os.path.join(folder, "model.h5")) + text.encode()).hexdigest()

    def same(self, job, worlds=((0, 1), (1, 2), (2, 1), (3, 1), (4, 1), (5, 1), (8, 1))):
        digests = {world: self.result(job, *world) for world in worlds}
        self.assertEqual(len(set(digests.values())), 1, digests)
        return digests[worlds[0]]

    def test_plain_sgd(self):
        job = self.job("vgg", "none", SGD)
        uncached = self.same(job)
        late = self.job("vgg", "before:block2_conv2", SGD, cache={"mode": "off"})
        first = self.same(late, ((0, 1), (2, 2), (3, 1)))
        late["cache"] = {"mode": "memory"}
        self.assertEqual(self.same(late, ((1, 1), (2, 1), (5, 1))), first)
        self.assertNotEqual(uncached, first)

    def test_residual_batch_statistics(self):
        self.same(self.job("residual", "none", SGD, batch_norm_statistics="batch"))

    def test_residual_moving_statistics(self):
        self.same(self.job("residual", "before:b1_c1", ADAM, batch_norm_statistics="moving"), ((0, 1), (2, 2), (3, 1), (8, 1)))

    def test_branching_adam(self):
        self.same(self.job("branching", "stem", ADAM), ((0, 2), (2, 1), (3, 1), (4, 1), (5, 1), (8, 1)))

    def test_one_image_a_slice(self):
        job = self.job("vgg", "before:block2_conv1", SGD)
        job["training"].update(slices=32)
        self.same(job, ((0, 1), (3, 1), (4, 1)))

    def together(self, expected, world, mode, prefix=None, **training):
        """Digest of a run whose steps have few images; which says how many have their frozen front together."""
        job = self.job("residual", "before:b2_c1", ADAM, batch_norm_statistics="moving", cache={"mode": mode})
        job["training"].update(batch_size=4, **training)
        job["data"].update(augment={"horizontal_flip": True})
        digest = self.result(job, *world, prefix=prefix)
        self.assertEqual(re.findall("takes the images of (.*) at once", self.err), expected, self.err)
        return digest

    def test_steps_together(self):
        """As many as give 16 images, at most an eighth of an epoch where there is an exchange to hide; none where it is kept."""
        digests = {self.together([], (0, 2), "memory", slices=4)}
        for steps, world in ("4 steps", (0, 1)), ("2 steps", (2, 1)), ("2 steps", (4, 1)):
            digests.add(self.together([steps], world, "off", slices=4))
        short = harness.on_rank(1, 2, "export SLURM_MEM_PER_NODE=1")  # in MB: no room there
        digests.add(self.together([], (2, 1), "off", short, slices=4))
        self.assertIn("takes the images of each step alone: too little memory", self.err)
        self.assertEqual(len(digests), 1, digests)
        for parts, world in ("8 parts of steps", (0, 1)), ("5 parts of steps", (3, 1)):
            self.assertEqual(self.together([parts], world, "off", accumulate=2, reproducible="threads"),
                             self.together([], world, "memory", accumulate=2, reproducible="threads"))

    def elastic(self, job, want):
        """Four ranks, stopped; two, stopped; then three."""
        folder = self.path("elastic")
        for ranks, epochs in ((4, 2), (2, 4)):
            run = harness.start(["train", harness.write_job(self.path("job.yaml"), job), "--set", "output=" + folder], ranks)
            csv = os.path.join(folder, "history.csv")
            harness.wait_for(lambda: os.path.exists(csv) and len(harness.history(folder)) >= epochs)
            for pid in harness.ranks_of(run):
                os.kill(pid, harness.signal.SIGTERM)
            result = harness.finish(run)
            self.assertIn(result.status, (0, 75), str(result))
        self.assertEqual(self.result(job, 3, folder=folder), want)
        started = [event["ranks"] for event in harness.events(folder, "start")]
        self.assertEqual(started[0], 4)
        self.assertGreater(len(set(started)), 1, started)

    def test_elastic_resume(self):
        job = self.job("residual", "stem", ADAM, batch_norm_statistics="batch", epochs=6)
        self.elastic(job, self.result(job, 0))

    def test_updates_divided(self):
        """Over messages the owner of a sum alone has its moments: they must come to who goes on, into a stage or elsewhere."""
        job = self.job("vgg", "none", ADAM, epochs=5, exchange="overlap")
        job["stages"].append({"name": "on", "freeze": "before:block2_conv1", "epochs": 1,
                              "optimizer": dict(ADAM, keep_state=True)})
        digest = self.same(job, ((0, 1), (2, 1), (3, 2), (5, 1)))
        self.assertEqual(self.err.count("by the rank that has the sum"), 2, self.err)
        self.elastic(job, digest)
        momentum = self.job("vgg", "before:block2_conv2", SGD, exchange="overlap")
        self.same(momentum, ((0, 1), (2, 1), (4, 1)))
        momentum["stages"][0]["optimizer"] = dict(SGD, global_clipnorm=1.0)  # wants all gradients first
        self.same(momentum, ((0, 1), (3, 1)))
        self.assertNotIn("by the rank that has the sum", self.err)

    def test_differs_without(self):
        job = self.job("residual", "none", SGD, "threads", batch_norm_statistics="batch")
        self.assertNotEqual(self.result(job, 0), self.result(job, 3))

    def test_refusals(self):
        job = self.job("vgg", "none", SGD)
        job["training"]["slices"] = 2
        self.result(job, 3, status=64)
        for key, value, word in (("slices", 3, "power of two"), ("slices", 64, "batch_size"), ("accumulate", 2, "reproducible")):
            bad = self.job("vgg", "none", SGD)
            bad["training"][key] = value
            run = harness.run("plan", harness.write_job(self.path("bad.yaml"), bad))
            self.assertEqual(run.status, 64, str(run))
            self.assertTrue(re.search(word, run.err), str(run))
        bad = self.job("vgg", "none", SGD, exchange="mpi")
        run = harness.run("plan", harness.write_job(self.path("bad.yaml"), bad))
        self.assertEqual(run.status, 64, str(run))
        self.assertIn("exchange: mpi", run.err)


if __name__ == "__main__":
    harness.main()
