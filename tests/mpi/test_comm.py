#!/usr/bin/env python3
"""thaw/comm.h on MPI by 1, 2, 3, 4 and 7 ranks: collectives with awkward values, agreement, exchange, abort.

The checks are in comm_program.c, which the build makes beside thaw when it has MPI (THAW_COMM names another place).
"""
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402

PROGRAM = os.path.abspath(os.environ.get("THAW_COMM", os.path.join(os.path.dirname(harness.THAW), "tests", "comm_program")))


@unittest.skipUnless(os.access(PROGRAM, os.X_OK), "no comm_program: built without MPI")
class Comm(unittest.TestCase):
    def run_program(self, ranks, *arguments):
        command = harness.mpirun(ranks) + [PROGRAM] + [str(a) for a in arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, timeout=60, env=harness.environment())

    def test_check(self):
        for ranks in (0, 1, 2, 3, 4, 7):  # 0: without mpirun
            with self.subTest(ranks=ranks):
                done = self.run_program(ranks, "check")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, r"^ok %d \d+\n$" % max(1, ranks))

    def test_abort(self):
        for ranks, aborting, status in ((0, 0, 65), (1, 0, 70), (3, 0, 74), (3, 2, 76)):
            with self.subTest(ranks=ranks, aborting=aborting):
                done = self.run_program(ranks, "abort", aborting, status)
                # MPICH's launcher may give the signal by which it ended the others instead, and adds a banner to the output.
                mpich = harness.library() == "MPICH" and ranks > 0
                self.assertIn(done.returncode, (status, 9, 15) if mpich else (status,), done.stderr)
                lines = [line for line in done.stderr.splitlines() if line.startswith("thaw: ")]
                self.assertEqual(len(lines), 1, done.stderr)
                self.assertRegex(lines[0], r"^thaw: rank %d \(.+\): gave up$" % aborting)
                self.assertEqual(done.stdout[:14] if mpich else done.stdout, "buffered line\n")


if __name__ == "__main__":
    harness.main()
