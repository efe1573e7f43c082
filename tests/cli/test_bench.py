#!/usr/bin/env python3
"""thaw bench: figures of forward passes, steps, layers and the input; --conv of the commands that compute."""
import csv
import json
import os
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import small_network  # noqa: E402

CORES = sorted(os.sched_getaffinity(0))
BASE = ("--model", "vgg16", "--no-top", "--input-shape", "32,32,3")


class Bench(harness.Case):
    def bench(self, *arguments, **options):
        got = self.succeed("bench", "--batch", "2", "--repeat", "3", "--json", *arguments, timeout=200, **options).json
        for part in ("forward", "step"):
            self.assertLessEqual(got[part]["min"], got[part]["seconds"])
            self.assertLessEqual(got[part]["seconds"], got[part]["max"])
            self.assertGreater(got[part]["min"], 0)
            self.assert_close(got[part]["images_per_second"] * got[part]["seconds"], 2 * got["ranks"], 1e-9)
        self.assertGreater(len(got["machine"]), 2)
        return got

    def test_base_without_top_gets_a_head(self):
        got = self.bench(*BASE, "--freeze", "all")
        layers = got["layers"]
        self.assertEqual(len(layers), 21)
        self.assertEqual([row["class"] for row in layers[-2:]], ["GlobalAveragePooling2D", "Dense"])
        self.assertEqual(got["step"]["trainable_params"], 5130)
        self.assertEqual(got["step"]["gradient_bytes"], 4 * 5130)
        # VGG16 at 32x32: 1/49 of 15.346 G multiply-adds at 224x224
        self.assert_close(got["forward"]["gflop_per_image"], 0.62631, 1e-3, "gflop")
        seconds = sum(row["forward_seconds"] for row in layers[:19])
        self.assertGreater(seconds, 0.3 * got["forward"]["seconds"])
        self.assertLess(seconds, 2 * got["forward"]["seconds"])
        self.assertGreater(layers[2]["forward_seconds"], 0)
        self.assertEqual(sum(row["step_backward_seconds"] for row in layers[:18]), 0, "a frozen layer went backward")
        self.assertGreater(layers[20]["step_backward_seconds"], 0)
        full = self.bench(*BASE)
        self.assertEqual(full["step"]["trainable_params"], 14714688 + 5130)
        self.assertGreater(full["layers"][1]["step_backward_seconds"], 0)
        self.assertGreater(full["step"]["seconds"], got["step"]["seconds"])

    def test_file_as_it_is_on_two_ranks(self):
        model = small_network(self.path("norm.h5"), batch_norm=True)
        got = self.bench("--model", model, "--freeze", "[:-1]", ranks=2)
        self.assertEqual((got["ranks"], got["batch"], got["global_batch"]), (2, 2, 4))
        self.assertEqual(got["layers"][-1]["name"], "predictions")
        self.assertEqual(got["step"]["trainable_params"], 16 * 3 + 3)

    def test_text(self):
        model = small_network(self.path("small.h5"))
        text = self.succeed("bench", "--model", model, "--batch", "1", "--repeat", "1", "--threads", "1").out
        for word in ("images/s", "GFLOP", "block2_conv2", "backward", "peak", "against the reference", "cpus"):
            self.assertIn(word, text)
        text = self.succeed("bench", "--model", "inceptionv3", "--no-top", "--input-shape", "75,75,3", "--batch", "1",
                            "--repeat", "1", "--freeze", "before:conv2d_93").out
        self.assertIn("GlobalAveragePooling2D", text)
        for line in text.splitlines():
            self.assertLessEqual(len(line), 120, line)

    def test_errors(self):
        model = small_network(self.path("small.h5"))
        for arguments, status, words in ((["--freeze", "all"], 64, ["[:-1]"]), (["--freeze", "block9"], 64, ["block9"]),
                                         (["--batch", "65536", "--model", "vgg16"], 69, ["--batch"])):
            result = harness.run("bench", "--model", model, *arguments) if "--model" not in arguments else \
                harness.run("bench", *arguments)
            self.assertEqual(result.status, status, str(result))
            self.assertEqual((result.out, len(result.messages)), ("", 1), str(result))
            for word in words:
                self.assertIn(word, result.messages[0])

    def test_layers_say_what_they_cost(self):
        got = self.bench(*BASE, "--conv", "blas", "--freeze", "before:block5_conv1")
        layers = {row["name"]: row for row in got["layers"]}
        conv = layers["block1_conv2"]  # 32x32, 64 to 64 channels, batch 2, the kernel as it is
        self.assertEqual(conv["bytes"], 4 * (2 * 2 * 32 * 32 * 64 + 3 * 3 * 64 * 64 + 64))
        self.assertEqual((conv["algorithm"], conv["backward_gflop"]), ("blas", 0))
        self.assertEqual(layers["block5_conv1"]["backward_gflop"], layers["block5_conv1"]["forward_gflop"])
        self.assertEqual(layers["block5_conv2"]["backward_gflop"], 2 * layers["block5_conv2"]["forward_gflop"])
        self.assertIsNone(layers["block1_pool"]["algorithm"])
        peak = got["peak"]["gflop_per_second_of_rank_0"]
        for row in got["layers"]:
            seconds = row.get("forward_seconds", row["step_forward_seconds"])
            if seconds > 0:
                self.assert_close(row["gflops"], 2 * row["forward_gflop"] / seconds, 1e-9, row["name"])
                self.assert_close(row["peak_share"], row["gflops"] / peak, 1e-9, row["name"])
        self.assertGreater(layers["block5_conv2"]["backward_gflops"], 0)
        forward = got["forward"]
        self.assert_close(forward["gflop_per_second"], forward["gflop_per_image"] * forward["images_per_second"], 1e-9)
        self.assert_close(forward["peak_share"], forward["gflop_per_second"] / got["peak"]["gflop_per_second"], 1e-9)
        self.assert_close(got["step"]["gflop_per_second"], got["step"]["images_per_second"] *
                          (got["step"]["forward_gflop"] + got["step"]["backward_gflop"]), 1e-9)

    def test_kernels_are_checked(self):
        for isa in ("avx512", "avx2", "portable"):
            for conv in ("auto", "direct"):
                got = self.bench(*BASE, "--conv", conv, env={"THAW_ISA": isa})
                self.assertGreater(got["check"]["shapes"], 8)
                for key in ("forward_error", "data_gradient_error", "weight_gradient_error"):
                    self.assertGreater(got["check"][key], 1e-8)
                    self.assertLess(got["check"][key], 5e-6)
                self.assertLess(got["check"]["forward_error"], got["check"]["bound"])
        got = self.bench("--model", small_network(self.path("small.h5")), env={"THAW_KERNELS": "reference"})
        self.assertEqual(got["check"]["shapes"], 0)
        self.assertEqual({row["algorithm"] for row in got["layers"]} - {None}, {"reference"})

    def test_where_it_was_measured(self):
        got = self.bench(*BASE, "--freeze", "all", prefix=["taskset", "-c", str(CORES[-1])])
        self.assertEqual((got["affinity"], got["threads"]), (str(CORES[-1]), 1))
        self.assertRegex(got["versions"]["compiler"], r"^(GCC|Clang) \d+\.")
        self.assertRegex(got["versions"]["openblas"], r"^OpenBLAS \d+\.")
        self.assertEqual(got["versions"]["thaw"], got["version"])
        self.assertGreater(got["peak"]["gflop_per_second"], 1)

    def test_peak_of_all_ranks(self):
        peak = self.bench(*BASE, "--freeze", "all", ranks=2)["peak"]
        self.assertGreater(peak["gflop_per_second"], 1.2 * peak["gflop_per_second_of_rank_0"])


class Convolution(harness.Case):
    """--conv of bench, train, evaluate and predict."""

    def setUp(self):
        super().setUp()
        self.model = small_network(self.path("small.h5"))
        self.images = harness.make_folders(self.path("images"), {"a": 7, "b": 5, "c": 6})

    def test_algorithms(self):
        for conv, want in (("auto", None), ("direct", {"direct"}), ("winograd", {"winograd"}), ("blas", {"blas"})):
            got = self.succeed("bench", "--batch", "1", "--repeat", "1", "--json", *BASE, "--conv", conv,
                               env={"THAW_CONV": "blas" if conv != "blas" else "direct"}).json
            self.assertIn("convolution %s;" % conv, got["kernels"])
            found = {row["algorithm"] for row in got["layers"] if row["class"] == "Conv2D"}
            self.assertEqual(found, want or {"direct", "winograd"})

    def test_train(self):
        job = {"model": {"base": self.model}, "data": {"train": self.images, "preprocess": "rescale"},
               "training": {"seed": 1, "batch_size": 6, "loss": "categorical_crossentropy"},
               "stages": [{"name": "late", "freeze": "before:block2_conv1", "epochs": 2,
                           "optimizer": {"name": "sgd", "learning_rate": 0.01}}]}
        losses, files = {}, {}
        for conv in ("direct", "winograd", "blas"):
            run = self.path(conv)
            self.succeed("train", harness.write_job(self.path("job.yaml"), dict(job, output=run)), "--conv", conv)
            self.assertIn("convolution %s;" % conv, harness.events(run, "start")[0]["kernels"])
            losses[conv] = harness.history(run)[-1]["loss"]
            self.assert_close(losses[conv], losses["direct"], 1e-4, conv)
            files[conv] = harness.read_bytes(os.path.join(run, "model.h5"))
        self.assertNotEqual(files["winograd"], files["direct"])

    def test_evaluate_and_predict(self):
        outputs, losses = {}, {}
        for conv in ("direct", "winograd"):
            out = self.path(conv + ".h5")
            self.succeed("predict", self.model, self.images, "--output", out, "--preprocess", "rescale", "--conv", conv)
            with h5py.File(out, "r") as f:
                outputs[conv] = f["y"][()]
            losses[conv] = self.succeed("evaluate", self.model, self.images, "--preprocess", "rescale", "--json", "--conv",
                                        conv).json["loss"]
        np.testing.assert_allclose(outputs["direct"], outputs["winograd"], rtol=1e-4, atol=1e-6)
        self.assertNotEqual(outputs["direct"].tobytes(), outputs["winograd"].tobytes())
        self.assert_close(losses["direct"], losses["winograd"], 1e-4)

    def test_errors(self):
        for words in (["bench"], ["train", "job.yaml"], ["evaluate", self.model, self.images],
                      ["predict", self.model, self.images, "--output", self.path("y.csv")]):
            for env, conv, part in ((None, "fft", "auto, direct, winograd or blas"),
                                    ({"THAW_KERNELS": "reference"}, "direct", "THAW_KERNELS")):
                result = harness.run(*words, "--conv", conv, env=env)
                self.assertEqual(result.status, 64, str(result))
                self.assertEqual((result.out, len(result.messages)), ("", 1), str(result))
                self.assertIn(part, result.messages[0])
                self.assertIn(words[0] + ": --conv", result.messages[0])


class Scaling(harness.Case):
    """bench --scaling"""

    def setUp(self):
        super().setUp()
        self.model = small_network(self.path("small.h5"))

    def scale(self, *arguments, ranks=3, **options):
        return self.succeed("bench", "--scaling", "--model", self.model, "--batch", "4", "--repeat", "2", *arguments,
                            ranks=ranks, **options)

    def check(self, got, ranks, batch, together):
        plans = {p["name"]: p for p in got["plans"]}
        alone = {}
        for p in got["points"]:
            images = together if p["scaling"] == "strong" else batch * p["ranks"]
            self.assertEqual((p["images"], p["hosts"]), (images, 1))
            self.assert_close(p["images_per_second"], images / p["seconds"], 1e-9)
            self.assertLessEqual(p["min"], p["seconds"])
            self.assertEqual(p["exchanged_bytes"], plans[p["plan"]]["gradient_bytes"])
            if p["ranks"] == 1:
                alone[p["plan"], p["scaling"]] = p["images_per_second"]
                self.assertIsNone(p["hidden_share"])
            else:
                self.assertTrue(0 <= p["hidden_share"] <= 1)
                self.assertTrue(0 < p["wait_share"] < 1)
            self.assert_close(p["efficiency"], p["images_per_second"] / p["ranks"] / alone[p["plan"], p["scaling"]], 1e-9)
            self.assertGreater(p["phases"]["backward"], 0)
            if p["plan"] == "everything":  # nothing but two looks at the clock
                self.assertLess(p["phases"]["prefix"], 0.1 * p["phases"]["forward"])
            else:
                self.assertGreater(p["phases"]["prefix"], 0)
        want = [(plan, kind, n) for plan in plans for kind in ("strong", "weak") for n in ranks]
        self.assertEqual([(p["plan"], p["scaling"], p["ranks"]) for p in got["points"]], want)

    def test_default_plans(self):
        got = self.scale("--json").json
        self.assertEqual([p["name"] for p in got["plans"]], ["head", "late", "everything"])
        self.assertEqual([p["spec"] for p in got["plans"]], ["[:-1]", "before:fc1", "none"])
        sizes = [p["gradient_bytes"] for p in got["plans"]]
        self.assertEqual(sizes, sorted(sizes))
        self.assertEqual(sizes[2], got["plans"][2]["full_gradient_bytes"])
        self.check(got, (1, 2, 3), 4, 4)
        self.assertNotIn("predicted", got["points"][0])

    def test_report(self):
        folder, tools = self.path("deep", "report"), self.path("tools")
        os.mkdir(tools)
        with open(os.path.join(tools, "gnuplot"), "w") as f:
            f.write('#!/bin/sh\ntest "$1" = scaling.gp && grep -c strcol scaling.gp >scaling.svg\n')
        os.chmod(os.path.join(tools, "gnuplot"), 0o755)
        name = "a,\"b' <c>"
        done = self.scale("--freeze", name + "=before:fc1", "--freeze", "block2_conv1", "--global-batch", "7", "--network",
                          "1us,10Gbit", "--report", folder, env={"PATH": tools + ":" + os.environ["PATH"]})
        self.assertIn("efficiency", done.err)
        self.assertIn("predicted", done.out)
        self.assertEqual(sorted(os.listdir(folder)), ["scaling." + e for e in ("csv", "gp", "html", "json", "svg")])
        with open(os.path.join(folder, "scaling.json")) as f:
            got = json.load(f)
        self.check(got, (1, 2, 3), 4, 7)
        self.assertEqual(got["plans"][0]["name"], name)
        self.assertEqual(got["network"], {"latency": 1e-6, "bandwidth": 1.25e9})
        with open(os.path.join(folder, "scaling.csv"), newline="") as f:
            rows = list(csv.DictReader(f))
        self.assertEqual(len(rows), 12)
        for row, p in zip(rows, got["points"]):
            self.assertEqual((row["plan"], row["scaling"], int(row["ranks"])), (p["plan"], p["scaling"], p["ranks"]))
            self.assert_close(float(row["images_per_second"]), p["images_per_second"], 1e-8)
            self.assert_close(float(row["predicted_seconds"]), p["predicted"]["seconds"], 1e-8)
            if p["ranks"] == 1:  # the prediction starts from there
                self.assert_close(p["predicted"]["efficiency"], 1, 1e-9)
        with open(os.path.join(folder, "scaling.html")) as f:
            page = f.read()
        self.assertEqual(page.count("<svg"), 6)
        self.assertEqual(page.count("</svg>"), 6)
        self.assertIn("a,&quot;b' &lt;c&gt;", page)
        for outside in ("http", "src=", "<c>", "nan", "inf"):
            self.assertNotIn(outside, page.lower())
        with open(os.path.join(folder, "scaling.svg")) as f:
            self.assertEqual(f.read(), "8\n")  # two plans, measured and predicted, strong and weak
        with open(os.path.join(tools, "gnuplot"), "w") as f:
            f.write("#!/bin/sh\nexit 1\n")
        done = self.scale("--freeze", "head", "--weak", "--report", folder, ranks=0,
                          env={"PATH": tools + ":" + os.environ["PATH"]})
        self.assertIn("gnuplot could not", done.err)

    def test_kinds_and_exchange(self):
        got = self.scale("--json", "--strong", "--freeze", "everything", "--exchange", "mpi", "--global-batch", "2").json
        self.assertEqual([(p["scaling"], p["ranks"], p["hidden_share"]) for p in got["points"]],
                         [("strong", 1, None), ("strong", 2, 0)])  # three ranks have no share of two images
        got = self.scale("--json", "--strong", "--freeze", "everything", "--exchange", "fp16", "--global-batch", "4",
                         ranks=2).json
        self.assertEqual(got["exchange"], "fp16")
        for point in got["points"]:
            self.assertEqual(2 * point["exchanged_bytes"], got["plans"][0]["gradient_bytes"])
        got = self.scale("--json", "--weak", "--freeze", "everything", ranks=0).json
        self.assertEqual([(p["scaling"], p["ranks"]) for p in got["points"]], [("weak", 1)])

    def test_errors(self):
        with open(self.path("file"), "w"):
            pass
        for arguments, status, word in ((["--scaling", "--network", "1"], 64, "LATENCY"),
                                        (["--scaling", "--exchange", "ring"], 64, "ring"),
                                        (["--scaling", "--freeze", "block9"], 64, "block9"),
                                        (["--scaling", "--freeze", "head", "--freeze", "head=none"], 64, "two plans"),
                                        (["--scaling", "--freeze", "x=all"], 64, "[:-1]"),
                                        (["--scaling", "--report", self.path("file")], 73, "file"),
                                        (["--scaling", "--data", self.dir], 64, "--scaling"),
                                        (["--report", self.path("r")], 64, "--scaling"),
                                        (["--strong"], 64, "--scaling"),
                                        (["--scaling", "--global-batch", "1000000"], 69, "--batch")):
            for ranks in (0, 2):
                result = harness.run("bench", "--model", self.model, *arguments, ranks=ranks)
                self.assertEqual(result.status, status, str(result))
                self.assertEqual((result.out, len(result.messages)), ("", 1), str(result))
                self.assertIn(word, result.messages[0])


class Input(harness.Case):
    """bench --data"""

    def read(self, *arguments, **options):
        got = self.succeed("bench", "--input-shape", "48,32,3", "--repeat", "3", "--json", "--data", *arguments, **options).json
        part = got["input"]
        self.assertLessEqual(part["min"], part["seconds"])
        self.assertLessEqual(part["seconds"], part["max"])
        self.assertGreater(part["min"], 0)
        self.assert_close(part["images_per_second"] * part["seconds"], part["images"], 1e-9)
        return got

    def test_images(self):
        images = harness.make_folders(self.path("images"), {"a": 40, "b": 31}, size=(20, 24))
        for ranks in (0, 2):
            got = self.read(images, "--threads", "2", "--batch", "4", ranks=ranks)
            self.assertEqual(got["input_shape"], [None, 48, 32, 3])
            self.assertEqual((got["threads"], got["batch"], got["ranks"]), (2, 4, ranks or 1))
            self.assertEqual((got["input"]["images"], got["input"]["samples"]), (71, 71))
            self.assertEqual(got["input"]["preprocess"], "caffe")
        got = self.read(images, "--batch", "1", "--preprocess", "tf")
        self.assertEqual((got["input"]["images"], got["input"]["preprocess"]), (64, "tf"))
        text = self.succeed("bench", "--data", images, "--input-shape", "48,32,3").out
        self.assertRegex(text, r"(?m)^input +[\d.]+ images/s \([\d.]+ to [\d.]+\)$")

    def test_larger_images_take_longer(self):
        rates = []
        for side in (16, 512):
            images = harness.make_folders(self.path(str(side)), {"a": 12}, size=(side, side))
            rates.append(self.read(images)["input"]["images_per_second"])
        self.assertGreater(rates[0], 3 * rates[1])

    def test_arrays(self):
        with h5py.File(self.path("a.h5"), "w") as f:
            f["x"] = np.zeros((30, 48, 32, 3), "f4")
        got = self.read(self.path("a.h5") + ":/x")
        self.assertEqual((got["input"]["images"], got["input"]["preprocess"]), (30, "none"))

    def test_errors(self):
        images = harness.make_folders(self.path("images"), {"a": 3})
        with open(self.path("broken.png"), "wb") as f:
            f.write(b"\x89PNG\r\n\x1a\n nothing")
        with h5py.File(self.path("a.h5"), "w") as f:
            f["x"] = np.zeros((3, 8, 8, 3), "f4")
        os.mkdir(self.path("empty"))
        for arguments, status, word in ((["--data", self.path("nowhere")], 66, "nowhere"),
                                        (["--data", self.path("empty")], 65, "empty"),
                                        (["--data", self.path("broken.png")], 65, "broken.png"),
                                        (["--data", self.path("a.h5") + ":/x"], 65, "(8,8,3)"),
                                        (["--data", self.path("a.h5") + ":/z"], 66, "z"),
                                        (["--data", images, "--freeze", "all"], 64, "--freeze"),
                                        (["--data", images, "--conv", "direct"], 64, "--conv"),
                                        (["--data", images, "--preprocess", "keras"], 64, "keras"),
                                        (["--data", images, "--input-shape", "8"], 64, "--input-shape"),
                                        (["--preprocess", "tf"], 64, "--data")):
            for ranks in (0, 2):
                result = harness.run("bench", *arguments, ranks=ranks)
                self.assertEqual(result.status, status, str(result))
                self.assertEqual((result.out, len(result.messages)), ("", 1), str(result))
                self.assertIn(word, result.messages[0])


if __name__ == "__main__":
    harness.main()
