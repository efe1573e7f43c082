#!/usr/bin/env python3
"""The exchange on simulated clusters (SimGrid/SMPI): exact sums, messages and memory in P, and what the next prefix hides.

Skipped without SimGrid (Debian: libsimgrid-dev). The long form with its tables is smpi/run.py.
"""
import math
import os
import re
import shutil
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "support"), os.path.join(HERE, "smpi")]
import harness  # noqa: E402
import run as smpi  # noqa: E402

with open(os.path.join(smpi.ROOT, "mpi", "allreduce.c")) as source:
    text = source.read()
CHUNK = 1 << int(re.search(r"CHUNK = 1 << (\d+),", text).group(1))  # floats
WINDOW = int(re.search(r"WINDOW = (\d+),", text).group(1))  # chunks
BUCKETS = (2364944, 2359808, 2359808)  # floats of vgg16-late with their padding
CHUNKS = sum(math.ceil(floats / CHUNK) for floats in BUCKETS)


def most_messages(ranks, chunks):
    """Messages that a rank sends for so many chunks. Up to 8 ranks: 2 (P - 1). More: rounds of groups of up to 8 ranks, there
    and back: at most 14 for every three levels of the tree, and one to or from a folded neighbour."""
    if ranks <= 8:
        return chunks * 2 * (ranks - 1)
    return chunks * (14 * math.ceil(math.floor(math.log2(ranks)) / 3) + 1)


@unittest.skipUnless(smpi.available(), "no smpicc: SimGrid is not installed")
class Simulated(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="thaw-smpi-")
        cls.program = smpi.build(cls.folder)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    def test_sums(self):
        for hosts in (2, 4, 7, 16, 23):
            with self.subTest(hosts=hosts):
                got = smpi.smpirun(self.program, hosts, "100g", ["check"])
                self.assertEqual((got["ranks"], got["wrong"]), (hosts, 0))
                self.assertGreater(got["messages"], 0)

    def late(self, hosts, form, speed=16, steps=1):
        return {k: float(v) if k not in ("scaling", "plan", "network", "form", "table") else v for k, v in
                smpi.simulate(self.program, "vgg16-late", form, hosts, "100g", 32, speed, steps=steps).items()}

    def bounded(self, got):
        """Messages grow with the logarithm of the hosts, bytes, memory and open requests with nothing."""
        hosts, payload = int(got["hosts"]), 28338240.0
        self.assertLessEqual(got["messages"], most_messages(hosts, CHUNKS) + math.log2(hosts))  # and the control words
        # 2 (P - 1) / P of the gradients, but for the rounding of parts to cache lines
        self.assertAlmostEqual(got["bytes"], 2 * payload * (hosts - 1) / hosts, delta=CHUNKS * hosts * 4 * 64)
        self.assertLessEqual(got["staging_bytes"], WINDOW * (CHUNK + 512) * 4 + 2e5)
        self.assertLessEqual(got["requests"], WINDOW * 14)  # 7 others to send to and to receive from

    def test_steps(self):
        for hosts, hidden in ((4, 0.99), (16, 0.6)):
            with self.subTest(hosts=hosts):
                ahead, behind, ring = (self.late(hosts, form) for form in ("overlap", "backward", "ring"))
                self.assertGreaterEqual(ahead["efficiency"], 0.95)
                self.assertLessEqual(ahead["efficiency"], 1.01)
                self.assertGreaterEqual(ahead["hidden"], hidden)
                self.assertLess(ahead["seconds"], ring["seconds"])
                self.assertLess(ahead["wait_ms"], behind["wait_ms"])
                self.bounded(ahead)
                self.assertAlmostEqual(ring["bytes"], 2 * 28338240.0 * (hosts - 1) / hosts, delta=hosts * 16 + 64 * math.log2(hosts))
                self.assertEqual(ring["messages"], 2 * (hosts - 1) + math.log2(hosts))

    def test_jitter(self):
        """A host that is less than a prefix behind holds up nobody: what 2 % of jitter costs is not waited for. With a word that
        all wait for behind the prefix it was 0.9 ms a step."""
        got = self.late(16, "overlap", steps=4)
        self.assertLess(got["wait_ms"], 0.1)
        self.assertGreater(got["hidden"], 0.99)

    def test_many(self):
        """Late layers on 64 hosts at 100 Gbit/s: at most 5 % are lost, jitter included; twice the messages of 16 hosts at most."""
        for form in ("overlap", "operations"):
            with self.subTest(form=form):
                got = self.late(64, form)
                self.assertGreaterEqual(got["efficiency"], 0.95)
                self.assertGreaterEqual(got["hidden"], 0.9)
                self.bounded(got)


if __name__ == "__main__":
    harness.main()
