#!/usr/bin/env python3
"""What `thaw layers` and `thaw plan` say of networks and jobs whose figures are known."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402

VGG16 = ["block1_conv1", "block1_conv2", "block1_pool", "block2_conv1", "block2_conv2", "block2_pool", "block3_conv1",
         "block3_conv2", "block3_conv3", "block3_pool", "block4_conv1", "block4_conv2", "block4_conv3", "block4_pool",
         "block5_conv1", "block5_conv2", "block5_conv3", "block5_pool"]
# network: layers and parameters with and without top, trainable parameters with top
FIGURES = {"vgg16": (23, 138357544, 19, 14714688, 138357544), "vgg19": (26, 143667240, 22, 20024384, 143667240),
           "resnet50": (177, 25636712, 175, 23587712, 25583592),
           "inceptionv3": (313, 23851784, 311, 21802784, 23817352)}
JOB = os.path.join(harness.ROOT, "jobs", "vgg16-cats-dogs.yaml")
# The job of DESIGN's example. `thaw plan` needs neither weights nor images.
CATS = {"model": {"base": "vgg16", "weights": "imagenet", "input_shape": [150, 150, 3], "include_top": False,
                  "head": [{"Flatten": {}}, {"Dense": {"units": 256, "activation": "relu", "name": "fc1"}},
                           {"Dropout": {"rate": 0.5}}, {"Dense": {"units": 1, "activation": "sigmoid",
                                                                  "name": "predictions"}}]},
        "data": {"train": "data/train", "validation": "data/val", "class_names": ["cat", "dog"]},
        "training": {"seed": 1, "batch_size": 32, "loss": "binary_crossentropy", "metrics": ["accuracy"]},
        "stages": [{"name": "head", "freeze": "all", "epochs": 5, "optimizer": {"name": "adam", "learning_rate": 1e-3}},
                   {"name": "finetune", "freeze": "before:block5_conv1", "epochs": 5,
                    "optimizer": {"name": "sgd", "learning_rate": 1e-4, "momentum": 0.9}}],
        "output": "runs/cats-and-dogs"}


class Layers(harness.Case):
    def test_vgg16_without_top(self):
        got = self.succeed("layers", "vgg16", "--no-top", "--input-shape", "150,150,3", "--json").json
        layers = got["layers"]
        self.assertEqual(len(layers), 19)
        self.assertEqual([layer["index"] for layer in layers], list(range(19)))
        self.assertEqual(layers[0]["class"], "InputLayer")
        self.assertEqual([layer["name"] for layer in layers[1:]], VGG16)
        self.assertEqual(got["total_params"], 14714688)
        self.assertEqual(sum(layer["params"] for layer in layers), 14714688)
        self.assertEqual(layers[1]["params"], 1792)
        self.assertEqual(list(layers[-1]["output_shape"])[-3:], [4, 4, 512])
        self.assertEqual(list(layers[1]["output_shape"])[-3:], [150, 150, 64])

    def test_parameters_of_all_networks(self):
        for name, (n_top, top, n_base, base, trainable) in FIGURES.items():
            with self.subTest(name):
                whole = self.succeed("layers", name, "--json").json
                self.assertEqual((len(whole["layers"]), whole["total_params"]), (n_top, top))
                self.assertEqual(whole["trainable_params"], trainable)
                self.assertEqual(whole["non_trainable_params"], top - trainable)
                without = self.succeed("layers", name, "--no-top", "--json").json
                self.assertEqual((len(without["layers"]), without["total_params"]), (n_base, base))

    def test_freeze(self):
        for spec in ("before:block5_conv1", "[:-4]", "[0:15]"):
            got = self.succeed("layers", "vgg16", "--no-top", "--freeze", spec, "--json").json
            self.assertEqual([layer["trainable"] for layer in got["layers"][15:]], [True] * 4, spec)
            self.assertFalse(any(layer["trainable"] for layer in got["layers"][1:15]), spec)
            self.assertEqual(got["trainable_params"], 7079424, spec)
            self.assertEqual(got["non_trainable_params"], 7635264, spec)

    def test_order_of_resnet50(self):
        names = [layer["name"] for layer in self.succeed("layers", "resnet50", "--json").json["layers"]]
        self.assertEqual(names[1:7], ["conv1_pad", "conv1_conv", "conv1_bn", "conv1_relu", "pool1_pad", "pool1_pool"])
        p = "conv2_block1_"
        self.assertEqual(names[7:19], [p + s for s in ("1_conv", "1_bn", "1_relu", "2_conv", "2_bn", "2_relu", "0_conv",
                                                       "3_conv", "0_bn", "3_bn", "add", "out")])

    def test_text(self):
        text = self.succeed("layers", "vgg16", "--no-top").out
        for word in ("block5_conv3", "Conv2D", "14,714,688"):
            self.assertIn(word, text)


class Plan(harness.Case):
    def plan(self, *arguments, probe=False, **options):
        path = harness.write_job(self.path("job.yaml"), CATS)
        return self.succeed("plan", path, "--json", *(() if probe else ("--no-probe",)), *arguments, **options).json

    def check(self, stage, name, trainable, frozen, gradient):
        self.assertEqual(stage["name"], name)
        self.assertEqual((stage["trainable_params"], stage["non_trainable_params"]), (trainable, frozen))
        self.assertEqual(stage["gradient_bytes"], gradient)
        self.assertEqual(stage["full_gradient_bytes"], 67249412)
        for key in ("memory_bytes_per_rank", "forward_gflop", "backward_gflop"):
            self.assertGreater(stage[key], 0)

    def check_both(self, plan):
        self.assertEqual(plan["total_params"], 16812353)
        self.assertEqual(len(plan["stages"]), 2)
        self.check(plan["stages"][0], "head", 2097665, 14714688, 8390660)
        self.check(plan["stages"][1], "finetune", 9177089, 7635264, 36708356)

    def test_cats_and_dogs(self):
        self.check_both(self.plan())

    def test_committed_job(self):
        self.check_both(self.succeed("plan", JOB, "--json").json)

    def test_equal_ways_to_freeze(self):
        first = self.plan()
        for spec in ("[:-4]", "[0:15]", "[:15]"):
            other = self.plan("--set", 'stages.1.freeze="%s"' % spec)
            self.check_both(other)
            self.assertEqual(other["stages"][1]["backward_gflop"], first["stages"][1]["backward_gflop"])

    def test_last_five_layers(self):
        """In the base alone [:-5] leaves block4_pool and block5: the same parameters."""
        self.check_both(self.plan("--set", 'stages.1.freeze="[:-5]"'))

    def test_costs_fall_with_freezing(self):
        plan = self.plan()
        head, late = plan["stages"]
        full = self.plan("--set", "stages.1.freeze=none")["stages"][1]
        self.assertEqual(full["gradient_bytes"], 67249412)
        self.assertLess(head["backward_gflop"], late["backward_gflop"])
        self.assertLess(late["backward_gflop"], full["backward_gflop"])
        self.assertLess(late["memory_bytes_per_rank"], full["memory_bytes_per_rank"])
        self.assertAlmostEqual(full["forward_gflop"], 13.24, delta=0.1)  # VGG16 at 150x150: 6.62 G multiply-adds

    def test_nothing_is_written(self):
        before = sorted(os.listdir(self.dir) + ["job.yaml"])
        self.plan(cwd=self.dir)
        self.assertEqual(sorted(os.listdir(self.dir)), before)

    def test_sbatch(self):
        """The lines that a SLURM script begins with follow from the plan; what is not known is commented out."""
        path = harness.write_job(self.path("job.yaml"), CATS)

        def lines(*arguments):
            out = self.succeed("plan", path, "--sbatch", *arguments).out.splitlines()
            self.assertEqual([line for line in out if not line.startswith(("#SBATCH --", "##SBATCH --", "# "))], [])
            for line in out:
                if line.startswith("##SBATCH"):
                    self.assertIn("# not known", line)
            return dict(line[10:].split("=", 1) for line in out if line.startswith("#SBATCH --"))
        stages = self.plan("--ranks", "6")["stages"]
        rank = max(s["memory_bytes_per_rank"] for s in stages)
        found = lines("--ranks", "6", "--ranks-per-node", "4", "--cpus-per-task", "8")
        self.assertEqual((found["nodes"], found["ntasks"], found["ntasks-per-node"], found["cpus-per-task"]),
                         ("2", "6", "4", "8"))
        memory = int(found["mem"].rstrip("M")) * 2 ** 20
        self.assertGreater(memory, 1.2 * 4 * rank)
        self.assertLess(memory, 1.4 * 4 * (rank + 200e6))
        self.assertEqual("time" in found, all(s.get("seconds_per_epoch") is not None for s in stages))
        self.assertEqual(set(lines("--ranks", "6")) - {"time"}, {"ntasks"})
        self.assertEqual(set(lines("--ranks", "6", "--cpus-per-task", "8")) - {"time"},
                         {"ntasks", "cpus-per-task", "mem-per-cpu"})
        self.assertEqual(lines("--ranks", "2", "--ranks-per-node", "4")["ntasks-per-node"], "2")
        for wrong, words in ((("--ranks-per-node", "2"), "--sbatch"), (("--sbatch", "--json"), "give one"),
                             (("--sbatch", "--ranks", "1,2"), "one number"),
                             (("--sbatch", "--cpus-per-task", "0"), "from 1")):
            result = harness.run("plan", path, *wrong)
            self.assertEqual((result.status, len(result.messages)), (64, 1), str(result))
            self.assertIn(words, result.messages[0])

    def test_ranks(self):
        self.succeed("plan", harness.write_job(self.path("job.yaml"), CATS), "--ranks", "1,2,4,8", "--json").json
        self.assertIn("block5_conv1", self.succeed("plan", self.path("job.yaml"), "--ranks", "1,2").out)

    def test_network(self):
        """Figures of the alpha-beta model against those that follow from its own pace."""
        small = ("--set", "model.input_shape=[32,32,3]", "--ranks", "1,2,3,4,12,16,64")
        for network, latency, rate in (("1ns,1e18", 1e-9, 1e18), ("50us,1Gbit", 50e-6, 0.125e9), ("1e-4,100kB", 1e-4, 1e5)):
            plan = self.plan(*small, "--network", network, probe=True)
            for stage in plan["stages"]:
                pace, bytes_ = stage["pace"], stage["gradient_bytes"]
                rows = {row["ranks"]: row for row in stage["by_ranks"]}
                alone = rows[1]["predicted"]
                self.assertEqual((alone["wait_seconds"], alone["sent_bytes"], alone["hidden_share"]), (0, 0, None))
                for ranks, sent, added in ((1, 0, 0), (2, 1, 1), (3, 4 / 3, 2 / 3), (4, 1.5, 0.75), (12, 3.75, 1.875),
                                           (16, 1.875, 0.9375), (64, 1.96875, 0.984375)):
                    row = rows[ranks]["predicted"]
                    self.assertEqual(row["exchanged_bytes"], bytes_)
                    self.assert_close(row["sent_bytes"], sent * bytes_, 1e-3, "sent by %d" % ranks)
                    images = rows[ranks]["images_per_rank"]
                    work = images * (pace["prefix"] + pace["forward"] + pace["backward"]) + pace["update"] + \
                        added * bytes_ * pace["add"]
                    self.assert_close(row["seconds_per_step"], work + row["wait_seconds"], 1e-3, "seconds on %d" % ranks)
                    self.assert_close(row["efficiency"], alone["seconds_per_step"] / ranks / row["seconds_per_step"], 1e-9)
                    self.assert_close(row["images_per_second"], 32 / row["seconds_per_step"], 1e-9)
                    wire = row["sent_bytes"] / rate
                    self.assertGreaterEqual(row["exchange_seconds"], wire)
                    self.assertLess(row["exchange_seconds"], wire + 1e4 * latency)
                    hides = images * (pace["prefix"] + pace["backward"]) + added * bytes_ * pace["add"]
                    self.assertGreaterEqual(row["wait_seconds"], row["exchange_seconds"] - hides - 1e-9)
                    self.assertLess(row["wait_seconds"], row["exchange_seconds"] + 100 * latency + 1e-12)
                    if ranks > 1 and rate > 1e17:
                        self.assertEqual(row["hidden_share"], 1)
                    if ranks > 1 and rate < 1e6:
                        self.assertLess(row["hidden_share"], 0.7)
                        self.assertGreater(row["wait_seconds"], 0)
        text = self.succeed("plan", self.path("job.yaml"), *small, "--network", "2us,100Gbit").out
        self.assertIn("efficiency %", text)
        self.assertNotIn("predicted", str(self.plan(*small)))

    def test_network_errors(self):
        path = harness.write_job(self.path("job.yaml"), CATS)
        for text in ("1", "1,2,3", "0,1", "-1,1e9", "1e-6,0", "2m,1e9", "1e-6,1Gb", "inf,1", "nan,1", "1e-6,1e9x", ",1"):
            result = harness.run("plan", path, "--network", text)
            self.assertEqual(result.status, 64, str(result))
            self.assertIn("--network: expected LATENCY,BANDWIDTH", result.messages[0])
        for other in ("--no-probe", "--sbatch"):
            result = harness.run("plan", path, "--network", "2us,100Gbit", other)
            self.assertEqual(result.status, 64, str(result))
            self.assertIn("--network", result.messages[0])


if __name__ == "__main__":
    harness.main()
