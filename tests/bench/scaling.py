#!/usr/bin/env python3
"""Two ranks beside one, thaw beside PyTorch:  THAW_BIN=build/thaw tests/bench/scaling.py --torch PYTHON   (root for the wire)

    --torch PYTHON (left out without)   --batch 16 (over all ranks)   --size 150   --steps 7   --rounds 3   --threads 1 (a rank)
    --plans head,late,everything   --networks memory,wire   --rate 1gbit (of the wire)   --exchange auto,mpi (also: overlap, fp16)
    --markdown FILE   --smoke

VGG16 with a small head, random weights and images, no cache; 2 ranks of T threads against 1 rank of T threads, the same batch
over all ranks. Over shared memory, and between two network namespaces that tc limits to --rate. Programs take turns, on the same
cores, of which each rank has its own; figures are medians over the rounds. gain: images/s of 2 ranks over 1 rank. thaw sums
gradients while it runs the frozen prefix of the next batch ahead; with `exchange: mpi` it calls MPI_Allreduce and does not.
PyTorch: DistributedDataParallel on gloo, channels_last; its waiting is inside of its backward pass and not known. --smoke: small,
figures mean nothing.
"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import harness  # noqa: E402
from cable import Cable  # noqa: E402

OWN_CORES = {"OMPI_MCA_mpi_yield_when_idle": "0"} # as Open MPI has it where ranks are not more than cores; tests may be
SPECS = {"head": "all", "late": "before:block5_conv1", "everything": "none"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plans", default="head,late,everything")
    parser.add_argument("--exchange", default="auto,mpi")
    parser.add_argument("--networks", default="memory,wire")
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--markdown")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.size, options.steps, options.rounds, options.batch = 32, 2, 1, 4
    options.plans, options.networks = options.plans.split(","), options.networks.split(",")
    options.exchange = options.exchange.split(",")
    if not set(options.plans) <= set(SPECS) or not set(options.networks) <= {"memory", "wire"}:
        parser.error("plans are head, late, everything; networks are memory, wire")
    return options


def cores(options, rank):
    """Those of a rank, as on a cluster: left alone, the kernel has both ranks on one core for a while now and then."""
    return "%d-%d" % (rank * options.threads, (rank + 1) * options.threads - 1)


def thaw(options, plan, exchange, cable):
    """Points of 1 and 2 ranks: images/s, share of the step waited, share of the gradients hidden."""
    own = ["sh", "-c", 'case $OMPI_COMM_WORLD_RANK in 0) cores=%s;; *) cores=%s;; esac; exec taskset -c $cores "$@"' % (
        cores(options, 0), cores(options, 1)), "sh"]
    result = harness.run("bench", "--scaling", "--strong", "--model", "vgg16", "--no-top", "--input-shape",
                         "%d,%d,3" % (options.size, options.size), "--batch", options.batch, "--threads", options.threads,
                         "--repeat", options.steps, "--freeze", "%s=%s" % (plan, SPECS[plan]), "--exchange", exchange, "--json",
                         prefix=(cable.prefix() if cable else harness.mpirun(2)) + own, env=OWN_CORES, timeout=3600)
    if result.status != 0:
        sys.exit(str(result))
    return [(p["images_per_second"], p["wait_share"], p["hidden_share"]) for p in result.json["points"]]


def free_port():
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


def torch(options, plan, ranks, cable):
    """Images/s of PyTorch."""
    port, address = free_port(), "10.77.0.1" if cable else "127.0.0.1"
    started = []
    for rank in range(ranks):
        space = ["ip", "netns", "exec", cable.b if rank else cable.a] if cable else []
        device = ("cable-b" if rank else "cable-a") if cable else "lo"
        env = dict(os.environ, OMP_NUM_THREADS=str(options.threads), OMP_WAIT_POLICY="passive", GLOO_SOCKET_IFNAME=device,
                   CUDA_VISIBLE_DEVICES="")
        started.append(subprocess.Popen(
            space + ["taskset", "-c", cores(options, rank), options.torch, os.path.join(HERE, "peers", "torch_ddp.py")] +
            [str(a) for a in (rank, ranks, address, port, options.threads, plan, options.batch, options.size, options.steps)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=env))
    try:
        outs = [process.communicate(timeout=3600) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, err) in zip(started, outs):
        if process.returncode != 0:
            sys.exit("torch_ddp.py: " + err)
    got = json.loads(outs[0][0].splitlines()[-1])
    torch.version = got["version"]
    return options.batch / statistics.median(got["seconds"])


def measure(options, plan, cable):
    """One round: name -> (images/s of 1 rank, of 2, share waited, share hidden); None: not known."""
    rows = {}
    for exchange in options.exchange:
        name = "thaw" if exchange == "auto" else "thaw, exchange: " + exchange
        one, two = thaw(options, plan, exchange, cable)
        rows[name] = (one[0], two[0], two[1], two[2])
    if options.torch:
        rows["PyTorch"] = (torch(options, plan, 1, cable), torch(options, plan, 2, cable), None, None)
    return rows


def percent(values):
    return "" if None in values else "%.1f %%" % (100.0 * statistics.median(values))


def main():
    options = arguments()
    table = ["| network | plan | program | images/s, 1 rank | 2 ranks | gain (least to most) | waited | hidden |",
             "|---|---|---|---|---|---|---|---|"]
    print("\n".join(table), flush=True)
    with tempfile.TemporaryDirectory(prefix="thaw-bench-") as folder:
        for network in options.networks:
            cable = Cable(folder) if network == "wire" else None
            try:
                reason = cable and (cable.reason or cable.limit(options.rate))
                if reason:
                    print("scaling: no wire: " + reason, file=sys.stderr)
                    continue
                for plan in options.plans:
                    rounds = [measure(options, plan, cable) for _ in range(options.rounds)]
                    for name in rounds[0]:
                        one, two, waited, hidden = zip(*[r[name] for r in rounds])
                        gains = sorted(b / a for a, b in zip(one, two))
                        label = "PyTorch %s, DDP" % torch.version if name == "PyTorch" else name
                        table.append("| %s | %s | %s | %.2f | %.2f | %.2f (%.2f to %.2f) | %s | %s |" % (
                            options.rate if cable else "shared memory", plan, label, statistics.median(one),
                            statistics.median(two), statistics.median(gains), gains[0], gains[-1], percent(waited),
                            percent(hidden)))
                        print(table[-1], flush=True)
            finally:
                if cable:
                    cable.remove()
    if options.markdown:
        with open(options.markdown, "w") as f:
            f.write("\n".join(["VGG16 at %d, %d images over all ranks, %d thread%s a rank, median of %d rounds of %d steps." % (
                options.size, options.batch, options.threads, "" if options.threads == 1 else "s", options.rounds,
                options.steps), ""] + table) + "\n")


if __name__ == "__main__":
    main()
