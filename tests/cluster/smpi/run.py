#!/usr/bin/env python3
"""Predicts thaw's scaling to hundreds of hosts: its exchange on SimGrid's SMPI, with measured seconds in place of kernels.

    run.py [--hosts 4,16,64,256,512] [--network 100g,10g] [--plans ...] [--forms ...] [--scaling weak,strong] [--speed 16]
           [--sharing 4]

Prints Markdown and writes scaling.csv, scaling.md and scaling.svg in --out (default: results beside this file). Rows that
scaling.csv has already of the same operations.csv (with any --sharing) are not simulated again, so that a run goes on where one
was stopped; rows of another operations.csv are dropped. After changes of the code: --fresh. Needs smpicc and smpirun (Debian: libsimgrid-dev),
gcc and libxxhash.
"""
import argparse
import csv
import hashlib
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile

import fat_tree

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
TABLE = os.path.join(HERE, "operations.csv")
PLANS = ("vgg16-head", "vgg16-late", "vgg16-everything", "resnet50-late", "resnet50-everything")
FORMS = ("overlap", "operations", "backward", "ring", "ring-all")
SOURCES = ["tests/cluster/smpi/simulate.c", "tests/cluster/smpi/counting.c", "mpi/comm_mpi.c", "mpi/watch.c", "mpi/link.c",
           "mpi/word_sum.c", "mpi/exchange.c", "mpi/allreduce.c", "mpi/node_memory.c", "mpi/node_sum.c", "src/base/memory.c", "src/base/status.c",
           "src/base/hash.c", "src/base/clock.c", "src/base/half.c", "src/base/log.c"]
# Computing takes no simulated time but what is injected; a test takes none, polls are injected (POLL). Bandwidth and latency
# are the platform's but for 6 % of headers, instead of SimGrid's calibration of a cluster of its own. Links are full duplex and
# acknowledgements within those 6 %: without "crosstraffic" flows of one direction do not hang together with those of the other,
# which is 40 times faster at 16 hosts. At most SHARING flows share a link at once, further ones queue: several times faster at
# 64 hosts. Neither changed the seconds of a step there by more than 0.00001. No message is detached, for these make a list that is
# searched for each of them; "smpi/or" would be for them alone, so OVERHEAD stands for both ends of a message.
SETTINGS = {"smpi/simulate-computation": "no", "smpi/host-speed": "1Gf", "smpi/test": "0", "smpi/grow-injected-times": "no",
            "smpi/coll-selector": "ompi", "smpi/shared-malloc": "global", "smpi/shared-malloc-blocksize": "16777216",
            "smpi/or": "0:0:0", "smpi/send-is-detached-thresh": "0",
            "smpi/bw-factor": "0:0.94", "smpi/lat-factor": "0:1", "network/crosstraffic": "0"}
SHARING = 4
OVERHEAD = {"100g": "2e-6", "10g": "6e-6"}  # seconds of a rank for sending a message and receiving another
JITTER, SEED, POLL, EVERY = 0.02, 1, 2e-6, 5e-4
COLUMNS = ("scaling", "plan", "network", "hosts", "images", "speed", "form", "seconds", "images_per_second", "efficiency", "hidden",
           "wait_ms", "adding_ms", "polls", "messages", "bytes", "staging_bytes", "requests", "sharing", "table")


def table():
    """Of which operations.csv a row is."""
    with open(TABLE, "rb") as f:
        return hashlib.sha1(f.read()).hexdigest()[:8]


def spent():
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def available():
    return all(shutil.which(name) for name in ("smpicc", "smpirun"))


def build(folder):
    """Compiles simulate.c and thaw's exchange with smpicc; returns the program."""
    program = os.path.join(folder, "simulate")
    subprocess.run(["smpicc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-D_GNU_SOURCE",
                    "-Iinclude", "-Isrc", "-Impi", "-Itests/cluster/smpi", "-include", "tests/cluster/smpi/counting.h"] + SOURCES +
                   ["-o", program, "-lxxhash", "-lm"], cwd=ROOT, check=True)
    return program


def smpirun(program, hosts, network, arguments, sharing=SHARING, timeout=7200):
    """One simulation; returns the object that rank 0 prints."""
    folder = os.path.dirname(program)
    platform, names = os.path.join(folder, "%s-%d.xml" % (network, hosts)), os.path.join(folder, "hosts-%d" % hosts)
    with open(platform, "w") as f:
        f.write(fat_tree.platform(network, hosts))
    with open(names, "w") as f:
        f.writelines("node-%d\n" % i for i in range(hosts))
    settings = dict(SETTINGS, **{"smpi/ois": "0:0:0;1:%s:0" % OVERHEAD[network], "maxmin/concurrency-limit": str(sharing)})
    command = ["smpirun", "-np", str(hosts), "-platform", platform, "-hostfile", names, "--log=root.thres:error",
               "--cfg=smpi/tmpdir:" + folder]
    command += ["--cfg=%s:%s" % setting for setting in settings.items()] + [program] + [str(a) for a in arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=timeout)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or len(lines) != 1:
        raise RuntimeError("smpirun ended with %s: %s %s" % (done.returncode, done.stdout[-500:], done.stderr[-2000:]))
    return json.loads(lines[0])


def alone(plan, images, speed):
    """Seconds of a step of one host without jitter, by the table."""
    seconds = {}
    with open(TABLE) as f:
        for row in csv.DictReader(line for line in f if not line.startswith("#")):
            if row["plan"] == plan:
                seconds[row["phase"]] = seconds.get(row["phase"], 0.0) + float(row["seconds"])
    batch = seconds.pop("network")
    return (sum(v for phase, v in seconds.items() if phase != "update") * images / batch + seconds["update"]) / speed


def simulate(program, plan, form, hosts, network, images, speed, steps=0, scaling="weak", jitter=JITTER, sharing=SHARING):
    """A row of the tables. Sums of gradients: 5 GB/s on the measured machine, four times that on hosts of four times its speed
    and more (memory bandwidth does not grow with cores for ever)."""
    steps = steps or (4 if hosts <= 64 else 2)
    got = smpirun(program, hosts, network, [TABLE, plan, form, steps, images, speed, jitter, SEED, POLL, EVERY, 5e9 * min(speed, 4)],
                  sharing)
    efficiency = alone(plan, images if scaling == "weak" else images * hosts, speed) / got["seconds"]
    row = (scaling, plan, network, hosts, images, "%g" % speed, form, "%.6f" % got["seconds"],
           "%.1f" % (images * hosts / got["seconds"]), "%.4f" % (efficiency if scaling == "weak" else efficiency / hosts),
           "%.4f" % got["hidden"], "%.3f" % (1e3 * got["waited"]), "%.3f" % (1e3 * got["adding"]), "%.1f" % got["polls"],
           "%d" % got["messages"], "%d" % got["bytes"], "%d" % got["memory"], "%d" % got["requests"], "%d" % sharing, table())
    return dict(zip(COLUMNS, (str(v) for v in row)))


def key(row):
    return tuple(row[c] for c in COLUMNS[:7])


def read(path):
    if not os.path.exists(path):
        return {}
    with open(path) as f:
        return {key(row): row for row in csv.DictReader(f) if row["table"] == table()}


def order(row):
    return (row["scaling"], float(row["speed"]), row["network"], PLANS.index(row["plan"]), int(row["hosts"]), FORMS.index(row["form"]))


def write(path, rows):
    with open(path + ".new", "w", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(sorted(rows, key=order))
    os.replace(path + ".new", path)


def percent(text):
    return "%.1f" % (100 * float(text))


def grouped(rows):
    """Of (scaling, speed, network): of (plan, hosts): rows by form."""
    groups = {}
    for row in sorted(rows, key=order):
        groups.setdefault((row["scaling"], row["speed"], row["network"]), {}).setdefault(
            (row["plan"], int(row["hosts"])), {})[row["form"]] = row
    return groups


def complete(plan, forms):
    """Where all weights are trained, the ring of the trained ones is that of all."""
    return dict({"ring-all": forms["ring"]} if plan.endswith("everything") and "ring" in forms else {}, **forms)


def markdown(rows):
    """One table for each scaling, speed and network."""
    lines = ["# Predicted scaling", "",
             "**Predictions**, not measurements: thaw's exchange code on SimGrid/SMPI (see ../README.md for what the model leaves",
             "out), with operations' seconds of operations.csv divided by `speed`. Written by run.py; all figures in scaling.csv.",
             "Efficiency in % of hosts times one host without jitter or exchange; hidden: share of bytes whose sums were complete",
             "when finish was entered; wait: in finish and for the control word, mean over ranks, and with it most of the jitter;",
             "sums: adding what came; messages and MB: sent by a rank in a step (most); requests: sends and receives open at once",
             "(most); staging: memory of the exchange beside the gradients; sharing: messages that share a link at once, the others",
             "queue (1, which is faster to simulate, makes steps longer: README). Efficiencies behind: with polls only behind operations,",
             "without running the next prefix ahead, a blocking ring all-reduce of the trained weights after backward, and one of",
             "all weights, which is what data parallel training of the whole network sends. Empty: not simulated.", "",
             "![efficiency](scaling.svg)"]
    for (scaling, speed, network), group in grouped(rows).items():
        lines += ["", "## %s scaling, %s, hosts of %s times the measured machine's speed" % (scaling.capitalize(), network, speed), "",
                  "| plan | hosts | images a host | s a step | img/s | efficiency | hidden % | wait ms | sums ms | polls | messages | MB "
                  "| requests | staging MB | sharing | polls behind | no run-ahead | ring | ring, all weights |", "|" + "---|" * 19]
        for (plan, hosts), forms in group.items():
            row = forms.get("overlap")
            if not row:
                continue
            forms = complete(plan, forms)
            others = [percent(forms[f]["efficiency"]) if f in forms else "" for f in FORMS[1:]]
            cells = [plan, hosts, row["images"], "%.4f" % float(row["seconds"]), row["images_per_second"], percent(row["efficiency"]),
                     percent(row["hidden"]), "%.2f" % float(row["wait_ms"]), "%.2f" % float(row["adding_ms"]),
                     "%.0f" % float(row["polls"]), row["messages"], "%.1f" % (float(row["bytes"]) / 1e6), row["requests"],
                     "%.1f" % (float(row["staging_bytes"]) / 1e6), row["sharing"]] + others
            lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    return "\n".join(lines) + "\n"


def curves(group):
    """Points (hosts, efficiency) of every plan: thaw's, and beside it those of a ring of all weights."""
    for plan in PLANS:
        for form in ("overlap", "ring-all"):
            got = "ring" if form == "ring-all" and plan.endswith("everything") else form
            points = sorted((hosts, float(forms[got]["efficiency"])) for (of, hosts), forms in group.items()
                            if of == plan and got in forms)
            if points:
                yield plan, form, points


def svg(rows):
    """A panel for each scaling, speed and network: efficiency over hosts."""
    colours = dict(zip(PLANS, ("#4477aa", "#228833", "#ee6677", "#ccbb44", "#aa3377")))
    width, height, left, top = 430, 300, 46, 34
    groups = list(grouped(rows).items())
    out = []
    for i, ((scaling, speed, network), group) in enumerate(groups):
        def x(hosts):
            return i % 2 * width + left + (math.log2(hosts) - 2) / 7 * (width - left - 20)

        def y(efficiency):
            return i // 2 * height + top + (1 - max(0.0, min(efficiency, 1.0))) * (height - top - 36)
        out.append('<text x="%.0f" y="%.0f" font-weight="bold">%s scaling, %s, speed %s</text>' % (
            x(4), y(1) - 14, scaling, network, speed))
        for tick in range(0, 101, 20):
            out.append('<path d="M%.1f %.1fH%.1f" stroke="#ddd"/><text x="%.1f" y="%.1f" text-anchor="end">%d %%</text>' % (
                x(4), y(tick / 100), x(512), x(4) - 4, y(tick / 100) + 4, tick))
        for hosts in fat_tree.HOSTS:
            out.append('<text x="%.1f" y="%.1f" text-anchor="middle">%d</text>' % (x(hosts), y(0) + 16, hosts))
        for plan, form, points in curves(group):
            dash = "" if form == "overlap" else ' stroke-dasharray="5 4"'
            out.append('<path d="M%s" fill="none" stroke="%s" stroke-width="2"%s/>' % (
                "L".join("%.1f %.1f" % (x(h), y(e)) for h, e in points), colours[plan], dash))
            out += ['<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>' % (x(h), y(e), colours[plan]) for h, e in points]
    bottom = (len(groups) + 1) // 2 * height + 16
    for i, plan in enumerate(PLANS):
        out.append('<text x="%d" y="%d" fill="%s">%s</text>' % (left + 150 * i, bottom, colours[plan], plan))
    out.append('<text x="%d" y="%d">solid: thaw; dashed: ring all-reduce of all weights after backward; over hosts</text>' % (
        left, bottom + 18))
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">\n'
            '<rect width="100%%" height="100%%" fill="white"/>\n%s\n</svg>\n' % (2 * width, bottom + 30, "\n".join(out)))


def readme(rows):
    """Writes the table of weak scaling in tests/cluster/README.md."""
    path, head = os.path.join(HERE, "..", "README.md"), "| plan | network | hosts | thaw |"
    lines = []
    for (scaling, speed, network), group in grouped(rows).items():
        for (plan, hosts), forms in group.items():
            if scaling == "weak" and speed == "16" and "overlap" in forms:
                forms = complete(plan, forms)
                cells = [plan, network, hosts] + [percent(forms[f]["efficiency"]) if f in forms else ""
                                                  for f in ("overlap", "backward", "ring", "ring-all")]
                cells += [forms["overlap"]["messages"], "%.1f" % (float(forms["overlap"]["staging_bytes"]) / 1e6)]
                lines.append("| " + " | ".join(str(c) for c in cells) + " |\n")
    with open(path) as f:
        text = f.read()
    begin = text.index("\n", text.index("\n", text.index(head)) + 1) + 1
    with open(path, "w") as f:
        f.write(text[:begin] + "".join(lines) + text[text.index("\n\n", begin) + 1:])


def publish(out, rows):
    for name, text in (("scaling.md", markdown(rows)), ("scaling.svg", svg(rows))):
        with open(os.path.join(out, name), "w") as f:
            f.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", default="4,16,64,256,512")
    parser.add_argument("--network", default="100g,10g")
    parser.add_argument("--plans", default=",".join(PLANS))
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--scaling", default="weak,strong")
    parser.add_argument("--speed", type=float, default=16, help="of a host; the measured machine is 1")
    parser.add_argument("--images", type=int, default=32, help="of a host, weak scaling")
    parser.add_argument("--batch", type=int, default=1024, help="of all hosts, strong scaling")
    parser.add_argument("--sharing", type=int, default=SHARING,
                        help="messages that share a link at once (default %d): with 1 most is twice as fast or more" % SHARING)
    parser.add_argument("--out", default=os.path.join(HERE, "results"))
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    if not available():
        sys.exit("run.py: no smpicc and smpirun; install SimGrid (Debian: apt-get install --no-install-recommends libsimgrid-dev)")
    os.makedirs(options.out, exist_ok=True)
    path = os.path.join(options.out, "scaling.csv")
    rows = {} if options.fresh else read(path)
    with tempfile.TemporaryDirectory(prefix="thaw-smpi-") as folder:
        program = build(folder)
        for hosts in (int(h) for h in options.hosts.split(",")):
            for scaling in options.scaling.split(","):
                images = options.images if scaling == "weak" else options.batch // hosts
                for network in options.network.split(","):
                    for plan in options.plans.split(","):
                        for form in options.forms.split(","):
                            wanted = tuple(str(v) for v in (scaling, plan, network, hosts, images, "%g" % options.speed, form))
                            if wanted in rows or (form == "ring-all" and plan.endswith("everything")):  # that is ring
                                continue
                            began = spent()
                            rows[wanted] = simulate(program, plan, form, hosts, network, images, options.speed, scaling=scaling,
                                                    sharing=options.sharing)
                            row = rows[wanted]
                            print("%s: %s s a step, efficiency %s (%.0f s of CPU)" % (
                                " ".join(wanted), row["seconds"], row["efficiency"], spent() - began), file=sys.stderr, flush=True)
                            write(path, rows.values())
    publish(options.out, rows.values())
    if os.path.samefile(options.out, os.path.join(HERE, "results")):
        readme(rows.values())
    print(markdown(rows.values()))


if __name__ == "__main__":
    main()
