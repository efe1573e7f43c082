#!/usr/bin/env python3
"""The boundary cache changes no bit: model.h5, best.h5 and history.csv are those of a run without it.

On 1, 2 and 3 ranks, in memory and in a file, with shuffled and mirrored images, batch statistics, two stages with different
boundaries, a stage that finds the rows of the one before, stops and kills while rows are computed and after that. Rows of a
file are used again by a second run, and never after a weight, an image, the preprocessing or the boundary changed. With
namespaces (root only), two hosts compute some of the rows each. A slow rank computes fewer.
"""
import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import h5py
import numpy as np
from PIL import Image

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import small_network  # noqa: E402

IMAGES, HELD = 37, 13

# Preloaded: every image is opened after 0.1 s.
SLOW_FILES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

int open(const char *path, int flags, ...) {
    static int (*next)(const char *, int, ...);
    const size_t n = strlen(path);
    if (!next)
        next = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    if (n > 4 && strcmp(path + n - 4, ".png") == 0)
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    __builtin_va_list more;
    __builtin_va_start(more, flags);
    const int mode = __builtin_va_arg(more, int);
    __builtin_va_end(more);
    return next(path, flags, mode);
}
"""
MOMENTS = 16 if harness.LONG else 5


class Cache(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.plain = small_network(os.path.join(cls.shared, "plain.h5"))
        cls.norm = small_network(os.path.join(cls.shared, "norm.h5"), batch_norm=True)
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 13, "b": 12, "c": 12}, seed=1)
        cls.validation = harness.make_folders(os.path.join(cls.shared, "val"), {"a": 5, "b": 4, "c": 4}, seed=2)

    def setUp(self):
        super().setUp()
        self.rows = self.path("rows")
        self.runs = 0

    def new_folder(self):
        self.runs += 1
        return self.path("run-%d" % self.runs)

    def job(self, stages, base=None, flip=True, **data):
        return {"model": {"base": base or self.plain},
                "data": dict({"train": self.train, "validation": self.validation, "preprocess": "rescale",
                              "augment": {"horizontal_flip": flip}}, **data),
                "training": {"seed": 5, "batch_size": 10, "validation_batch_size": 4,
                             "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
                "stages": stages, "output": self.path("run")}

    def stage(self, name, freeze, epochs=3, **more):
        return dict({"name": name, "freeze": freeze, "epochs": epochs,
                     "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}}, **more)

    def go(self, job, cache, ranks=0, **options):
        """Trains in a new folder and returns it."""
        folder = self.new_folder()
        job = dict(job, cache=cache, output=folder)
        self.succeed("train", harness.write_job(self.path("job.yaml"), job), ranks=ranks, **options)
        return folder

    def same(self, a, b, what=""):
        for name in ("model.h5", "best.h5", "history.csv"):
            self.assertEqual(harness.read_bytes(os.path.join(a, name)), harness.read_bytes(os.path.join(b, name)),
                             "%s differs: %s" % (name, what))

    def equal_models(self, a, b):
        return harness.read_bytes(os.path.join(a, "model.h5")) == harness.read_bytes(os.path.join(b, "model.h5"))

    def in_file(self):
        return {"mode": "file", "dir": self.rows}

    def used(self, folder):
        """Per epoch: (rows computed for training, for validation)."""
        return [(e["cache"]["computed"], e["validation_cache"]["computed"]) for e in harness.events(folder, "epoch")]

    # The same bits

    def test_same_bits(self):
        stages = [self.stage("head", "before:fc1"), self.stage("late", "before:block2_conv1")]
        for ranks in (0, 1, 2, 3):
            job = self.job(stages)
            want = self.go(job, "off", ranks)
            shutil.rmtree(self.rows, ignore_errors=True)
            first = (2 * IMAGES, HELD)
            for mode, computed in (("memory", first), (self.in_file(), first), ("auto", first), (self.in_file(), (0, 0))):
                got = self.go(job, mode, ranks)
                self.same(want, got, "%d ranks, %s" % (ranks, mode))
                self.assertEqual(self.used(got), [computed, (0, 0), (0, 0)] * 2, mode)
                for e in harness.events(got, "epoch"):
                    self.assertEqual((e["cache"]["loaded"], e["validation_cache"]["loaded"]), (IMAGES, HELD))

    def test_batch_statistics_and_split(self):
        stages = [self.stage("late", "before:block2_conv1", batch_norm_statistics="batch"),
                  self.stage("head", "before:fc1", batch_norm_statistics="batch")]
        job = self.job(stages, self.norm, validation_split=0.3)
        del job["data"]["validation"]
        for ranks in (1, 3):
            want = self.go(job, "off", ranks)
            self.same(want, self.go(job, "memory", ranks))
            self.same(want, self.go(job, self.in_file(), ranks))

    def test_rank_without_images(self):
        job = self.job([self.stage("late", "before:block2_conv1", batch_norm_statistics="batch")], self.norm)
        job["training"]["batch_size"] = 2
        want = self.go(job, "off", 3)
        self.same(want, self.go(job, "memory", 3))

    def test_slow_rank(self):
        """A rank whose images come slowly computes fewer rows, and its neighbour the rest; the bits stay."""
        if not shutil.which("cc"):
            self.skipTest("no cc")
        source, library = self.path("slow.c"), self.path("slow.so")
        with open(source, "w") as f:
            f.write(SLOW_FILES)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        job = self.job([self.stage("head", "before:fc1", epochs=1)])
        job["training"].update(batch_size=2, validation_batch_size=2)
        want = self.go(job, "off", 2)
        folder = self.new_folder()
        result = self.succeed("train", harness.write_job(self.path("job.yaml"), dict(job, cache="memory", output=folder)),
                              prefix=harness.on_rank(1, 2, "export LD_PRELOAD=" + library))
        self.same(want, folder)
        self.assertRegex(result.err, r"cache: rank 0 computed \d+ images, rank 1 in the same time \d+")

    def test_arrays(self):
        path = self.path("data.h5")
        rng = np.random.default_rng(3)
        with h5py.File(path, "w") as f:
            f["x"] = rng.random((30, 16, 16, 3)).astype("f4")
            f["y"] = rng.integers(0, 3, 30)
        job = self.job([self.stage("head", "before:fc1")], train={"x": path + ":/x", "y": path + ":/y"},
                       validation_split=0.2)
        del job["data"]["validation"]
        want = self.go(job, "off", 2)
        self.same(want, self.go(job, "memory", 2))
        first = self.go(job, self.in_file(), 2)
        self.same(want, first)
        self.assertEqual(self.used(self.go(job, self.in_file(), 2)), [(0, 0)] * 3)
        with h5py.File(path, "a") as f:  # one value of one row
            f["x"][7, 3, 3, 1] += 0.5
        changed = self.go(job, self.in_file(), 2)
        self.assertIn(2 * 24, self.used(changed)[0] + (2 * self.used(changed)[0][1] * 4,))
        self.same(self.go(job, "off", 2), changed)

    def test_memory_is_kept_for_the_next_stage(self):
        job = self.job([self.stage("fast", "before:fc1", 2),
                        self.stage("slow", "before:fc1", 2, optimizer={"name": "adam"})])
        want = self.go(job, "off", 2)
        got = self.go(job, "memory", 2)
        self.same(want, got)
        self.assertEqual(self.used(got), [(2 * IMAGES, HELD), (0, 0), (0, 0), (0, 0)])
        self.assertIn("computed before", harness.events(got, "stage")[1]["cache"]["note"])

    def test_threads(self):
        job = self.job([self.stage("late", "before:block2_conv1")])
        want = self.go(job, "off", env={"OMP_NUM_THREADS": 1})
        self.same(want, self.go(job, "memory", env={"OMP_NUM_THREADS": 3}))

    # A few draws of each image

    def test_variants(self):
        """Draws are restricted whether rows are kept or not; the same on all ranks, in memory and in files."""
        job = self.job([self.stage("head", "before:fc1", 5), self.stage("late", "before:block2_conv1")])
        free = self.go(job, "off")
        models = {harness.read_bytes(os.path.join(free, "model.h5"))}
        for draws in (1, 3):
            for ranks in (0, 2, 3) if draws == 3 else (0,):
                want = self.go(job, {"mode": "off", "variants": draws}, ranks)
                self.assertEqual([s["cache"]["mode"] for s in harness.events(want, "stage")], ["off", "off"])
                if ranks == 0:
                    models.add(harness.read_bytes(os.path.join(want, "model.h5")))
                shutil.rmtree(self.rows, ignore_errors=True)
                first = (draws * IMAGES, HELD)
                for cache, computed in (({"mode": "memory"}, first), (self.in_file(), first), (self.in_file(), (0, 0))):
                    got = self.go(job, dict(cache, variants=draws), ranks)
                    self.same(want, got, "%d draws, %d ranks, %s" % (draws, ranks, cache))
                    self.assertEqual(self.used(got), [computed] + 4 * [(0, 0)] + [computed] + 2 * [(0, 0)])
                    self.assertEqual([s["cache"]["variants"] for s in harness.events(got, "stage")], [draws, draws])
        self.assertEqual(len(models), 3)  # no restriction, one draw, three draws: three results
        plain = self.go(dict(job, data=dict(job["data"], augment={"horizontal_flip": False})), "off")
        self.assertFalse(harness.read_bytes(os.path.join(plain, "model.h5")) in models)

    def test_variants_are_said(self):
        job = self.job([self.stage("head", "before:fc1", 20)])
        for cache in ({"variants": 8}, {"variants": 8, "mode": "off"}):
            folder = self.new_folder()
            job = dict(job, cache=cache, output=folder)
            result = self.succeed("train", harness.write_job(self.path("job.yaml"), job))
            self.assertEqual(len([line for line in result.err.splitlines()
                                  if "each image has 8 draws, used 2.5 times in 20 epochs" in line]), 1, result.err)
            draws = harness.events(folder, "stage")[0]["draws"]
            self.assertEqual((draws["an_image"], draws["uses"]), (8, 2.5))
            self.assertIn("each image has 8 draws, used 2.5 times in 20 epochs", draws["note"])
        self.assertRegex(self.note(self.job([self.stage("head", "before:fc1", 20)]), {"variants": 8})["note"],
                         r"37 images x 8 draws x 768 B = .*; epoch 1 computes, epochs 2-20 cost 1/")
        folder = self.go(self.job([self.stage("head", "before:fc1")], flip=False), {"variants": 8})
        self.assertIn("nothing is augmented", harness.events(folder, "stage")[0]["draws"]["note"])
        self.assertNotIn("draws", harness.events(self.go(self.job([self.stage("head", "before:fc1")]), "auto"), "stage")[0])

    # Halves

    def test_half(self):
        """Rows of half the size; rounded in the same way where nothing is kept, so that the bits are the same."""
        stages = [self.stage("head", "before:fc1"), self.stage("late", "before:block2_conv1", batch_norm_statistics="batch")]
        job = self.job(stages, self.norm)
        exact = self.go(job, "off")
        for ranks in (0, 2, 3):
            want = self.go(job, {"mode": "off", "precision": "fp16"}, ranks)
            self.assertFalse(self.equal_models(exact, want))
            with h5py.File(os.path.join(exact, "model.h5")) as a, h5py.File(os.path.join(want, "model.h5")) as b:
                name = "model_weights/fc1/fc1/kernel:0"
                np.testing.assert_allclose(a[name][()], b[name][()], atol=5e-3)
            shutil.rmtree(self.rows, ignore_errors=True)
            for cache in ({"mode": "memory"}, self.in_file(), self.in_file(), {"mode": "auto"}):
                got = self.go(job, dict(cache, precision="fp16"), ranks)
                self.same(want, got, "%d ranks, %s" % (ranks, cache))
                cached = [s["cache"] for s in harness.events(got, "stage")]
                self.assertEqual([c["bytes_per_image"] for c in cached], [384, 8 * 8 * 8 * 2])
                self.assertTrue(all(c["precision"] == "fp16" and "(fp16)" in c["note"] for c in cached))
            for folder in (want, got):
                for number, e in enumerate(harness.events(folder, "epoch")):
                    for kind in ("cache", "validation_cache"):
                        self.assertEqual("relative_error" in e[kind], folder is want or number % 3 == 0, e)
                        if "relative_error" in e[kind]:
                            self.assertGreater(e[kind]["relative_error"], 2e-5)
                            self.assertLess(e[kind]["relative_error"], 2.0 ** -11)
                            self.assertEqual(e[kind]["beyond_half"], 0)

    def test_half_and_variants(self):
        job = self.job([self.stage("late", "before:block2_conv1", 6)])
        want = self.go(job, {"mode": "off", "precision": "fp16", "variants": 2}, 2)
        self.same(want, self.go(job, dict(self.in_file(), precision="fp16", variants=2), 2))
        self.same(want, self.go(job, {"mode": "memory", "precision": "fp16", "variants": 2}, 2))

    def test_beyond_half(self):
        """Values that no half can hold become the largest one, with a count; never infinity."""
        base = self.path("large.h5")
        shutil.copy(self.plain, base)
        with h5py.File(base, "a") as f:
            f["model_weights/block2_conv2/block2_conv2/kernel:0"][...] *= 2e5
            f["model_weights/fc1/fc1/kernel:0"][...] *= 1e-6
        job = self.job([self.stage("head", "before:fc1")], base)
        folders = []
        for mode in ("off", "memory"):
            folder = self.new_folder()
            job = dict(job, cache={"mode": mode, "precision": "fp16"}, output=folder)
            result = self.succeed("train", harness.write_job(self.path("job.yaml"), job), ranks=2)
            count = harness.events(folder, "epoch")[0]["cache"]["beyond_half"]
            self.assertGreater(count, 100)
            warnings = [line for line in result.err.splitlines() if "lie beyond 65504" in line and "warning" in line]
            self.assertEqual(len(warnings), 2, result.err)  # of training and of validation, once
            self.assertIn("fp16: %d activations at the boundary" % count, warnings[0])
            for row in harness.history(folder):
                self.assertTrue(np.isfinite(row["loss"]) and np.isfinite(row["val_loss"]))
            folders.append(folder)
        self.same(*folders)

    def test_resume_refuses_other_bits(self):
        job = dict(self.job([self.stage("head", "before:fc1")]), cache={"mode": "off"})
        file = harness.write_job(self.path("job.yaml"), job)
        self.succeed("train", file)
        for key, value in (("cache.precision", "fp16"), ("cache.variants", "2"), ("data.scaled_decoding", "true")):
            result = harness.run("train", file, "--set", "%s=%s" % (key, value))
            self.assertEqual(result.status, 78, str(result))
            self.assertIn(key, result.err)
        self.succeed("train", file, "--set", "cache.mode=memory")

    def test_scaled_decoding(self):
        photos = harness.make_folders(self.path("photos"), {"a": 7, "b": 6, "c": 6}, size=(70, 90), seed=8, suffix=".jpg")
        job = self.job([self.stage("head", "before:fc1")], train=photos, validation=photos)
        whole = self.go(job, self.in_file())
        job["data"]["scaled_decoding"] = True
        want = self.go(job, "off")
        self.assertFalse(self.equal_models(whole, want))
        for ranks, cache, computed in ((0, self.in_file(), (2 * 19, 19)), (2, self.in_file(), (0, 0)), (2, "memory", (2 * 19, 19))):
            got = self.go(job, cache, ranks)
            if ranks == 0:
                self.same(want, got, cache)
            self.assertEqual(self.used(got)[0], computed)
        # evaluate decodes whole images, whatever the model was trained with
        for folder, same in ((whole, True), (want, False)):
            loss = self.succeed("evaluate", os.path.join(folder, "model.h5"), photos, "--json").json["loss"]
            trained = harness.history(folder)[-1]["val_loss"]
            self.assertEqual(abs(loss - trained) < 1e-5 * loss, same, "%g %g" % (loss, trained))

    # What decides

    def note(self, job, cache, **options):
        """What is said of the training cache of the first stage."""
        return harness.events(self.go(job, cache, **options), "stage")[0]["cache"]

    def test_auto(self):
        note = self.note(self.job([self.stage("head", "before:fc1", 3)]), "auto")
        self.assertEqual(note["mode"], "memory")
        self.assertRegex(note["note"], r"37 images x 2 \(mirrored too\) x 768 B = .* epoch 1 computes, epochs 2-3 cost 1/")
        note = self.note(self.job([self.stage("head", "before:fc1", 2)]), "auto")  # two epochs, two forms
        self.assertEqual(note["mode"], "off")
        self.assertIn("no more images than the cache would", note["note"])
        note = self.note(self.job([self.stage("head", "before:fc1", 2)], flip=False), "auto")
        self.assertEqual(note["mode"], "memory")
        note = self.note(self.job([self.stage("all", "none")]), "memory")
        self.assertIn("begins at the images themselves", note["note"])

    def test_no_room(self):
        job = self.job([self.stage("head", "before:fc1")])
        want = self.go(job, "off")
        for cache, mode, word in (({"memory": 20000}, "off", "cache.dir"),
                                  ({"mode": "memory", "memory": "20KB"}, "off", "raise cache.memory"),
                                  ({"memory": "20 KiB", "dir": self.rows}, "file", self.rows),
                                  ({"mode": "file", "dir": os.path.join(self.plain, "no")}, "off", "no folder|not a folder"),
                                  ({"mode": "memory", "memory": "10MB"}, "memory", "cache.memory")):
            got = self.go(job, cache)
            note = harness.events(got, "stage")[0]["cache"]
            self.assertEqual(note["mode"], mode, note)
            self.assertRegex(note["note"], word)
            self.same(want, got, str(cache))

    def test_full_disk(self):
        """A file system of 48 KB: there is room for validation, not for training."""
        if os.geteuid() != 0:
            self.skipTest("only root mounts file systems")
        os.mkdir(self.rows)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", self.rows]).returncode:
            self.skipTest("no tmpfs can be mounted")
        try:
            job = self.job([self.stage("head", "before:fc1")])
            got = self.go(job, self.in_file(), 2)
            self.same(self.go(job, "off", 2), got)
            stage = harness.events(got, "stage")[0]
            self.assertEqual((stage["cache"]["mode"], stage["validation_cache"]["mode"]), ("off", "file"))
            self.assertIn("No space left", stage["cache"]["note"])
            self.assertEqual(len(os.listdir(self.rows)), 1)
        finally:
            subprocess.run(["umount", self.rows], check=True)

    # Used again, and not

    def test_refused_after_changes(self):
        """Each change alone; afterwards the unchanged job finds its rows again."""
        base = self.path("base.h5")
        folder = self.path("images")
        shutil.copy(self.plain, base)
        shutil.copytree(self.train, folder)
        job = self.job([self.stage("head", "before:fc1", 2)], base, train=folder)
        computed = (2 * IMAGES, HELD)

        def uses():
            got = self.go(job, self.in_file(), 2)
            self.same(self.go(job, "off", 2), got)
            return self.used(got)[0]

        self.assertEqual(uses(), computed)
        self.assertEqual(uses(), (0, 0))

        with h5py.File(base, "a") as f:  # the smallest change of one frozen weight
            kernel = f["model_weights/block2_conv2/block2_conv2/kernel:0"]
            kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], np.float32(9))
        self.assertEqual(uses(), computed)
        shutil.copy(self.plain, base)
        self.assertEqual(uses(), (0, 0))

        with h5py.File(base, "a") as f:  # a weight that trains is no part of it
            f["model_weights/fc1/fc1/kernel:0"][0, 0] += 0.25
        self.assertEqual(uses(), (0, 0))
        shutil.copy(self.plain, base)

        file = os.path.join(folder, "b", "003.bmp")
        os.remove(os.path.join(folder, "b", "003.png"))
        picture = np.asarray(Image.open(os.path.join(self.train, "b", "003.png"))).copy()
        Image.fromarray(picture).save(file)
        self.assertEqual(uses()[0], 2 * IMAGES)  # another file, if of equal pixels
        self.assertEqual(uses(), (0, 0))
        before, when = os.stat(file), os.stat(file).st_mtime_ns
        picture[5, 5, 1] ^= 1
        Image.fromarray(picture).save(file)
        os.utime(file, ns=(when, when))  # name, size and time are the same
        self.assertEqual(os.stat(file).st_size, before.st_size)
        self.assertEqual(uses(), (2 * IMAGES, 0))

        job["data"]["preprocess"] = "tf"
        self.assertEqual(uses(), computed)
        job["data"]["preprocess"] = "rescale"
        self.assertEqual(uses(), (0, 0))
        job["stages"][0]["freeze"] = "before:block2_conv2"
        self.assertEqual(uses(), computed)
        job["stages"][0]["freeze"] = "before:fc1"
        job["data"]["augment"] = {"horizontal_flip": False}
        self.assertEqual(uses(), (IMAGES, 0))
        self.assertEqual(len(os.listdir(self.rows)), 3 + 2 + 2 + 2 + 1 + 1)

    def test_refused_after_other_draws(self):
        job = self.job([self.stage("head", "before:fc1", 4)])
        cases = [({"variants": 2}, 5, 2 * IMAGES), ({"variants": 2}, 6, 2 * IMAGES), ({"variants": 3}, 5, 3 * IMAGES),
                 ({}, 5, 2 * IMAGES), ({}, 6, 0),  # both forms of each image do not depend on the seed
                 ({"precision": "fp16"}, 5, 2 * IMAGES), ({"variants": 2, "precision": "fp16"}, 5, 2 * IMAGES)]
        for cache, seed, computed in cases:
            job["training"]["seed"] = seed
            got = self.go(job, dict(self.in_file(), **cache))
            self.assertEqual(self.used(got)[0][0], computed, "%s seed %d" % (cache, seed))
            self.same(self.go(job, dict(cache, mode="off")), got)
        for cache, seed, _ in cases:
            job["training"]["seed"] = seed
            self.assertEqual(self.used(self.go(job, dict(self.in_file(), **cache)))[0], (0, 0))

    def test_damaged_file(self):
        job = self.job([self.stage("head", "before:fc1")])
        want = self.go(job, "off")
        self.go(job, self.in_file())
        for number, name in enumerate(sorted(os.listdir(self.rows))):
            path = os.path.join(self.rows, name)
            with open(path, "r+b") as f:
                f.seek(8192 + 768 * 3 + 100)
                byte = f.read(1)
                f.seek(-1, 1)
                f.write(bytes([byte[0] ^ 64]))
            if number:
                os.truncate(path, os.path.getsize(path) - 10)
        got = self.go(job, self.in_file(), 2)
        self.same(self.go(job, "off", 2), got)
        self.assertEqual(sorted(self.used(got)[0]), [1, 2])
        self.same(want, self.go(job, self.in_file()))

    def test_other_libraries(self):
        """Rows that other libraries computed under the same name: one is compared, all are computed anew."""
        job = self.job([self.stage("head", "before:fc1")], flip=False)
        want = self.go(job, "off")
        self.go(job, self.in_file())
        for name in os.listdir(self.rows):
            self.rewrite(os.path.join(self.rows, name))
        folder = self.path("again")
        result = self.succeed("train", harness.write_job(self.path("job.yaml"), dict(job, cache=self.in_file(), output=folder)))
        self.assertIn("computed by other libraries", result.err)
        self.same(want, folder)
        self.assertEqual(self.used(folder)[0], (IMAGES, HELD))

    def rewrite(self, path):
        """Other values with right checksums: every row becomes that of the last one, as a swap of whole rows does."""
        with open(path, "r+b") as f:
            data = bytearray(f.read())
            rows = int.from_bytes(data[16:24], "little")
            size = int.from_bytes(data[24:32], "little")
            start = (4096 + 8 * rows + 4095) // 4096 * 4096
            for i in range(rows - 1):
                data[4096 + 8 * i:4096 + 8 * i + 8] = data[4096 + 8 * (rows - 1):4096 + 8 * rows]
                data[start + size * i:start + size * (i + 1)] = data[start + size * (rows - 1):start + size * rows]
            f.seek(0)
            f.write(data)

    # Faults

    def test_kill_and_stop(self):
        """Killed or asked to stop at many moments, most of them while rows are computed; then to the end."""
        slow = harness.make_folders(os.path.join(self.dir, "slow"), {"a": 40, "b": 40}, size=(500, 500), seed=4, suffix=".jpg")
        job = self.job([self.stage("head", "before:fc1", 2), self.stage("late", "before:block2_conv1", 2)],
                       train=slow, validation_split=0.1)
        del job["data"]["validation"]
        job["model"]["base"] = small_network(self.path("net.h5"), classes=2)
        want = self.go(job, "off", 2)
        for cache in ("memory", self.in_file()):
            for number in (signal.SIGKILL, signal.SIGUSR1):
                folder = self.new_folder()
                log = os.path.join(folder, "log.jsonl")
                file = harness.write_job(self.path("job.yaml"), dict(job, cache=cache, output=folder))
                shutil.rmtree(self.rows, ignore_errors=True)
                interrupted = 0
                for moment in range(MOMENTS):
                    if os.path.exists(os.path.join(folder, "model.h5")):  # done: once more
                        shutil.rmtree(folder)
                        shutil.rmtree(self.rows, ignore_errors=True)
                    size = os.path.getsize(log) if os.path.exists(log) else -1
                    process = harness.start(("train", file), ranks=2)
                    ranks = harness.wait_for(lambda: len(harness.ranks_of(process)) == 2 and harness.ranks_of(process), 20)
                    harness.wait_for(lambda: process.poll() is not None or os.path.exists(log) and os.path.getsize(log) != size)
                    time.sleep(0.4 * moment / MOMENTS)
                    try:
                        os.kill(ranks[moment % 2], number)
                    except ProcessLookupError:
                        pass
                    result = harness.finish(process, 60)
                    self.assertIn(result.status, (0, 75) if number == signal.SIGUSR1 else range(256), str(result))
                    interrupted += result.status != 0
                self.assertGreater(interrupted, 1, "%s %s" % (cache, number))
                self.succeed("train", file, ranks=2)
                self.same(want, folder, "%s, signal %d, %d times" % (cache, number, interrupted))
                left = [f for _, _, files in os.walk(folder) for f in files if ".tmp" in f]
                self.assertEqual(left, [])

    def test_image_changes_while_running(self):
        """Computed rows are of the images that were checked, or the run ends with the name of the image."""
        folder = self.path("images")
        shutil.copytree(self.train, folder)
        job = self.job([self.stage("first", "none", 40), self.stage("head", "before:fc1", 3)], train=folder)
        run = self.path("changing")
        file = harness.write_job(self.path("job.yaml"), dict(job, cache="memory", output=run))
        process = harness.start(("train", file))
        harness.wait_for(lambda: os.path.exists(os.path.join(run, "history.csv")) and harness.history(run))
        victim = os.path.join(folder, "c", "002.png")
        temporary = self.path("new.png")
        Image.fromarray(np.zeros((16, 16, 3), "u1")).save(temporary)
        os.replace(temporary, victim)
        result = harness.finish(process)
        self.assertEqual(result.status, 65, str(result))
        self.assertIn("002.png changed since this run began", result.err)

    # Two hosts

    def test_two_hosts(self):
        """Open MPI believes in two machines, whose names are all that differs: each has memory of its own."""
        if os.geteuid() != 0 or subprocess.run(["unshare", "-u", "true"]).returncode:
            self.skipTest("only root makes namespaces")
        agent = self.path("agent")
        with open(agent, "w") as f:
            f.write('#!/bin/sh\nshift\nexec unshare -u sh -c "hostname node-b; $*"\n')
        os.chmod(agent, os.stat(agent).st_mode | stat.S_IXUSR)
        prefix = ["unshare", "-u", "sh", "-c", 'hostname node-a; exec "$@"', "sh", "mpirun", "--allow-run-as-root", "-n", "3",
                  "--host", "node-a:2,node-b:1", "--mca", "plm_rsh_agent", agent, "--mca", "btl", "tcp,self", "--mca",
                  "btl_tcp_if_include", "lo", "--mca", "oob_tcp_if_include", "lo", "--bind-to", "none", "--oversubscribe"]
        job = self.job([self.stage("head", "before:fc1"), self.stage("late", "before:block2_conv1")])
        want = self.go(job, "off", prefix=prefix)
        self.assertEqual(harness.events(want, "start")[0]["hosts"], 2)
        for cache in ("memory", self.in_file(), self.in_file()):
            self.same(want, self.go(job, cache, prefix=prefix), str(cache))
        names = os.listdir(self.rows)
        self.assertEqual(sorted(n.split(".")[1] for n in names), ["node-a"] * 4 + ["node-b"] * 4)
        for name in names:  # both hosts hold all rows, bit for bit
            other = name.replace("node-a", "node-b")
            self.assertEqual(harness.read_bytes(os.path.join(self.rows, name)),
                             harness.read_bytes(os.path.join(self.rows, other)))
        os.remove(os.path.join(self.rows, sorted(names)[0]))  # one host lost a file, the other has it
        self.same(want, self.go(job, self.in_file(), prefix=prefix))


if __name__ == "__main__":
    harness.main()
