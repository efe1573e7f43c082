#!/usr/bin/env python3
"""What `training.reproducible: ranks` costs:  THAW_BIN=build/thaw tests/bench/reproducible.py

    --batch 32 (of a rank)   --ranks 1,2   --size 150   --plans late,everything   --steps 4   --epochs 5   --rounds 3
    --threads T (of a rank; all its cores)

VGG16 with a small head, random weights and arrays, no cache. One round trains with the mode and without. With one rank both run at
the same time, each on half of the cores, and once more with the halves changed: what disturbs the machine disturbs both. With more
they take turns. Of each run the first epoch warms up, and the median of the others counts; printed are medians over the rounds,
and the median of the rounds' ratios (least to most).
"""
import argparse
import concurrent.futures
import math
import os
import statistics
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import harness  # noqa: E402
import jobs  # noqa: E402

MODES = ("threads", "ranks")
FREEZE = {"head": "all", "late": "before:block5_conv1", "everything": "none"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--plans", default="late,everything")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def step(folder, o, ranks, plan, mode, cores):
    """Seconds of a step."""
    output = os.path.join(folder, "run-" + mode)
    job = jobs.vgg16(folder, output, o.size, o.batch * ranks, FREEZE[plan], {"reproducible": mode})
    job["stages"][0]["epochs"] = o.epochs
    bound = ["taskset", "-c", ",".join(str(core) for core in cores)]
    result = harness.run("train", harness.write_job(os.path.join(folder, mode + ".yaml"), job), "--resume", "never",
                         prefix=bound if ranks == 1 else harness.mpirun(ranks),
                         env={"OMP_NUM_THREADS": o.threads or max(1, len(cores) // ranks)}, timeout=3600)
    if result.status != 0:
        sys.exit(str(result))
    return statistics.median(epoch["seconds"] / epoch["steps"] for epoch in harness.events(output, "epoch")[1:])


def one_round(folder, o, ranks, plan):
    """Seconds of a step without the mode and with it."""
    cores = sorted(os.sched_getaffinity(0))
    if ranks > 1 or len(cores) < 2:
        return [step(folder, o, ranks, plan, mode, cores) for mode in MODES]
    halves, found = (cores[:len(cores) // 2], cores[len(cores) // 2:]), []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for turn in (halves, halves[::-1]):
            found.append(list(pool.map(lambda mode, half: step(folder, o, ranks, plan, mode, half), MODES, turn)))
    return [math.sqrt(a * b) for a, b in zip(*found)]


def main():
    o = arguments()
    counts = [int(r) for r in o.ranks.split(",")]
    with tempfile.TemporaryDirectory(prefix="thaw-bench-") as folder:
        jobs.write_arrays(os.path.join(folder, "data.h5"), o.batch * max(counts) * o.steps, o.size)
        print("| plan | ranks | images a rank | s a step | with reproducible: ranks | cost (least to most) |")
        print("|---|---|---|---|---|---|")
        for plan in o.plans.split(","):
            for ranks in counts:
                found = [one_round(folder, o, ranks, plan) for _ in range(o.rounds)]
                costs = sorted(100 * (b / a - 1) for a, b in found)
                print("| %s | %d | %d | %.3f | %.3f | %+.1f %% (%+.1f to %+.1f) |" % (
                    plan, ranks, o.batch, statistics.median(a for a, _ in found), statistics.median(b for _, b in found),
                    statistics.median(costs), costs[0], costs[-1]), flush=True)


if __name__ == "__main__":
    main()
