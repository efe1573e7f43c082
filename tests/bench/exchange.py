#!/usr/bin/env python3
"""What the exchange costs on a slow network, overlapped and not:  THAW_BIN=build/thaw tests/bench/exchange.py   (root only)

    --rate 1gbit   --batch N (per rank)   --steps S   --rounds R   --size 150   --freeze before:block5_conv1   --threads T
    --exchange KIND[,KIND...] (default mpi,overlap; fp16: overlap with training.exchange_precision: fp16)

Two ranks of T threads in two network namespaces, joined by a cable that tc limits to --rate, train VGG16 with a small head on
random arrays (random weights, no cache). Rounds alternate between the kinds of exchange. Of each run the first epoch warms
up; printed are, of the second: images per second, the share of the time that ranks waited for the exchange, the share of the
gradient bytes whose sums were there before they were waited for, and the medians of all rounds. The last step of an epoch has
no next batch whose prefix would hide its exchange: of S steps, (S-1)/S is about the most. Each rank sends the gradient bytes
once a step; how long the cable takes for that at least is printed at the end. --rate: Ngbit or Nmbit.
"""
import argparse
import os
import statistics
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
import jobs  # noqa: E402
from cable import Cable  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--freeze", default="before:block5_conv1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--exchange", default="mpi,overlap")
    return parser.parse_args()


def train(folder, options, cable, kind, number):
    """One run; the second epoch's event and the step's seconds."""
    output = os.path.join(folder, "run-%d" % number)
    job = jobs.vgg16(folder, output, options.size, 2 * options.batch, options.freeze,
                     {"exchange_precision": "fp16" if kind == "fp16" else "fp32"},
                     exchange="overlap" if kind == "fp16" else kind)
    result = harness.run("train", harness.write_job(os.path.join(folder, "job.yaml"), job), prefix=cable.prefix(),
                         env={"OMP_NUM_THREADS": options.threads}, timeout=3600)
    if result.status != 0:
        sys.exit(str(result))
    return harness.events(output, "epoch")[1], harness.events(output, "stage")[0]["gradient_bytes"]


def main():
    options = arguments()
    kinds = options.exchange.split(",")
    with tempfile.TemporaryDirectory(prefix="thaw-bench-") as folder:
        cable = Cable(folder)
        try:
            reason = cable.reason or cable.limit(options.rate)
            if reason:
                sys.exit("exchange: skipped: " + reason)
            jobs.write_arrays(os.path.join(folder, "data.h5"), 2 * options.batch * options.steps, options.size)
            found = {kind: [] for kind in kinds}
            print("%-8s %10s %10s %12s %12s %10s" % ("exchange", "img/s", "s/step", "s waited", "wait share", "hidden"))
            for number in range(options.rounds * len(kinds)):
                kind = kinds[number % len(kinds)]
                epoch, gradient_bytes = train(folder, options, cable, kind, number)
                wait = epoch["phases"]["exchange_wait"] / epoch["steps"]
                row = (epoch["images_per_second"], epoch["seconds"] / epoch["steps"], wait,
                       wait * epoch["steps"] / epoch["seconds"], epoch["hidden_bytes"] / epoch["exchanged_bytes"])
                found[kind].append(row)
                print("%-8s %10.2f %10.4f %12.4f %12.3f %10.2f" % ((kind,) + row), flush=True)
            for kind in kinds:
                print("median of %d, %s: %.2f img/s, %.4f s a step, %.4f s of it waited (%.1f %%), %.0f %% of the bytes hidden" %
                      ((options.rounds, kind) + tuple(statistics.median(r[i] for r in found[kind]) * (100 if i > 2 else 1)
                                                      for i in range(5))))
            bits = float(options.rate[:-4]) * {"gbit": 1e9, "mbit": 1e6}[options.rate[-4:]]
            print("gradients %.1f MB a step; a wire of %s takes them in no less than %.3f s" %
                  (gradient_bytes / 1e6, options.rate, gradient_bytes * 8 / bits))
        finally:
            cable.remove()


if __name__ == "__main__":
    main()
