#!/usr/bin/env python3
"""Epochs with the boundary cache: tests/bench/cache.py [--keras PYTHON] [--rounds R]

    --keras PYTHON   a Python with Keras 3 and TensorFlow; without it thaw is compared with itself alone
    --images N (2000)   --shape S (224)   --batch N (32)   --threads T (all cores)   --rounds R (3)   --keras-steps N (5)
    --only PLAN (repeatable)   --dir FOLDER (for images and rows, some 2 GB)   --markdown FILE

VGG16 with random weights and two classes of generated JPEG images. Plans: head-flatten (base frozen, Flatten + Dense 256 +
Dense 1), head-gap (GlobalAveragePooling2D instead of Flatten), late (block5 trains too, head as head-flatten). Each round
times, in turn, on the same cores:
- Keras, uncached: train_on_batch on images that are decoded and in memory, the median of --keras-steps steps times the
  steps of an epoch; reading and decoding are not counted;
- thaw, uncached (cache: off): an epoch, images read and decoded each time;
- thaw, cached: the median of three epochs behind the one that computed the rows, which are in a file (so that rounds can
  use them again).
SGD with momentum in all. Figures are medians over the rounds; ratios are medians of the rounds' ratios, with least and most.
"""
import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "peers"))
PLANS = ("head-flatten", "head-gap", "late")
LATE = "block5_conv1"


def serve(threads, shape):
    """The loop of the Keras process: one step of a plan, timed (see peers/networks.py)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import numpy as np
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras
    import networks

    def prepare(_, plan, batch):
        keras.utils.clear_session()
        base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(shape, shape, 3))
        names = [layer.name for layer in base.layers]
        first = names.index(LATE) if plan == "late" else len(names)
        for i, layer in enumerate(base.layers):
            layer.trainable = i >= first
        squash = keras.layers.GlobalAveragePooling2D if plan == "head-gap" else keras.layers.Flatten
        model = keras.Sequential([base, squash(), keras.layers.Dense(256, activation="relu"),
                                  keras.layers.Dense(1, activation="sigmoid")])
        model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "binary_crossentropy", metrics=["accuracy"])
        rng = np.random.default_rng(1)
        x, y = rng.uniform(-1, 1, (batch, shape, shape, 3)).astype("f4"), rng.integers(0, 2, (batch, 1))
        return lambda: model.train_on_batch(x, y)

    networks.serve(prepare)


def make_images(root, count, shape):
    """Two class folders of JPEG images about as large as the network's input. Returns root."""
    import harness
    import numpy as np
    from PIL import Image
    rng = np.random.default_rng(1)
    for i in range(count):
        folder = os.path.join(root, "ab"[i % 2])
        os.makedirs(folder, exist_ok=True)
        size = [int(n) for n in rng.integers(shape - shape // 8, shape + shape // 4, 2)]
        Image.fromarray(harness.image(i % 2, rng, size), "RGB").save(os.path.join(folder, "%05d.jpg" % i), quality=90)
    return root


class Thaw:
    """Runs of one plan in a folder of its own."""

    def __init__(self, plan, images, options, folder):
        self.folder, self.options, self.runs = folder, options, 0
        squash = "GlobalAveragePooling2D" if plan == "head-gap" else "Flatten"
        self.job = {
            "model": {"base": "vgg16", "weights": "none", "input_shape": [options.shape, options.shape, 3],
                      "head": [squash, {"Dense": {"units": 256, "activation": "relu"}},
                               {"Dense": {"units": 1, "activation": "sigmoid"}}]},
            "data": {"train": images},
            "training": {"batch_size": options.batch, "metrics": ["accuracy"]},
            "stages": [{"freeze": "before:" + LATE if plan == "late" else "all",
                        "optimizer": {"name": "sgd", "learning_rate": 1e-4, "momentum": 0.9}}],
            "checkpoint": {"every_epochs": 0, "every_minutes": 0}}

    def run(self, cache, epochs):
        """Trains and returns the events of its epochs and what it said of its cache."""
        import harness
        output = os.path.join(self.folder, "run")
        shutil.rmtree(output, ignore_errors=True)
        job = dict(self.job, cache=cache, output=output, stages=[dict(self.job["stages"][0], epochs=epochs)])
        result = harness.run("train", harness.write_job(os.path.join(self.folder, "job.yaml"), job), timeout=None,
                             env={"OMP_NUM_THREADS": self.options.threads})
        if result.status != 0:
            raise RuntimeError(str(result))
        return harness.events(output, "epoch"), harness.events(output, "stage")[0]["cache"]

    def cached(self, epochs):
        return self.run({"mode": "file", "dir": os.path.join(self.folder, "rows")}, epochs)

    def fill(self):
        """Computes the rows; seconds of the epoch that does."""
        return self.cached(1)[0][0]["seconds"]

    def cached_seconds(self):
        events, note = self.cached(4)
        for e in events:
            if e["cache"] != {"mode": "file", "loaded": self.options.images, "computed": 0}:
                raise RuntimeError("the epoch was not cached: %s, %s" % (e["cache"], note["note"]))
        return statistics.median(e["seconds"] for e in events[1:]), note["note"]

    def uncached_seconds(self):
        return self.run("off", 1)[0][0]["seconds"]


def spread(values):
    return "%.1f (%.1f to %.1f)" % (statistics.median(values), min(values), max(values))


def seconds(values):
    return "%.3g s" % statistics.median(values) if values else "-"


def measure(plan, images, keras, options, folder):
    """One line of the table."""
    steps = -(-options.images // options.batch)
    thaw = Thaw(plan, images, options, folder)
    first = thaw.fill()
    theirs, uncached, cached = [], [], []
    if keras:
        keras.prepare("vgg16", plan, options.batch)
    for _ in range(options.rounds):
        if keras:
            one = [keras.seconds("vgg16", plan, options.batch) for _ in range(options.keras_steps)]
            theirs.append(statistics.median(one) * options.images / options.batch)
        uncached.append(thaw.uncached_seconds())
        mine, note = thaw.cached_seconds()
        cached.append(mine)
    estimate = re.search(r"costs? (1/[0-9.]+)", note)
    return "| %s | %s | %s | %.3g s | %s | %s | %s | %s |" % (
        plan, seconds(theirs), seconds(uncached), first, "%.1f ms" % (1e3 * statistics.median(cached) / steps) + " a step, " +
        seconds(cached), spread([a / b for a, b in zip(theirs, cached)]) if keras else "-",
        spread([a / b for a, b in zip(uncached, cached)]), estimate.group(1) if estimate else "-")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--shape", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keras-steps", type=int, default=5)
    parser.add_argument("--only", action="append", choices=PLANS)
    parser.add_argument("--dir")
    parser.add_argument("--markdown")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.threads, options.shape)
    sys.path.insert(0, os.path.join(HERE, "..", "support"))
    from run import Peer, version
    folder = tempfile.mkdtemp(prefix="thaw-cache-", dir=options.dir)
    keras, name = None, "Keras"
    try:
        if options.keras:
            name = "Keras " + version(options.keras, "import keras; print(keras.__version__)")
            keras = Peer(name, [options.keras, os.path.abspath(__file__), "--serve", "--threads", str(options.threads),
                                "--shape", str(options.shape)], options.threads)
        images = make_images(os.path.join(folder, "images"), options.images, options.shape)
        lines = ["VGG16 at %d, random weights, %d JPEG images, batch %d, %d threads: seconds of an epoch, median of %d rounds in "
                 "turn." % (options.shape, options.images, options.batch, options.threads, options.rounds)]
        if keras:
            lines.append("%s: %d steps a round on decoded images in memory, scaled to the epoch." % (name, options.keras_steps))
        lines += ["", "| plan | %s, uncached | thaw, uncached | thaw, epoch that computes | thaw, cached | %s / cached (least to "
                  "most) | thaw uncached / cached | said before |" % (name, name), "|---" * 8 + "|"]
        for plan in options.only or PLANS:
            own = os.path.join(folder, plan)
            os.makedirs(own)
            lines.append(measure(plan, images, keras, options, own))
            print(lines[-1], flush=True)
            shutil.rmtree(own)
    finally:
        if keras:
            keras.process.kill()
            keras.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    text = "\n".join(lines) + "\n"
    print("\n" + text)
    if options.markdown:
        with open(options.markdown, "w") as f:
            f.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
