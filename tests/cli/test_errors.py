#!/usr/bin/env python3
"""Bad inputs: each ends with its exit status and one line that says what is wrong, on one rank and on three.

Asserted for every case: the exit status; exactly one error line, beginning "thaw: ", with the needed words; an empty
standard output; no output folder, and no temporary file anywhere in the case's folder.
"""
import json
import os
import shutil
import sys

import h5py
import numpy as np
from PIL import Image

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import Network, small_network  # noqa: E402

MISSING, DATA, USAGE, CREATE = 66, 65, 64, 73


class Errors(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = small_network(os.path.join(cls.shared, "small.h5"))
        cls.images = harness.make_folders(os.path.join(cls.shared, "images"), {"a": 5, "b": 5, "c": 5})
        cls.two = harness.make_folders(os.path.join(cls.shared, "two"), {"a": 5, "b": 5})
        cls.arrays = os.path.join(cls.shared, "arrays.h5")
        with h5py.File(cls.arrays, "w") as f:
            f["x"] = np.zeros((12, 16, 16, 3), "f4")
            f["y"] = np.arange(12, dtype="f4") % 3
            f["short"] = np.zeros(11, "f4")
            f["small"] = np.zeros((12, 9, 9, 3), "f4")

    def job(self, **changes):
        """A good job, with changes by dotted key ("model.base"); None deletes the key."""
        job = {"model": {"base": self.model}, "data": {"train": self.images, "preprocess": "rescale"},
               "training": {"seed": 1, "batch_size": 4, "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
               "stages": [{"name": "only", "freeze": "before:fc1", "epochs": 1,
                           "optimizer": {"name": "sgd", "learning_rate": 0.01}}],
               "output": self.path("run")}
        for key, value in changes.items():
            *path, last = key.split("__")
            place = job
            for part in path:
                place = place[int(part) if part.isdigit() else part]
            if value is None:
                del place[last]
            else:
                place[last] = value
        return job

    def fails(self, status, words, job=None, arguments=None, output=None, unwanted=()):
        """Runs `thaw train JOB` (or `arguments`) without mpirun and on three ranks."""
        if arguments is None:
            arguments = ["train", harness.write_job(self.path("job.yaml"), job)]
        before = self.files()
        for ranks in (0, 3):
            with self.subTest(ranks=ranks or 1):
                result = harness.run(*arguments, ranks=ranks, timeout=60)
                self.assertEqual(result.status, status, str(result))
                self.assertEqual(len(result.messages), 1, str(result))
                for word in words:
                    self.assertIn(word.lower(), result.messages[0].lower(), str(result))
                for word in unwanted:
                    self.assertNotIn(word, result.messages[0], str(result))
                self.assertEqual(result.out, "", str(result))
                self.assertEqual(self.files(), before, "litter")

    def files(self):
        return sorted(os.path.join(r, f) for r, d, fs in os.walk(self.dir) for f in fs + d)

    def network(self, change):
        """The small network's file after change(h5py file, model_config dict)."""
        path = self.path("bad.h5")
        shutil.copy(self.model, path)
        with h5py.File(path, "r+") as f:
            config = json.loads(f.attrs["model_config"])
            change(f["model_weights"], config)
            f.attrs["model_config"] = json.dumps(config).encode()
        return path

    # 66: an input is missing

    def test_missing_job(self):
        self.fails(MISSING, ["nowhere.yaml"], arguments=["train", self.path("nowhere.yaml")])

    def test_missing_model(self):
        self.fails(MISSING, ["nowhere.h5"], self.job(model__base=self.path("nowhere.h5")))

    def test_missing_weights(self):
        self.fails(MISSING, ["nowhere.h5"], self.job(model__weights=self.path("nowhere.h5")))

    def test_missing_folder(self):
        self.fails(MISSING, ["no-images"], self.job(data__train=self.path("no-images")))

    def test_missing_validation(self):
        self.fails(MISSING, ["no-images"], self.job(data__validation=self.path("no-images")))

    def test_missing_dataset(self):
        self.fails(MISSING, ["/nothing", "arrays.h5"],
                   self.job(data__train={"x": self.arrays + ":/nothing", "y": self.arrays + ":/y"}))

    def test_missing_array_file(self):
        self.fails(MISSING, ["no-arrays.h5"],
                   self.job(data__train={"x": self.path("no-arrays.h5") + ":/x", "y": self.arrays + ":/y"}))

    def test_missing_predict_input(self):
        self.fails(MISSING, ["nowhere.png"], arguments=["predict", self.model, self.path("nowhere.png"), "--preprocess",
                                                        "rescale", "--output", self.path("out.csv")])

    # 65: bad data

    def test_directory_as_model(self):
        os.makedirs(self.path("folder.h5"))
        self.fails(DATA, ["folder.h5", "folder"], self.job(model__base=self.path("folder.h5")))

    def test_truncated_model(self):
        for keep in (0.9, 0.5, 0.02, 0.0):
            with self.subTest(keep=keep):
                data = harness.read_bytes(self.model)
                with open(self.path("cut.h5"), "wb") as f:
                    f.write(data[:int(len(data) * keep)])
                self.fails(DATA, ["cut.h5"], self.job(model__base=self.path("cut.h5")))

    def test_not_hdf5(self):
        with open(self.path("text.h5"), "w") as f:
            f.write("this is no HDF5 file\n" * 100)
        self.fails(DATA, ["text.h5", "HDF5"], self.job(model__base=self.path("text.h5")))

    def test_wrong_shape(self):
        def change(f, config):
            del f["block1_conv2/block1_conv2/kernel:0"]
            f["block1_conv2/block1_conv2/kernel:0"] = np.zeros((3, 3, 8, 7), "f4")
        self.fails(DATA, ["block1_conv2", "3,3,8,7", "3,3,8,8"], self.job(model__base=self.network(change)))

    def test_nan_weight(self):
        def change(f, config):
            f["block2_conv1/block2_conv1/bias:0"][3] = np.nan
        self.fails(DATA, ["block2_conv1", "NaN"], self.job(model__base=self.network(change)))

    def test_infinite_weight(self):
        def change(f, config):
            f["fc1/fc1/kernel:0"][3, 3] = np.inf
        self.fails(DATA, ["fc1", "inf"], self.job(model__base=self.network(change)))

    def test_unknown_layer(self):
        net = Network("odd", (16, 16, 3))
        net.conv("conv1", 4)
        net.other("SpectralMixing", "mixing", {"rate": 3})
        net.flatten("flatten")
        net.dense("fc1", 3, "softmax")
        self.fails(DATA, ["SpectralMixing", "mixing"], self.job(model__base=net.save(self.path("odd.h5"))))

    def test_lambda_layer(self):
        net = Network("odd", (16, 16, 3))
        net.conv("conv1", 4)
        net.other("Lambda", "secret", {"function": ["4wEAAAAAAAAA", None, None], "function_type": "lambda"})
        net.flatten("flatten")
        net.dense("fc1", 3, "softmax")
        self.fails(DATA, ["Lambda", "secret"], self.job(model__base=net.save(self.path("odd.h5"))))

    def test_soft_link(self):
        def change(f, config):
            del f["fc1/fc1/bias:0"]
            f["fc1/fc1/bias:0"] = h5py.SoftLink("/model_weights/block1_conv1/block1_conv1/bias:0")
        self.fails(DATA, ["link", "fc1"], self.job(model__base=self.network(change)))

    def test_external_link(self):
        shutil.copy(self.model, self.path("other.h5"))

        def change(f, config):
            del f["fc1/fc1/bias:0"]
            f["fc1/fc1/bias:0"] = h5py.ExternalLink("other.h5", "/model_weights/fc1/fc1/bias:0")
        self.fails(DATA, ["link", "fc1"], self.job(model__base=self.network(change)))

    def test_config_is_no_json(self):
        path = self.path("bad.h5")
        shutil.copy(self.model, path)
        with h5py.File(path, "r+") as f:
            f.attrs["model_config"] = b'{"class_name": "Functional", "config": {'
        self.fails(DATA, ["bad.h5", "model_config"], self.job(model__base=path))

    def test_deep_json(self):
        path = self.path("bad.h5")
        shutil.copy(self.model, path)
        with h5py.File(path, "r+") as f:
            f.attrs["model_config"] = b'{"a":' * 100000
        self.fails(DATA, ["bad.h5"], self.job(model__base=path))

    def test_different_lengths(self):
        self.fails(DATA, ["12", "11"], self.job(data__train={"x": self.arrays + ":/x", "y": self.arrays + ":/short"}))

    def test_array_of_other_shape(self):
        self.fails(DATA, ["9", "16"], self.job(data__train={"x": self.arrays + ":/small", "y": self.arrays + ":/y"}))

    def test_empty_class(self):
        shutil.copytree(self.images, self.path("data"))
        shutil.rmtree(self.path("data", "b"))
        os.makedirs(self.path("data", "b"))
        self.fails(DATA, ["data/b"], self.job(data__train=self.path("data")))

    def damaged(self, suffix, damage):
        """A copy of the images with one file damaged; the message names that file."""
        shutil.copytree(self.images, self.path("data"))
        name = self.path("data", "b", "bad" + suffix)
        Image.fromarray(harness.image(1, np.random.default_rng(3), (64, 64)), "RGB").save(name)
        data = bytearray(harness.read_bytes(name))
        with open(name, "wb") as f:
            f.write(damage(data))
        self.fails(DATA, ["bad" + suffix], self.job(data__train=self.path("data")))

    def test_truncated_jpeg(self):
        self.damaged(".jpg", lambda data: data[:len(data) // 2])

    def test_corrupt_jpeg_header(self):
        self.damaged(".jpg", lambda data: data[:2] + b"\0" * 40 + data[42:])

    def test_truncated_png(self):
        self.damaged(".png", lambda data: data[:len(data) // 2])

    def test_corrupt_png(self):
        self.damaged(".png", lambda data: data[:60] + bytes(b ^ 0x5a for b in data[60:90]) + data[90:])

    def test_empty_image(self):
        self.damaged(".png", lambda data: b"")

    # 64: command line and job file

    def text(self, **changes):
        return json.dumps(self.job(**changes), indent=1)

    def test_no_command(self):
        self.fails(USAGE, ["help"], arguments=[])

    def test_unknown_command(self):
        self.fails(USAGE, ["trian", "train"], arguments=["trian", "job.yaml"])

    def test_unknown_option(self):
        path = harness.write_job(self.path("job.yaml"), self.job())
        self.fails(USAGE, ["--resum"], arguments=["train", path, "--resum", "never"])

    def test_yaml_does_not_parse(self):
        self.fails(USAGE, ["job.yaml:3"], "model:\n  base: small.h5\n freeze: [all\nstages: []\n")

    def test_typo_suggests_the_key(self):
        job = self.job()
        job["training"]["batch_sise"] = job["training"].pop("batch_size")
        self.fails(USAGE, ["batch_sise", "batch_size", "job.yaml:"], job)

    def test_typo_in_set(self):
        path = harness.write_job(self.path("job.yaml"), self.job())
        self.fails(USAGE, ["batch_sise", "batch_size"], arguments=["train", path, "--set", "training.batch_sise=3"])

    def test_unquoted_slice(self):
        text = self.text().replace('"before:fc1"', "[:-5]")
        self.assertIn("[:-5]", text)
        self.fails(USAGE, ["quote", "[:-5]", "job.yaml:"], text)

    def test_unknown_name_in_freeze(self):
        job = self.job()
        job["stages"][0]["freeze"] = ["block1_conv1", "block2_conv3"]
        self.fails(USAGE, ["block2_conv3", "block2_conv2"], job)

    def test_glob_without_match(self):
        job = self.job()
        job["stages"][0]["freeze"] = "glob:block9_*"
        self.fails(USAGE, ["glob:block9_*"], job)

    def test_slice_outside(self):
        job = self.job()
        job["stages"][0]["freeze"] = "[0:99]"
        self.fails(USAGE, ["99"], job)

    def test_one_unit_three_classes(self):
        net = Network("one", (16, 16, 3))
        net.conv("conv1", 4)
        net.flatten("flatten")
        net.dense("fc1", 1, "sigmoid")
        self.fails(USAGE, ["3", "softmax"], self.job(model__base=net.save(self.path("one.h5")),
                                                      training__loss="binary_crossentropy"))

    def test_batch_size_zero(self):
        self.fails(USAGE, ["batch_size", "0"], self.job(training__batch_size=0))

    def test_wrong_type(self):
        self.fails(USAGE, ["batch_size", "many"], self.job(training__batch_size="many"))

    def test_foreign_file_without_preprocess(self):
        self.fails(USAGE, ["preprocess", "caffe", "tf", "torch", "rescale", "none"], self.job(data__preprocess=None))

    def test_dense_head_on_map(self):
        job = self.job()
        job["model"]["output"] = "block2_pool"
        job["model"]["head"] = [{"Dense": {"units": 3, "activation": "softmax", "name": "top"}}]
        job["stages"][0]["freeze"] = "all"
        self.fails(USAGE, ["top", "Flatten"], job)

    def test_head_on_top(self):
        job = self.job()
        job["model"] = {"base": "vgg16", "weights": "none", "include_top": True,
                        "head": [{"Dense": {"units": 3, "activation": "softmax"}}]}
        job["data"].pop("preprocess")
        job["stages"][0]["freeze"] = "all"
        self.fails(USAGE, ["include_top", "head"], job)

    def test_freeze_all_without_head(self):
        job = self.job()
        job["stages"][0]["freeze"] = "all"
        self.fails(USAGE, ["[:-1]"], job)

    def test_freeze_is_required(self):
        job = self.job()
        del job["stages"][0]["freeze"]
        self.fails(USAGE, ["freeze"], job)

    # 73: the output cannot be created

    def test_output_below_a_file(self):
        with open(self.path("file"), "w") as f:
            f.write("x")
        self.fails(CREATE, ["file"], self.job(output=self.path("file", "run")))

    def test_predict_output_below_a_file(self):
        with open(self.path("file"), "w") as f:
            f.write("x")
        self.fails(CREATE, ["file"], arguments=["predict", self.model, self.images, "--preprocess", "rescale",
                                                "--output", self.path("file", "out.csv")])


if __name__ == "__main__":
    harness.main()
