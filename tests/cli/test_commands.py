#!/usr/bin/env python3
"""The command line itself: help, options, outputs that cannot be written, threads of ranks; evaluate, predict."""
import csv
import json
import os
import re
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import small_network  # noqa: E402

COMMANDS = ["train", "evaluate", "predict", "layers", "plan", "bench", "fetch", "help"]
CORES = len(os.sched_getaffinity(0))


class Usage(harness.Case):
    def fails(self, *arguments, words=(), status=64, **options):
        result = harness.run(*arguments, **options)
        self.assertEqual(result.status, status, str(result))
        self.assertEqual(result.out, "", str(result))
        self.assertEqual(len(result.messages), 1, str(result))
        for word in words:
            self.assertIn(word, result.messages[0], str(result))
        return result

    def test_help_names_every_command(self):
        for arguments in (["help"], ["--help"], ["-h"]):
            text = self.succeed(*arguments).out
            for command in COMMANDS:
                self.assertRegex(text, r"(?m)^  %s " % command)
            for absent in ("audit", "convert"):
                self.assertNotIn(absent, text)

    def test_help_of_each_command(self):
        for command in COMMANDS:
            page = self.succeed("help", command).out
            self.assertTrue(page.startswith("usage: thaw " + command), page)
            self.assertEqual(self.succeed(command, "--help").out, page)
            for line in page.splitlines():
                self.assertLessEqual(len(line), 200, line)

    def test_help_knows_the_exit_statuses(self):
        text = self.succeed("help", "exit-codes").out
        codes = [int(line.split()[0]) for line in text.splitlines()]
        self.assertEqual(codes, [0, 64, 65, 66, 69, 70, 71, 73, 74, 75, 76, 77, 78, 79])

    def test_help_of_jobs(self):
        text = self.succeed("help", "job").out
        for key in ("model.base", "training.batch_size", "stages[].freeze", "glob:"):
            self.assertIn(key, text)
        self.assertEqual(self.succeed("help", "job", "--markdown").out,
                         harness.read_bytes(os.path.join(harness.ROOT, "jobs", "README.md")).decode())

    def test_help_of_nothing(self):
        self.fails("help", "trian", words=["trian", "'train'"])
        self.fails("help", "train", "--markdown", words=["--markdown"])
        self.fails("help", "train", "plan", words=["plan"])

    def test_version(self):
        self.assertRegex(self.succeed("--version").out, r"^thaw \d+\.\d+\.\d+\n")
        self.fails("--vresion", words=["--vresion", "'--version'"])
        self.fails("--version", "now", words=["--version"])

    def test_commands_that_come_later(self):
        for command in ("audit", "convert"):
            self.fails(command, "x", words=[command, "not there yet"])

    def test_every_rank_says_the_same_once(self):
        self.fails("trian", words=["'train'"], ranks=3)
        self.fails("layers", "vgg16", "--jsno", words=["--jsno", "'--json'"], ranks=3)

    def test_ranks_with_different_commands(self):
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        prefix = ["mpirun"] + root + ["--oversubscribe", "-n", "1", harness.THAW, "layers", "vgg16", ":", "-n", "1"]
        self.fails("layers", "vgg19", words=["rank 1", "command line"], prefix=prefix, timeout=60)

    def test_options_stand_anywhere(self):
        want = self.succeed("layers", "vgg16", "--no-top", "--freeze", "[:-4]", "--json").out
        for arguments in (["--freeze=[:-4]", "--json", "--no-top", "vgg16"], ["--no-top", "vgg16", "--json", "--freeze", "[:-4]"],
                          ["--no-top", "--json", "--freeze=[:-4]", "--", "vgg16"]):
            self.assertEqual(self.succeed("layers", *arguments).out, want)

    def test_freeze_repeats_in_order(self):
        flags = [row["trainable"] for row in self.succeed("layers", "vgg16", "--no-top", "--freeze", "block1_conv1",
                                                          "--freeze", "3", "--json").json["layers"]]
        self.assertEqual([i for i, flag in enumerate(flags) if not flag], [1, 3])

    def test_wrong_options(self):
        self.fails("layers", words=["MODEL"])
        self.fails("layers", "vgg16", "vgg19", words=["vgg19"])
        self.fails("layers", "vgg16", "--json=yes", words=["--json", "yes"])
        self.fails("layers", "vgg16", "--freeze", words=["--freeze", "value"])
        self.fails("layers", "vgg16", "--freeze", "--json", words=["--freeze", "value"])
        self.fails("layers", "vgg16", "--json", "--json", words=["twice"])
        self.fails("layers", "vgg16", "-j", words=["-j"])
        self.fails("bench", "vgg16", words=["vgg16"])
        self.fails("plan", "job.yaml", "--rank", "2", words=["--rank", "'--ranks'"])
        for value in ("0", "-1", "many", "3x", "99999999999999999999", ""):
            self.fails("bench", "--batch=" + value, words=["--batch"])

    def test_wrong_models(self):
        self.fails("layers", "vgg61", words=["vgg61", "vgg16"])
        self.fails("layers", "vgg61", "--no-top", words=["vgg61", "--no-top"])
        self.fails("layers", "nowhere.h5", words=["nowhere.h5"], status=66)
        for shape in ("224", "224,224", "224,224,3,1", "a,b,c", "224,,3", "0,0,0", "224,224,3,"):
            self.fails("layers", "vgg16", "--input-shape", shape, words=["--input-shape"])
        self.fails("layers", "vgg16", "--no-top", "--input-shape", "8,8,3", words=["32"])
        self.fails("layers", "vgg16", "--freeze", "block9_conv1", words=["block9_conv1", "block1_conv1"])

    def test_options_of_built_in_networks(self):
        model = small_network(self.path("small.h5"))
        self.fails("layers", model, "--no-top", words=["--no-top", "small.h5"])
        self.fails("layers", model, "--input-shape", "16,16,3", words=["--input-shape", "small.h5"])
        self.fails("predict", model, "x.png", "--output", self.path("o.csv"), "--weights", "imagenet", words=["imagenet"])
        self.fails("predict", model, "x.png", words=["--output"])

    def test_output_that_cannot_be_written(self):
        for arguments in (["help"], ["layers", "vgg16"], ["layers", "vgg16", "--json"]):
            for ranks in (0, 2):
                with open("/dev/full", "w") as full:
                    done = subprocess.run(harness.mpirun(ranks) + [harness.THAW] + arguments, stdout=full,
                                          stderr=subprocess.PIPE, env=harness.environment(), timeout=60)
                if ranks == 0:  # else mpirun writes
                    self.assertEqual(done.returncode, 74, done.stderr)
                    self.assertIn(b"thaw: standard output cannot be written", done.stderr)

    def test_job_that_is_no_text(self):
        with open(self.path("job.yaml"), "wb") as f:
            f.write(b"model:\n  base: vgg16\0\n")
        self.fails("plan", self.path("job.yaml"), words=["job.yaml", "zero byte"])
        os.makedirs(self.path("folder.yaml"))
        self.fails("plan", self.path("folder.yaml"), words=["folder.yaml"], status=65)
        with open(self.path("empty.yaml"), "w"):
            pass
        self.fails("plan", self.path("empty.yaml"), words=["empty.yaml"])

    def test_only_rank_0_prints(self):
        for arguments in (["layers", "vgg16", "--json"], ["help"]):
            self.assertEqual(self.succeed(*arguments, ranks=3).out, self.succeed(*arguments).out)


class Threads(harness.Case):
    def line(self, prefix=None, threads="", ranks=0, arguments=("bench", "--model", "nowhere.h5")):
        """(ranks, threads, cores) of the line about ranks, and the warnings."""
        choice = ["env", "OMP_NUM_THREADS=" + threads] if threads else ["env", "-u", "OMP_NUM_THREADS"]
        result = harness.run(*arguments, prefix=choice + (prefix or harness.mpirun(ranks)))
        self.assertEqual(result.status, 66, str(result))
        found = re.findall(r"(?m)^(\d+) ranks? on 1 host x (\d+) threads?; (\d+) cores?;", result.err)
        self.assertEqual(len(found), 1, str(result))
        warnings = [line for line in result.err.splitlines() if line.startswith("thaw: warning: ")]
        return tuple(int(n) for n in found[0]), warnings

    def test_one_process_uses_its_cores(self):
        self.assertEqual(self.line(), ((1, CORES, CORES), []))

    def test_fewer_cores_fewer_threads(self):
        core = str(min(os.sched_getaffinity(0)))
        self.assertEqual(self.line(prefix=["taskset", "-c", core]), ((1, 1, 1), []))

    def test_environment_decides(self):
        self.assertEqual(self.line(threads="1")[0], (1, 1, CORES))
        got, warnings = self.line(threads=str(CORES + 1))
        self.assertEqual(got, (1, CORES + 1, CORES))
        self.assertEqual(len(warnings), 1)
        self.assertIn("OMP_NUM_THREADS", warnings[0])

    def test_option_decides(self):
        got, _ = self.line(threads="1", arguments=("bench", "--threads", str(CORES), "--model", "nowhere.h5"))
        self.assertEqual(got[1], CORES)

    def test_ranks_divide_cores(self):
        got, warnings = self.line(ranks=2)
        self.assertEqual(got, (2, max(1, CORES // 2), CORES))
        self.assertEqual(len(warnings), int(CORES < 2))

    def test_more_ranks_than_cores(self):
        got, warnings = self.line(ranks=CORES + 1)
        self.assertEqual(got, (CORES + 1, 1, CORES))
        self.assertEqual(len(warnings), 1)
        self.assertIn("share", warnings[0])

    def bound(self, threads=""):
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        return self.line(["mpirun", "-n", "1"] + root + ["--bind-to", "core"], threads)

    def test_bound_to_one_core(self):
        """Open MPI binds one or two ranks to a core each: the other cores are idle."""
        (_, threads, cores), warnings = self.bound()
        if cores == CORES:
            self.skipTest("a machine of one core")
        self.assertEqual(threads, cores)
        self.assertEqual(len(warnings), 1)
        self.assertIn("--bind-to none", warnings[0])
        self.assertIn("PE=%d" % CORES, warnings[0])

    def test_bound_with_threads(self):
        (_, threads, cores), warnings = self.bound(str(CORES))
        if cores == CORES:
            self.skipTest("a machine of one core")
        self.assertEqual(threads, CORES)
        self.assertEqual(len(warnings), 1)
        self.assertIn("slot:PE=%d" % CORES, warnings[0])


class Figures(harness.Case):
    """evaluate and predict agree with each other and with themselves on any number of ranks."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = small_network(os.path.join(cls.shared, "small.h5"))
        cls.images = harness.make_folders(os.path.join(cls.shared, "images"), {"a": 7, "b": 5, "c": 6}, size=(20, 24))
        cls.names = [os.path.join(k, "%03d.png" % i) for k, n in (("a", 7), ("b", 5), ("c", 6)) for i in range(n)]
        cls.labels = np.repeat([0, 1, 2], [7, 5, 6])
        cls.arrays = os.path.join(cls.shared, "arrays.h5")
        rng = np.random.default_rng(4)
        with h5py.File(cls.arrays, "w") as f:
            f["x"] = rng.random((19, 16, 16, 3), "f4")
            f["y"] = rng.integers(0, 3, 19).astype("f4")

    def predict(self, *inputs, suffix=".h5", options=(), ranks=0):
        out = self.path("out%d%s" % (ranks, suffix))
        result = self.succeed("predict", self.model, *inputs, "--output", out, *options, ranks=ranks)
        self.assertEqual(result.out, "")
        return out

    def read(self, path):
        with h5py.File(path, "r") as f:
            return f["y"][()], [s.decode() if isinstance(s, bytes) else s for s in f["files"][()]] if "files" in f else None

    def test_predict_order_and_formats(self):
        y, files = self.read(self.predict(self.images, options=["--preprocess", "rescale"]))
        self.assertEqual(y.shape, (18, 3))
        np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)
        self.assertEqual(len(files), 18)
        for file, name in zip(files, self.names):
            self.assertTrue(file.endswith(name), file)
        with open(self.predict(self.images, suffix=".csv", options=["--preprocess", "rescale"]), newline="") as f:
            rows = list(csv.reader(f))
        self.assertEqual([row[0] for row in rows[1:]], files)
        np.testing.assert_array_equal(np.array([row[1:4] for row in rows[1:]], "f4"), y)
        with open(self.predict(self.images, suffix=".jsonl", options=["--preprocess", "rescale"])) as f:
            lines = [json.loads(line) for line in f]
        self.assertEqual([line["file"] for line in lines], files)
        np.testing.assert_array_equal(np.array([line["y"] for line in lines], "f4"), y)

    def test_predict_on_any_number_of_ranks(self):
        for inputs, options in (([self.images], ["--preprocess", "caffe"]), ([self.arrays + ":/x"], [])):
            want = self.read(self.predict(*inputs, options=options))[0]
            for ranks, batch in ((2, 32), (3, 4)):
                got = self.read(self.predict(*inputs, options=list(options) + ["--batch", batch], ranks=ranks))[0]
                np.testing.assert_array_equal(got, want)

    def test_predict_single_files_in_the_order_given(self):
        files = [os.path.join(self.images, name) for name in (self.names[9], self.names[0])]
        y, got = self.read(self.predict(*files, options=["--preprocess", "rescale"]))
        self.assertEqual([os.path.basename(f) for f in got], [os.path.basename(f) for f in files])
        every = self.read(self.predict(self.images, options=["--preprocess", "rescale"]))[0]
        np.testing.assert_array_equal(y, every[[9, 0]])

    def test_evaluate_agrees_with_predict(self):
        for data, labels, options in ((self.images, self.labels, ["--preprocess", "rescale"]), (self.arrays + ":/x", None, [])):
            if labels is None:
                with h5py.File(self.arrays, "r") as f:
                    labels = f["y"][()].astype(int)
            z = self.read(self.predict(data, options=list(options) + ["--logits"]))[0].astype("f8")
            p = self.read(self.predict(data, options=options))[0]
            top = z.max(1, keepdims=True)
            log_p = z - top - np.log(np.exp(z - top).sum(1, keepdims=True))
            np.testing.assert_allclose(p, np.exp(log_p), rtol=1e-4)
            n = len(labels)
            for ranks in (0, 3):
                got = self.succeed("evaluate", self.model, data, "--json", "--batch", "5", *options, ranks=ranks).json
                self.assertEqual(got["images"], n)
                self.assert_close(got["loss"], -log_p[np.arange(n), labels].mean(), 1e-5, "loss")
                self.assert_close(got["accuracy"], (z.argmax(1) == labels).mean(), 1e-12, "accuracy")
            text = self.succeed("evaluate", self.model, data, *options).out
            self.assertRegex(text, r"(?m)^loss +%.5f" % got["loss"])
            self.assertRegex(text, r"(?m)^images +%d$" % n)

    def test_evaluate_what_is_not_there(self):
        for data in (self.path("nothing"), self.path("nothing.h5") + ":/x"):
            result = harness.run("evaluate", self.model, data, "--preprocess", "rescale", ranks=2)
            self.assertEqual(result.status, 66, str(result))
            self.assertEqual((result.out, len(result.messages)), ("", 1), str(result))


if __name__ == "__main__":
    harness.main()
