#!/usr/bin/env python3
"""Does the algorithm of convolutions matter for what is learned? tests/bench/seeds.py [--smoke]

    --seeds 1,2,3   --epochs 10   --freeze none   --conv auto,direct   --batch 32   --ranks 0   --markdown FILE

Fine-tunes the quickstart's network (weights/digits-vgg.h5, which knows the digits 0 to 4) on its other digits, once for each seed
and algorithm, and prints validation accuracy and loss after the last epoch. A seed changes the order of images and the new
layers' weights; the algorithm changes only the rounding. The difference between algorithms is set beside the spread over
seeds of the last algorithm: within it, the choice cannot be told from another seed.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import harness  # noqa: E402

QUICKSTART = os.path.join(harness.ROOT, "jobs", "quickstart")


def train(o, folder, seed, conv):
    run = os.path.join(folder, "%s-%d" % (conv, seed))
    data = os.path.join(QUICKSTART, "digits", "finetune")
    job = {"model": {"base": os.path.join(harness.ROOT, "weights", "digits-vgg.h5"), "output": "block3_pool",
                     "head": [{"Flatten": {}}, {"Dense": {"units": 64, "activation": "relu", "name": "fc1"}},
                              {"Dense": {"units": 5, "activation": "softmax", "name": "predictions"}}]},
           "data": {"train": os.path.join(data, "train"), "validation": os.path.join(data, "val"), "preprocess": "rescale"},
           "training": {"seed": seed, "batch_size": o.batch, "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
           "stages": [{"name": "finetune", "freeze": o.freeze, "epochs": o.epochs,
                       "optimizer": {"name": "adam", "learning_rate": 3e-4}}], "output": run}
    path = harness.write_job(os.path.join(folder, "job.yaml"), job)
    result = harness.run("train", path, "--conv", conv, ranks=o.ranks, timeout=3600,
                         env={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))})
    if result.status:
        sys.exit(str(result))
    kernels = harness.events(run, "start")[0]["kernels"]
    assert "convolution %s;" % conv in kernels, kernels
    last = harness.history(run)[-1]
    return last["val_accuracy"], last["val_loss"]


def algorithms(conv):
    """Layers of the quickstart's network by algorithm."""
    out = subprocess.run([harness.THAW, "bench", "--model", os.path.join(harness.ROOT, "weights", "digits-vgg.h5"), "--batch", "1",
                          "--repeat", "1", "--conv", conv, "--json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = {}
    for row in json.loads(out.stdout)["layers"]:
        if row["class"] == "Conv2D":
            found.setdefault(row["algorithm"], []).append(row["name"])
    return "; ".join("%s: %s" % (name, ", ".join(layers)) for name, layers in sorted(found.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--freeze", default="none")
    parser.add_argument("--conv", type=lambda text: text.split(","), default=["auto", "direct"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--ranks", type=int, default=0, help="0: without mpirun")
    parser.add_argument("--markdown", help="write the table to this file too")
    parser.add_argument("--smoke", action="store_true", help="two seeds, one epoch: does the script work")
    o = parser.parse_args()
    if len(o.conv) != 2:
        sys.exit("seeds.py: --conv takes two algorithms, e.g. auto,direct")
    if o.smoke:
        o.seeds, o.epochs = o.seeds[:2], 1
    if len(o.seeds) < 2:
        sys.exit("seeds.py: --seeds takes two or more: one has no spread")
    lines = []

    def say(text):
        lines.append(text)
        print(text, flush=True)

    for conv in o.conv:
        say("%s takes %s" % (conv, algorithms(conv)))
    say("")
    say("| seed | %s |" % " | ".join("%s accuracy | %s loss" % (conv, conv) for conv in o.conv))
    say("|---|%s" % ("---|" * 4))
    found = {conv: [] for conv in o.conv}
    with tempfile.TemporaryDirectory(prefix="thaw-seeds-") as folder:
        for seed in o.seeds:
            for conv in o.conv:
                found[conv].append(train(o, folder, seed, conv))
            say("| %d | %s |" % (seed, " | ".join("%.4f | %.6f" % found[conv][-1] for conv in o.conv)))
    say("")
    a, b = (found[conv] for conv in o.conv)
    for k, what in enumerate(("val_accuracy", "val_loss")):
        pairs = [x[k] - y[k] for x, y in zip(a, b)]
        spread = statistics.stdev(y[k] for y in b)
        between = abs(statistics.mean(pairs))
        say("%s after %d epochs: %s minus %s %+.6f on average, %.6f at most; standard deviation over seeds %.6f: %s" % (
            what, o.epochs, o.conv[0], o.conv[1], statistics.mean(pairs), max(map(abs, pairs)), spread,
            "within the noise of seeds" if between <= spread else "BEYOND the noise of seeds"))
    if o.markdown:
        with open(o.markdown, "w") as f:
            f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
