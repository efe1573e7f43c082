#!/usr/bin/env python3
"""Counts what really crosses the network: two ranks in two network namespaces, joined by a virtual cable (root only).

Open MPI believes in two machines: its daemons are started by an agent that enters the other namespace. The network
interface counts bytes; a longer run minus a shorter one leaves the epochs between them. Two ranks exchange a sum by
sending each other their gradients once, so a rank sends gradient bytes x steps. Stated overhead: at most 5 % (TCP, IP
and Ethernet headers, Open MPI's own) and 4 KiB a step (control word, acknowledgements).
"""
import os
import shutil
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import Network  # noqa: E402

A, B = "thaw-a-%d" % os.getpid(), "thaw-b-%d" % os.getpid()
STEPS = 5  # an epoch
MORE = 4   # epochs that the longer run has more


def quiet(*command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def lay_cable():
    """Two namespaces and a cable between them. Returns why not, or None."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    for tool in ("ip", "unshare"):
        if not shutil.which(tool):
            return "no " + tool
    for command in (["netns", "add", A], ["netns", "add", B],
                    ["link", "add", "cable-a", "netns", A, "type", "veth", "peer", "name", "cable-b", "netns", B],
                    ["-n", A, "addr", "add", "10.77.0.1/24", "dev", "cable-a"],
                    ["-n", B, "addr", "add", "10.77.0.2/24", "dev", "cable-b"],
                    ["-n", A, "link", "set", "lo", "up"], ["-n", B, "link", "set", "lo", "up"],
                    ["-n", A, "link", "set", "cable-a", "up"], ["-n", B, "link", "set", "cable-b", "up"]):
        done = quiet("ip", *command)
        if done.returncode:
            return "ip %s: %s" % (" ".join(command), done.stderr.strip())
    done = quiet("ip", "netns", "exec", A, "unshare", "-u", "hostname", "node-a")
    return done.stderr.strip() if done.returncode else None


class Wire(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.reason = lay_cable()
        if cls.reason:
            print("test_wire: skipped: " + cls.reason, file=sys.stderr)
            return
        cls.agent = os.path.join(cls.shared, "agent")
        with open(cls.agent, "w") as f:
            f.write('#!/bin/sh\nshift\nexec ip netns exec %s unshare -u sh -c "hostname node-b; $*"\n' % B)
        os.chmod(cls.agent, os.stat(cls.agent).st_mode | stat.S_IXUSR)
        net = Network("wide", (16, 16, 3))
        net.conv("block1_conv1", 16)
        net.pool("block1_pool")
        net.conv("block2_conv1", 64)
        net.conv("block2_conv2", 64)
        net.pool("block2_pool")
        net.flatten("flatten")
        net.dense("fc1", 96, "relu")
        net.dense("predictions", 3, "softmax")
        cls.model = net.save(os.path.join(cls.shared, "wide.h5"))
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 14, "b": 13, "c": 13})

    @classmethod
    def tearDownClass(cls):
        for name in (A, B):
            quiet("ip", "netns", "del", name)
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        if self.reason:
            self.skipTest(self.reason)

    def sent(self):
        """Bytes that left A since the cable was laid."""
        done = subprocess.run(["ip", "netns", "exec", A, "cat", "/sys/class/net/cable-a/statistics/tx_bytes",
                               "/sys/class/net/cable-a/statistics/rx_bytes"], stdout=subprocess.PIPE, check=True)
        return [int(n) for n in done.stdout.split()]

    def prefix(self):
        name = ["ip", "netns", "exec", A, "unshare", "-u", "sh", "-c", 'hostname node-a; exec "$@"', "sh"]
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        return name + ["mpirun", "-n", "2", "--host", "10.77.0.1:1,10.77.0.2:1", "--bind-to", "none"] + root + [
            "--mca", "plm_rsh_agent", self.agent, "--mca", "btl", "tcp,self", "--mca", "pml", "ob1",
            "--mca", "btl_tcp_if_include", "10.77.0.0/24", "--mca", "oob_tcp_if_include", "10.77.0.0/24"]

    def traffic(self, freeze, epochs):
        """Trains; returns bytes sent and received, and the run folder."""
        folder = self.path("run-%d" % epochs)
        shutil.rmtree(folder, ignore_errors=True)
        job = {"model": {"base": self.model}, "data": {"train": self.train, "preprocess": "rescale"},
               "training": {"seed": 1, "batch_size": 8, "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
               "stages": [{"name": "only", "freeze": freeze, "epochs": epochs,
                           "optimizer": {"name": "sgd", "learning_rate": 0.01}}], "output": folder}
        before = self.sent()
        self.succeed("train", harness.write_job(self.path("job.yaml"), job), prefix=self.prefix())
        return [b - a for a, b in zip(before, self.sent())], folder

    def measure(self, freeze):
        short, _ = self.traffic(freeze, 2)
        long, folder = self.traffic(freeze, 2 + MORE)
        start = harness.events(folder, "start")[0]
        self.assertEqual(start["ranks"], 2)
        hosts = start["hosts"]
        self.assertEqual(len(hosts) if isinstance(hosts, list) else hosts, 2)
        claimed = sum(e["exchanged_bytes"] for e in harness.events(folder, "epoch")[2:])
        self.assertEqual(claimed, MORE * STEPS * harness.events(folder, "stage")[0]["gradient_bytes"])
        for direction, a, b in zip(("sent", "received"), short, long):
            found = b - a
            print("%-28s %s %8d bytes, gradients %8d, overhead %.2f %%" %
                  (freeze, direction, found, claimed, 100.0 * (found - claimed) / claimed), file=sys.stderr)
            self.assertGreaterEqual(found, claimed, "less on the wire than was claimed")
            self.assertLessEqual(found, claimed * 1.05 + 4096 * MORE * STEPS, "more on the wire than was claimed")
        return claimed

    def test_head_late_and_full(self):
        head = self.measure("before:fc1")
        late = self.measure("before:block2_conv2")
        full = self.measure("none")
        self.assertLess(head, late)
        self.assertLess(late, full)


if __name__ == "__main__":
    harness.main()
