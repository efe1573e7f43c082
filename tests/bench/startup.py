#!/usr/bin/env python3
"""Starting many ranks:  THAW_BIN=build/thaw tests/bench/startup.py

    --ranks 1,2,4,8,16,32,64   --rounds 3   --markdown FILE   --smoke

VGG16 with its weights in a file (59 MB) and 1,000 images in folders, all but a head frozen. `start`: seconds from mpirun to the
stage's line in the log, which is written when every rank has its weights, its packed kernels and the list of images. `MPI`: a
program that begins thaw's communicator, which is MPI and who is on which host, and ends. Ranks beyond the machine's cores take
turns, so seconds grow with ranks here; what thaw adds for one rank must not, since no rank does something for each other one.
memory: of a rank, what ranks share counted by parts, as the log has it. Medians over the rounds.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import harness  # noqa: E402
from keras_file import Network  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,2,4,8,16,32,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--markdown")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.ranks, options.rounds, options.images = "1,2", 1, 20
    options.ranks = [int(r) for r in options.ranks.split(",")]
    return options


def write_model(path):
    """VGG16 without its classifier, for small images."""
    net = Network("vgg16", (32, 32, 3))
    for block, (convolutions, filters) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for i in range(convolutions):
            net.conv("block%d_conv%d" % (block, i + 1), filters)
        net.pool("block%d_pool" % block)
    return net.save(path)


def write_images(folder, n):
    pixels = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    for name in ("a", "b"):
        os.makedirs(os.path.join(folder, name))
        for i in range(n // 2):
            Image.fromarray(pixels).save(os.path.join(folder, name, "%05d.png" % i))
    return folder


def start(job, ranks, log):
    """Seconds to the stage's line, and bytes of a rank."""
    began = time.monotonic()
    process = harness.start(["train", job, "--set", "training.batch_size=%d" % ranks], ranks)
    reached = None
    while process.poll() is None and reached is None:
        time.sleep(0.01)
        if os.path.exists(log) and '"stage"' in harness.read_bytes(log).decode():
            reached = time.monotonic() - began
    result = harness.finish(process, 3600)
    if result.status != 0 or reached is None:
        sys.exit(str(result))
    with open(log) as f:
        memory = [json.loads(line) for line in f if '"memory"' in line]
    shutil.rmtree(os.path.dirname(log))
    return reached, memory[-1]["peak_memory_bytes"]


def alone(program, ranks):
    began = time.monotonic()
    subprocess.run(harness.mpirun(ranks) + [program, "start"], check=True, env=harness.environment(), stdin=subprocess.DEVNULL)
    return time.monotonic() - began


def main():
    options = arguments()
    table = ["| ranks | MPI, s | start, s | thaw's part for a rank, s | memory of a rank, MB |", "|---|---|---|---|---|"]
    print("\n".join(table), flush=True)
    with tempfile.TemporaryDirectory(prefix="thaw-bench-") as folder:
        program, run = os.path.join(os.path.dirname(harness.THAW), "tests", "comm_program"), os.path.join(folder, "run")
        job = harness.write_job(os.path.join(folder, "job.yaml"), {
            "model": {"base": write_model(os.path.join(folder, "vgg16.h5")),
                      "head": [{"Flatten": {}}, {"Dense": {"units": 2, "activation": "softmax"}}]},
            "data": {"train": write_images(os.path.join(folder, "images"), options.images), "preprocess": "caffe",
                     "validation_split": 0.9},
            "training": {"loss": "categorical_crossentropy", "batch_size": 1},
            "stages": [{"name": "head", "freeze": "before:flatten", "epochs": 1, "optimizer": {"name": "sgd"}}],
            "checkpoint": {"every_epochs": 0, "every_minutes": 0}, "cache": "off", "output": run})
        for ranks in options.ranks:
            rows = []
            for _ in range(options.rounds):
                mpi = alone(program, ranks)
                rows.append((mpi,) + start(job, ranks, os.path.join(run, "log.jsonl")))
            mpi, reached, memory = (statistics.median(c) for c in zip(*rows))
            table.append("| %d | %.2f | %.2f | %.3f | %.0f |" % (ranks, mpi, reached, (reached - mpi) / ranks, memory / 1e6))
            print(table[-1], flush=True)
    if options.markdown:
        with open(options.markdown, "w") as f:
            f.write("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
