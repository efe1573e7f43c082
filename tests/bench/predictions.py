#!/usr/bin/env python3
"""What `thaw plan` predicts beside what `thaw train` then needs:  THAW_BIN=build/thaw tests/bench/predictions.py

    --only WORD      cases whose name has this word (may be given again), e.g. --only vgg16/224 --only head
    --batch N        images of a step (default: 32; InceptionV3 16)
    --size S         another input size for all networks
    --steps N        training steps of an epoch (default: 4)
    --json FILE      the rows as JSON too

Each case is a network with random weights, one stage, two epochs over generated arrays, without cache. Memory is the peak
of the resident set: `memory_bytes_per_rank` of the plan beside `peak_memory_bytes` of the log, and what the kernel says of
the finished process. Seconds are those of a step: `seconds_per_step` of the plan beside the second epoch of the log. Prints
a Markdown table; ratios are predicted / measured. Run it on a machine that does nothing else.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POOLED = [{"GlobalAveragePooling2D": {}}, {"Dense": {"units": 10, "activation": "softmax", "name": "predictions"}}]
FLAT = [{"Flatten": {}}, {"Dense": {"units": 256, "activation": "relu", "name": "fc1"}}, {"Dropout": {"rate": 0.5}},
        {"Dense": {"units": 10, "activation": "softmax", "name": "predictions"}}]
# network: head, input sizes, batch, freeze of "late"
NETWORKS = {"vgg16": (FLAT, (224, 150), 32, "before:block5_conv1"),
            "resnet50": (POOLED, (224,), 32, "before:conv5_block1_1_conv"),
            "inceptionv3": (POOLED, (299,), 16, "before:mixed8")}


def cases(options):
    for name, (head, sizes, batch, late) in NETWORKS.items():
        for size in [options.size] if options.size else sizes:
            for plan, freeze in (("head", "all"), ("late", late), ("everything", "none")):
                title = "%s/%d/%s" % (name, size, plan)
                if not options.only or any(word in title for word in options.only):
                    yield title, name, size, options.batch or batch, head, freeze


def make_data(path, size, images):
    draw = np.random.default_rng(1)
    with h5py.File(path, "w") as f:
        f["x"] = draw.integers(0, 256, (images, size, size, 3), "u1")
        f["y"] = draw.integers(0, 10, images).astype("i4")


def make_job(folder, name, size, batch, head, freeze):
    arrays = os.path.join(folder, "data.h5")
    job = {"model": {"base": name, "weights": "none", "include_top": False, "input_shape": [size, size, 3], "head": head},
           "data": {"train": {"x": arrays + ":/x", "y": arrays + ":/y"}, "preprocess": "rescale"},
           "training": {"seed": 1, "batch_size": batch, "loss": "sparse_categorical_crossentropy"},
           "stages": [{"name": "stage", "freeze": freeze, "epochs": 2, "batch_norm_statistics": "moving",
                       "optimizer": {"name": "sgd", "learning_rate": 1e-5, "momentum": 0.9}}],
           "cache": {"mode": "off"}, "output": os.path.join(folder, "run")}
    path = os.path.join(folder, "job.yaml")
    with open(path, "w") as f:
        json.dump(job, f)  # JSON is YAML
    return path


def run(command):
    """Standard output and peak of the resident set in bytes."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=dict(os.environ, LC_ALL="C.UTF-8"))
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        err.seek(0)
        if status:
            sys.exit("%s: status %s\n%s" % (" ".join(command), status, err.read()))
        return out.read(), usage.ru_maxrss * 1024


def measure(thaw, steps, case):
    _, name, size, batch, head, freeze = case
    with tempfile.TemporaryDirectory() as folder:
        make_data(os.path.join(folder, "data.h5"), size, steps * batch)
        job = make_job(folder, name, size, batch, head, freeze)
        plan = json.loads(run([thaw, "plan", job, "--json"])[0])["stages"][0]
        _, maximum = run([thaw, "train", job])
        with open(os.path.join(folder, "run", "log.jsonl")) as f:
            log = [json.loads(line) for line in f]
    end = log[-1]
    epoch = [e for e in log if e["event"] == "epoch"][-1]
    return {"case": case[0], "batch": batch, "memory": plan["memory_bytes_per_rank"], "parts": plan["memory"],
            "peak": end.get("peak_memory_bytes"), "maximum": maximum, "seconds": plan.get("seconds_per_step"),
            "step": epoch["seconds"] / epoch["steps"]}


def ratio(a, b):
    return "%.3f" % (a / b) if a and b else "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json")
    options = parser.parse_args()
    thaw = os.environ.get("THAW_BIN", os.path.join(ROOT, "build", "thaw"))
    rows = []
    print("| case | batch | memory, predicted | peak | ratio | maximum of the process | s a step, predicted | measured | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases(options):
        r = measure(thaw, options.steps, case)
        rows.append(r)
        peak = r["peak"] or r["maximum"]
        print("| %s | %d | %.1f MB | %.1f MB | %s | %.1f MB | %s | %.3f | %s |" % (
            r["case"], r["batch"], r["memory"] / 1e6, peak / 1e6, ratio(r["memory"], peak), r["maximum"] / 1e6,
            "%.3f" % r["seconds"] if r["seconds"] else "-", r["step"], ratio(r["seconds"], r["step"])), flush=True)
    if options.json:
        with open(options.json, "w") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
