#!/usr/bin/env python3
"""The exchange on simulated clusters (SimGrid/SMPI): exact sums, messages and memory in P, and what the next prefix hides.

Skipped without SimGrid (Debian: libsimgrid-dev). The long form with its tables is smpi/run.py.
"""
import math
import os
import shutil
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "support"), os.path.join(HERE, "smpi")]
import harness  # noqa: E402
import run as smpi  # noqa: E402

CHUNK = 1 << 17  # floats, mpi/allreduce.c


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

    def late(self, hosts, form, speed=16):
        return {k: float(v) if k not in ("scaling", "plan", "network", "form") else v for k, v in
                smpi.simulate(self.program, "vgg16-late", form, hosts, "100g", 32, speed, steps=1).items()}

    def test_steps(self):
        for hosts, hidden in ((4, 0.99), (16, 0.6)):
            with self.subTest(hosts=hosts):
                ahead, behind, ring = (self.late(hosts, form) for form in ("overlap", "backward", "ring"))
                self.assertGreaterEqual(ahead["efficiency"], 0.95)
                self.assertLessEqual(ahead["efficiency"], 1.01)
                self.assertGreaterEqual(ahead["hidden"], hidden)
                self.assertLess(ahead["seconds"], ring["seconds"])
                self.assertLess(ahead["wait_ms"], behind["wait_ms"])
                payload = 28338240.0  # bytes of the three buckets
                chunks = math.ceil(2364944 / CHUNK) + 2 * math.ceil(2359808 / CHUNK)
                self.assertLessEqual(ahead["messages"], most_messages(hosts, chunks))
                # 2 (P - 1) / P of the gradients, but for the rounding of parts to cache lines
                self.assertAlmostEqual(ahead["bytes"], 2 * payload * (hosts - 1) / hosts, delta=chunks * hosts * 4 * 64)
                self.assertLessEqual(ahead["staging_bytes"], 17e6)
                self.assertAlmostEqual(ring["bytes"], 2 * payload * (hosts - 1) / hosts, delta=hosts * 16)
                self.assertEqual(ring["messages"], 2 * (hosts - 1))


if __name__ == "__main__":
    harness.main()
