#!/usr/bin/env python3
"""Writes operations.csv: seconds of every operation of a training step, from `thaw bench --json` on this machine.

    make_table.py [--threads 2] [--batch 32] [--repeat 5] [--runs 1] [--from FOLDER]    (on a quiet machine; some minutes)

Columns: plan, phase, layer, seconds (of the whole batch: median of repetitions, least of runs), floats, payload: of the bucket of gradients that is complete
with this operation, in the order in which backward completes them, by the rule of src/graph/plan.c. The row "network" has the
images of the batch, and all floats of the network. --from reads <plan>*.json that were written before, one for each run.
"""
import argparse
import csv
import glob
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
THAW = os.environ.get("THAW_BIN", os.path.join(ROOT, "build", "thaw"))
PLANS = {"vgg16-head": ("vgg16", "all"), "vgg16-late": ("vgg16", "before:block5_conv1"), "vgg16-everything": ("vgg16", "none"),
         "resnet50-late": ("resnet50", "before:conv5_block1_1_conv"), "resnet50-everything": ("resnet50", "none")}
ALIGN = 16  # floats: tensors begin on cache lines


def bucket_floats():
    with open(os.path.join(ROOT, "src", "graph", "plan.c")) as f:
        return 1 << int(re.search(r"#define BUCKET_FLOATS \(\(size_t\)1 << (\d+)\)", f.read()).group(1))


def run(*arguments):
    return json.loads(subprocess.run([THAW] + list(arguments), check=True, stdout=subprocess.PIPE).stdout)


def tensors(layer, known):
    """Floats of a layer's trained tensors."""
    if layer["name"] not in known:  # the head that bench adds: Dense(10) on pooled features
        return [known["features"] * 10, 10] if layer["class"] == "Dense" else []
    params, outputs = known[layer["name"]], layer["output_shape"][-1]
    if layer["class"] == "BatchNormalization":
        return [outputs, outputs]
    return [params - outputs, outputs] if params else []


def least(runs):
    """One measurement of several: the least seconds of each operation."""
    first = runs[0]
    for other in runs[1:]:
        for a, b in zip(first["layers"], other["layers"]):
            for name in ("step_forward_seconds", "step_backward_seconds"):
                a[name] = min(a[name], b[name])
        for name in ("loss", "update"):
            first["step"]["phases"][name] = min(first["step"]["phases"][name], other["step"]["phases"][name])
    return first


def rows(plan, measured, known, bucket):
    layers, phases = measured["layers"], measured["step"]["phases"]
    first = min(i for i, layer in enumerate(layers) if layer["trainable"] and tensors(layer, known))
    yield plan, "network", measured["model"], measured["batch"], sum(v for k, v in known.items() if k != "features") + \
        sum(sum(tensors(layer, known)) for layer in layers if layer["name"] not in known), 0
    for i, layer in enumerate(layers):
        if layer["step_forward_seconds"] > 0:
            yield plan, "prefix" if i < first else "forward", layer["name"], layer["step_forward_seconds"], 0, 0
    yield plan, "loss", "loss", phases["loss"], 0, 0
    floats = payload = total = 0
    backward = []
    for layer in reversed(layers[first:]):
        if layer["trainable"]:
            for count in tensors(layer, known):
                floats += -(-count // ALIGN) * ALIGN
                payload += count
        closes = layer["trainable"] and floats >= bucket
        if layer["step_backward_seconds"] > 0 or closes:
            backward.append([plan, "backward", layer["name"], layer["step_backward_seconds"], *((floats, payload) if closes else (0, 0))])
        if closes:
            total += payload
            floats = payload = 0
    if floats:
        backward[-1][4:] = [backward[-1][4] + floats, backward[-1][5] + payload]
        total += payload
    if 4 * total != measured["step"]["gradient_bytes"]:
        sys.exit("%s: %d bytes of gradients here, %d in thaw's plan" % (plan, 4 * total, measured["step"]["gradient_bytes"]))
    yield from backward
    yield plan, "update", "update", phases["update"], 0, 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default="2")
    parser.add_argument("--batch", default="32")
    parser.add_argument("--repeat", default="5")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--from", dest="folder")
    options = parser.parse_args()
    bucket = bucket_floats()
    with open(os.path.join(HERE, "operations.csv"), "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        for plan, (model, freeze) in PLANS.items():
            if options.folder:
                runs = []
                for name in sorted(glob.glob(os.path.join(options.folder, plan + "*.json"))):
                    with open(name) as stored:
                        runs.append(json.load(stored))
            else:
                runs = [run("bench", "--model", model, "--no-top", "--freeze", freeze, "--batch", options.batch, "--threads",
                            options.threads, "--repeat", options.repeat, "--json") for _ in range(options.runs)]
            measured = least(runs)
            listed = run("layers", model, "--no-top", "--json")["layers"]
            known = {layer["name"]: layer["params"] for layer in listed}
            known["features"] = listed[-1]["output_shape"][-1]
            if plan == next(iter(PLANS)):
                f.write("# %s, %s threads, %s; thaw bench; made by make_table.py\n" % (
                    measured["machine"], measured["threads"], measured["kernels"]))
                out.writerow(["plan", "phase", "layer", "seconds", "floats", "payload"])
            for row in rows(plan, measured, known, bucket):
                out.writerow([("%.6g" % v) if isinstance(v, float) else v for v in row])
            seconds = sum(layer["step_forward_seconds"] + layer["step_backward_seconds"] for layer in measured["layers"])
            print("%s: operations of %d images %.3f s" % (plan, measured["batch"], seconds), file=sys.stderr)


if __name__ == "__main__":
    main()
