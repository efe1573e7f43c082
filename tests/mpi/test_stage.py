#!/usr/bin/env python3
"""data.stage_data: node-local changes where samples are read, and nothing else: the same bits, and the originals wherever a copy
is missing or damaged."""
import os
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import small_network  # noqa: E402

RANKS = 2
EPOCHS = 6


class Stage(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = small_network(os.path.join(cls.shared, "model.h5"))
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 13, "b": 12, "c": 12})
        shutil.copy(os.path.join(cls.train, "a", "000.png"), os.path.join(cls.train, "a", "012.png"))  # 36 different ones
        cls.arrays = os.path.join(cls.shared, "arrays.h5")
        rng = np.random.default_rng(1)
        with h5py.File(cls.arrays, "w") as f:
            f["x"] = rng.random((37, 16, 16, 3), dtype="f4")
            f["y"] = rng.integers(0, 3, 37)
        cls.expected = {}

    def arguments(self, data, folder, *more, epochs=EPOCHS):
        job = {"model": {"base": self.model}, "data": dict(data, validation_split=0.2),
               "training": {"seed": 3, "batch_size": 6, "loss": "sparse_categorical_crossentropy"}, "cache": {"mode": "off"},
               "stages": [{"freeze": "before:block2_conv1", "epochs": epochs,
                           "optimizer": {"name": "sgd", "learning_rate": 0.01}}], "output": folder}
        return ("train", harness.write_job(self.path("job.yaml"), job)) + more

    def staged(self, *more):
        return ("--set", "data.stage_data=node-local", "--set", "data.stage_dir=" + self.path("disk")) + more

    def images(self, folder=None):
        return {"train": folder or self.train, "preprocess": "rescale"}

    def rows(self, file=None):
        file = file or self.arrays
        return {"train": {"x": file + ":/x", "y": file + ":/y"}}

    def plain(self, kind, data):
        if kind not in self.expected:
            folder = os.path.join(self.shared, "plain-" + kind)
            self.succeed(*self.arguments(data, folder), ranks=RANKS)
            self.expected[kind] = harness.read_bytes(os.path.join(folder, "model.h5")), harness.history(folder)
        return self.expected[kind]

    def same(self, folder, kind, data):
        self.assertEqual((harness.read_bytes(os.path.join(folder, "model.h5")), harness.history(folder)), self.plain(kind, data))

    def copies(self):
        return sorted(os.path.join(where, f) for where, _, files in os.walk(self.path("disk")) for f in files)

    def copied(self, result):
        found = re.search(r"data\.stage_data: (\d+) files? ", result.err)
        self.assertTrue(found, str(result))
        return sum(int(n) for n in re.findall(r"data\.stage_data: (\d+) files? ", result.err))

    def test_images(self):
        for again in range(3):
            run = self.path("run-%d" % again)
            result = self.succeed(*self.arguments(self.images(), run, *self.staged()), ranks=RANKS)
            self.same(run, "images", self.images())
            self.assertEqual(len(self.copies()), 36)
            self.assertIn(self.copied(result), ((36, 37), (0,), (1,))[again], str(result))
            if again == 1:  # what is damaged is copied again
                with open(self.copies()[5], "r+b") as f:
                    f.truncate(100)
        self.assertEqual(sorted(harness.read_bytes(f) for f in self.copies()),
                         sorted({harness.read_bytes(os.path.join(w, f)) for w, _, fs in os.walk(self.train) for f in fs}))

    def test_folder_of_the_environment(self):
        os.makedirs(self.path("disk"))
        self.succeed(*self.arguments(self.images(), self.path("run"), "--set", "data.stage_data=node-local"), ranks=RANKS,
                     env={"TMPDIR": self.path("disk")})
        self.assertEqual(len([f for f in self.copies() if "thaw-data-%d" % os.geteuid() in f]), 36)

    def lose(self, kind, data, lost):
        """Something is moved away while the run reads; it goes on to the same bits."""
        run = self.path("run")
        process = harness.start(self.arguments(data, run, *self.staged(), epochs=400), ranks=RANKS)
        file = os.path.join(run, "history.csv")
        self.assertTrue(harness.wait_for(lambda: os.path.exists(file) and len(harness.history(run)) >= 2, 60))
        os.rename(lost, lost + ".away")
        rows = len(harness.history(run))
        self.assertTrue(harness.wait_for(lambda: len(harness.history(run)) >= rows + 4 or process.poll() is not None, 60))
        self.assertIsNone(process.poll(), "the run ended: %s" % (harness.finish(process) if process.poll() is not None else ""))
        for pid in harness.ranks_of(process):
            os.kill(pid, harness.signal.SIGUSR1)
        self.assertEqual(harness.finish(process, 60).status, 75)
        self.assertEqual(harness.history(run)[:EPOCHS], self.plain(kind, data)[1][:EPOCHS])

    def test_originals_are_not_read(self):
        other = self.path("originals")
        shutil.copytree(self.train, other)
        self.lose("images", self.images(other), other)

    def test_copies_are_removed(self):
        self.lose("images", self.images(), self.path("disk"))

    def test_arrays(self):
        for copied in (1, 0):
            run = self.path("run-%d" % copied)
            result = self.succeed(*self.arguments(self.rows(), run, *self.staged()), ranks=RANKS)
            self.same(run, "arrays", self.rows())
            self.assertEqual(self.copied(result), copied)
            self.assertEqual([harness.read_bytes(f) for f in self.copies()], [harness.read_bytes(self.arrays)])
        with open(self.copies()[0], "r+b") as f:  # another size: copied again
            f.truncate(1000)
        self.assertEqual(self.copied(self.succeed(*self.arguments(self.rows(), self.path("run"), *self.staged()), ranks=RANKS)), 1)
        self.same(self.path("run"), "arrays", self.rows())

    def test_no_folder(self):
        with open(self.path("disk"), "w"):
            pass
        result = harness.run(*self.arguments(self.images(), self.path("run"), *self.staged()), ranks=RANKS)
        self.assertEqual(result.status, 73, str(result))
        self.assertEqual(len(result.messages), 1, str(result))

    def test_disk_full(self):
        disk = self.path("disk")
        os.makedirs(disk)
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=1000", "tmpfs", disk],
                                               stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no permission to mount a small file system")
        try:
            for data in (self.images(harness.make_folders(self.path("large"), {"a": 3, "b": 3, "c": 3}, size=(100, 100))),
                         self.rows()):
                result = harness.run(*self.arguments(data, self.path("run"), *self.staged()), ranks=RANKS)
                self.assertEqual(result.status, 74, str(result))
                self.assertEqual(len(result.messages), 1, str(result))
                self.assertIn("data.stage_dir", result.messages[0])
                self.assertEqual(self.copies(), [], "copies are left on a full disk")
                self.assertFalse(os.path.exists(self.path("run")), "something was written")
        finally:
            subprocess.run(["umount", "-l", disk], check=True)


if __name__ == "__main__":
    harness.main()
