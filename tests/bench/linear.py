#!/usr/bin/env python3
"""Does cost grow linearly? tests/bench/linear.py [--smoke]

    --images 250,500,1000,2000   sizes of the training set    --batches 1,2,4,8,16,32,64   images of a step
    --model vgg16   --size 64   --freeze before:block5_conv1   --threads 2   --rounds 5   --markdown FILE
    --tables epochs,batches,threads
    --smoke         16, 32 and 64 images, batches 1 to 4, one round: does the script work

Three tables: seconds of an epoch (thaw train, PNG files, cache off; the fastest of `rounds` epochs behind the first) over the
number of images; seconds of a step and of a forward pass (thaw bench) over the batch; and what `--threads` threads gain over
one, beside what multiply-adds alone (the probe of thaw bench) gain on the same threads, rounds alternating. Lines are fitted by
least squares on relative errors; "off" is how far a point lies from its line. At the default size, chosen for short epochs, maps of
the last block have 4x4 cells, and reading its weights is a large part of a step: for what threads gain take a network's own size
(`--tables threads --size 224 --batch 16`).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import harness  # noqa: E402

TARGET = 0.93  # of the probe's gain


def thaw(*arguments, threads):
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), LC_ALL="C.UTF-8")
    done = subprocess.run([harness.THAW] + [str(a) for a in arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=env)
    if done.returncode:
        sys.exit("%s\nended with status %d: %s" % (" ".join(done.args), done.returncode, done.stderr.strip()))
    return done.stdout


def bench(o, batch, threads):
    return json.loads(thaw("bench", "--model", o.model, "--no-top", "--input-shape", "%d,%d,3" % (o.size, o.size), "--freeze",
                           o.freeze, "--batch", batch, "--repeat", o.repeat, "--threads", threads, "--json", threads=threads))


def epoch_seconds(o, folder, images):
    """Seconds of the fastest epoch but the first, which starts threads and touches memory."""
    data = harness.make_folders(os.path.join(folder, "data%d" % images), {"a": images - images // 2, "b": images // 2},
                                size=(o.size, o.size))
    run = os.path.join(folder, "run%d" % images)
    job = {"model": {"base": o.model, "weights": "none", "include_top": False, "input_shape": [o.size, o.size, 3],
                     "head": [{"GlobalAveragePooling2D": {}}, {"Dense": {"units": 2, "activation": "softmax"}}]},
           "data": {"train": data, "preprocess": "auto"}, "cache": "off",
           "training": {"seed": 1, "batch_size": o.batch, "loss": "categorical_crossentropy"},
           "stages": [{"name": "late", "freeze": o.freeze, "epochs": o.rounds + 1, "batch_norm_statistics": "moving",
                       "optimizer": {"name": "sgd", "learning_rate": 1e-6}}], "output": run}
    thaw("train", harness.write_job(os.path.join(folder, "job%d.yaml" % images), job), threads=o.threads)
    events = harness.events(run, "epoch")
    assert all(e["images"] == images for e in events), "an epoch of another size"
    return min(e["seconds"] for e in events[1:])


def line(x, y):
    """y = a + b x by least squares on relative errors; a, b, and each point's distance in percent."""
    x, y = np.array(x, float), np.array(y, float)
    a, b = np.linalg.lstsq(np.stack([1 / y, x / y], 1), np.ones(len(x)), rcond=None)[0]
    return a, b, 100 * (y / (a + b * x) - 1)


class Report:
    def __init__(self):
        self.lines = []

    def say(self, text=""):
        self.lines.append(text)
        print(text, flush=True)

    def table(self, head, rows):
        self.say("| %s |" % " | ".join(head))
        self.say("|%s" % ("---|" * len(head)))
        for row in rows:
            self.say("| %s |" % " | ".join(row))
        self.say()


def show_epochs(o, report):
    with tempfile.TemporaryDirectory(prefix="thaw-linear-") as folder:
        seconds = [epoch_seconds(o, folder, n) for n in o.images]
    a, b, off = line(o.images, seconds)
    report.say("Epoch over images (%s at %dx%d, freeze %s, batch %d, %d threads, cache off): %.3f s + %.3f ms an image, largest "
               "distance %.1f %%" % (o.model, o.size, o.size, o.freeze, o.batch, o.threads, a, 1e3 * b, max(abs(off))))
    report.say()
    report.table(["images", "epoch s", "ms an image", "off %"],
                 [["%d" % n, "%.3f" % s, "%.3f" % (1e3 * s / n), "%+.1f" % d] for n, s, d in zip(o.images, seconds, off)])


def show_batches(o, report):
    found = [bench(o, batch, o.threads) for batch in o.batches]
    rows = []
    for part in ("forward", "step"):
        a, b, off = line(o.batches, [f[part]["seconds"] for f in found])
        report.say("%s over batch: %.2f ms + %.3f ms an image, largest distance %.1f %%" % (
            part.capitalize(), 1e3 * a, 1e3 * b, max(abs(off))))
        rows.append(["%+.1f" % d for d in off])
    report.say()
    report.table(["batch", "forward ms", "ms an image", "off %", "step ms", "(least to most)", "ms an image", "off %"],
                 [["%d" % n, "%.2f" % (1e3 * f["forward"]["seconds"]), "%.3f" % (1e3 * f["forward"]["seconds"] / n), forward,
                   "%.2f" % (1e3 * f["step"]["seconds"]), "%.2f to %.2f" % (1e3 * f["step"]["min"], 1e3 * f["step"]["max"]),
                   "%.3f" % (1e3 * f["step"]["seconds"] / n), step]
                  for n, f, forward, step in zip(o.batches, found, *rows)])


def show_threads(o, report):
    gains = {"probe": [], "forward": [], "step": []}
    for _ in range(o.rounds):
        one, many = bench(o, o.batch, 1), bench(o, o.batch, o.threads)
        gains["probe"].append(many["peak"]["gflop_per_second"] / one["peak"]["gflop_per_second"])
        for part in ("forward", "step"):
            gains[part].append(many[part]["images_per_second"] / one[part]["images_per_second"])
    report.say("%d threads against 1, batch %d, median of %d rounds (least to most); %d cores" % (
        o.threads, o.batch, o.rounds, len(os.sched_getaffinity(0))))
    report.say()
    rows = []
    for part, label in (("probe", "multiply-adds alone"), ("forward", "forward"), ("step", "step")):
        ratios = sorted(g / p for g, p in zip(gains[part], gains["probe"]))
        ratio = statistics.median(ratios)
        rows.append([label, "%.3f (%.3f to %.3f)" % (statistics.median(gains[part]), min(gains[part]), max(gains[part])),
                     "%.3f (%.3f to %.3f)" % (ratio, ratios[0], ratios[-1]),
                     "" if part == "probe" else "yes" if ratio >= TARGET else "no"])
    report.table(["what", "gain", "share of the probe's gain", "at least %.2f" % TARGET], rows)


def main():
    numbers = lambda text: [int(n) for n in text.split(",")]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=numbers, default=[250, 500, 1000, 2000])
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--freeze", default="before:block5_conv1")
    parser.add_argument("--batch", type=int, default=25, help="of the epochs and of the threads' table")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=7, help="measured runs of one thaw bench")
    parser.add_argument("--markdown", help="write the tables to this file too")
    parser.add_argument("--tables", default="epochs,batches,threads")
    parser.add_argument("--smoke", action="store_true")
    o = parser.parse_args()
    if o.smoke:
        o.images, o.batches, o.batch, o.rounds, o.repeat = [16, 32, 64], [1, 2, 4], 8, 1, 1
    report = Report()
    for table in o.tables.split(","):
        {"epochs": show_epochs, "batches": show_batches, "threads": show_threads}[table](o, report)
    if o.markdown:
        with open(o.markdown, "w") as f:
            f.write("\n".join(report.lines) + "\n")


if __name__ == "__main__":
    main()
