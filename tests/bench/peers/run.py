#!/usr/bin/env python3
"""thaw beside Keras and PyTorch on the same cores, in one run: tests/bench/peers/run.py --keras PYTHON [--torch PYTHON]

    --keras PYTHON   a Python with Keras 3 and TensorFlow      --torch PYTHON   a Python with PyTorch (left out without)
    --batch N (16)   --threads T (all cores)   --rounds R (5)   --only NETWORK[:PLAN] (repeatable)   --markdown FILE

Each round times one run of every program in turn, so that all see the same neighbours on a shared machine. A figure is the
median over the rounds in images per second; the ratio is thaw to the better peer, as the median of the rounds' ratios. Plans:
forward (inference), head (base frozen), late (last block trains), everything. Same batch, same network, SGD with momentum,
batch norm by moving statistics in all programs; thaw without cache.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from networks import NETWORKS, plans_of

HERE = os.path.dirname(os.path.abspath(__file__))
THAW = os.path.abspath(os.environ.get("THAW_BIN", os.path.join(HERE, "..", "..", "..", "build", "thaw")))


class Peer:
    def __init__(self, name, command, threads):
        self.name = name
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="passive", CUDA_VISIBLE_DEVICES="")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=HERE)

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise RuntimeError("%s ended" % self.name)
        return answer

    def prepare(self, network, plan, batch):
        if self.ask("%s %s %d" % (network, plan, batch)) != "ready":
            raise RuntimeError(self.name)

    def seconds(self, network, plan, batch):
        return float(self.ask("go"))


class Thaw:
    name = "thaw"

    def __init__(self, threads):
        self.threads = threads

    def prepare(self, network, plan, batch):
        pass

    def seconds(self, network, plan, batch):
        name, _, size, late = NETWORKS[network]
        freeze = {"forward": "all", "head": "all", "late": "before:%s" % late, "everything": "none"}[plan]
        out = subprocess.run([THAW, "bench", "--model", name, "--no-top", "--input-shape", "%d,%d,3" % (size, size), "--batch",
                              str(batch), "--threads", str(self.threads), "--repeat", "3", "--freeze", freeze, "--json"],
                             check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return json.loads(out.stdout)["forward" if plan == "forward" else "step"]["seconds"]


def version(python, code):
    return subprocess.run([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=True).stdout.split("\n")[-2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras", required=True)
    parser.add_argument("--torch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--markdown")
    options = parser.parse_args()
    threads = str(options.threads)
    folder = tempfile.mkdtemp(prefix="thaw-peers-")
    peers = [Peer("Keras " + version(options.keras, "import keras; print(keras.__version__)"),
                  [options.keras, "keras_peer.py", threads], options.threads)]
    if options.torch:
        for network in NETWORKS:
            with open(os.path.join(folder, network + ".json"), "w") as f:
                subprocess.run([options.keras, "keras_peer.py", "--graph", network], check=True, cwd=HERE, stdout=f,
                               stderr=subprocess.DEVNULL)
        peers.append(Peer("PyTorch " + version(options.torch, "import torch; print(torch.__version__)"),
                          [options.torch, "torch_peer.py", threads, folder], options.threads))
    programs = peers + [Thaw(options.threads)]
    table = ["| network | plan | %s | thaw | thaw / better (least to most) |" % " | ".join(p.name for p in peers),
             "|---|---|%s---|---|" % ("---|" * len(peers))]
    for network in NETWORKS:
        for plan in plans_of(network):
            if options.only and network not in options.only and "%s:%s" % (network, plan) not in options.only:
                continue
            for program in programs:
                program.prepare(network, plan, options.batch)
            rates = {p.name: [] for p in programs}
            for _ in range(options.rounds):
                for program in programs:
                    rates[program.name].append(options.batch / program.seconds(network, plan, options.batch))
            ratios = sorted(mine / max(rates[p.name][i] for p in peers) for i, mine in enumerate(rates["thaw"]))
            table.append("| %s | %s | %s | %.2f (%.2f to %.2f) |" % (
                network, plan, " | ".join("%.2f" % statistics.median(rates[p.name]) for p in programs),
                statistics.median(ratios), ratios[0], ratios[-1]))
            print(table[-1], flush=True)
    text = "\n".join(["Images per second, batch %d, %d threads, median of %d interleaved rounds." % (
        options.batch, options.threads, options.rounds), ""] + table) + "\n"
    print("\n" + text)
    if options.markdown:
        with open(options.markdown, "w") as f:
            f.write(text)


if __name__ == "__main__":
    sys.exit(main())
