#!/usr/bin/env python3
"""Counts what really crosses the network: two ranks in two network namespaces, joined by a virtual cable (root only).

Open MPI believes in two machines: its daemons are started by an agent that enters the other namespace. The network
interface counts bytes; a longer run minus a shorter one leaves the epochs between them. Two ranks exchange a sum by
sending each other their gradients once, so a rank sends gradient bytes x steps. Stated overhead: at most 5 % (TCP, IP
and Ethernet headers, Open MPI's own) and 4 KiB a step (control word, acknowledgements).
"""
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from cable import Cable  # noqa: E402
from keras_file import wide_network  # noqa: E402

STEPS = 5  # an epoch
MORE = 4   # epochs that the longer run has more
RUNS = 4   # of each length: the one with least traffic counts; what TCP sends twice on a busy machine is not counted (Cable)


class Wire(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cable = Cable(cls.shared)
        if cls.cable.reason:
            print("test_wire: skipped: " + cls.cable.reason, file=sys.stderr)
            return
        cls.model = wide_network(os.path.join(cls.shared, "wide.h5"))
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 14, "b": 13, "c": 13})

    @classmethod
    def tearDownClass(cls):
        cls.cable.remove()
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        if self.cable.reason:
            self.skipTest(self.cable.reason)

    def traffic(self, freeze, epochs):
        """Trains; returns bytes sent and received, and the run folder."""
        folder = self.path("run-%d" % epochs)
        shutil.rmtree(folder, ignore_errors=True)
        job = {"model": {"base": self.model}, "data": {"train": self.train, "preprocess": "rescale"},
               "training": {"seed": 1, "batch_size": 8, "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
               "stages": [{"name": "only", "freeze": freeze, "epochs": epochs,
                           "optimizer": {"name": "sgd", "learning_rate": 0.01}}], "output": folder}
        before = self.cable.traffic()
        result = self.succeed("train", harness.write_job(self.path("job.yaml"), job), prefix=self.cable.prefix())
        tried = int(re.search(r"tried with (\d+) bytes", result.err).group(1))  # at the start; how many depends on the speed
        return [b - a - tried for a, b in zip(before, self.cable.traffic())], folder

    def measure(self, freeze):
        short, long = ([self.traffic(freeze, epochs) for _ in range(RUNS)] for epochs in (2, 2 + MORE))
        folder = long[-1][1]
        short, long = ([min(sums) for sums in zip(*(sums for sums, _ in runs))] for runs in (short, long))
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
