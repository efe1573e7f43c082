#!/usr/bin/env python3
"""Training across four virtual hosts (root only): own host names, addresses, processes, links of 1 Gbit/s.

With `training.reproducible: ranks` the model has the bits of a run on one host. What crosses the interfaces is what the log
says: by P = 4 ranks an element is summed with 2 (P-1)/P of its bytes sent and received by each rank, with at most 5 % (headers of
TCP, IP and Ethernet, Open MPI's own) and 8 KiB a step (control word, acknowledgements) on top. A host that dies, or that nobody
hears of any more, ends the run in bounded time with a message that names it; the hosts that are left go on to the same bits.
"""
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from hosts import KEEPALIVE, Hosts  # noqa: E402
from keras_file import wide_network  # noqa: E402

N = 4
STEPS = 5     # an epoch
MORE = 3      # epochs that the longer run has more
EPOCHS = 20   # of the runs that lose a host
BOUND = 20.0  # seconds from the loss of a host to the end of the run


class Cluster(harness.Case):
    undisturbed = []  # what the runs that lose a host must come to, once it is known

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hosts = Hosts(cls.shared, N, "1gbit")
        if cls.hosts.reason:
            print("test_hosts: skipped: " + cls.hosts.reason, file=sys.stderr)
            return
        cls.model = wide_network(os.path.join(cls.shared, "wide.h5"))
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 54, "b": 53, "c": 53})

    @classmethod
    def tearDownClass(cls):
        cls.hosts.remove()
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        if self.hosts.reason:
            self.skipTest(self.hosts.reason)
        for i in range(1, N + 1):
            if self.hosts.outer[i].poll() is not None:
                self.assertIsNone(self.hosts.boot(i))

    def arguments(self, folder, epochs, freeze="before:fc1"):
        job = {"model": {"base": self.model}, "data": {"train": self.train, "preprocess": "rescale"},
               "training": {"seed": 1, "batch_size": 32, "loss": "categorical_crossentropy", "metrics": ["accuracy"],
                            "reproducible": "ranks"},
               "stages": [{"name": "only", "freeze": freeze, "epochs": epochs,
                           "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}}], "output": folder}
        return "train", harness.write_job(self.path("job.yaml"), job)

    def digest(self, folder):
        return harness.read_bytes(os.path.join(folder, "model.h5")), harness.history(folder)

    def alone(self, epochs, freeze="before:fc1"):
        folder = self.path("alone")
        self.succeed(*self.arguments(folder, epochs, freeze))
        return self.digest(folder)

    def everywhere(self, epochs, freeze="before:fc1"):
        """Trains on all hosts; bytes that each sent and received, without those that the network was tried with; the folder."""
        folder = self.path("run-%d" % epochs)
        before = [self.hosts.traffic(i) for i in range(1, N + 1)]
        result = self.succeed(*self.arguments(folder, epochs, freeze), prefix=self.hosts.prefix(range(1, N + 1)))
        after = [self.hosts.traffic(i) for i in range(1, N + 1)]
        tried = int(re.search(r"network between %d hosts: .* \(tried with (\d+) bytes\)" % N, result.err).group(1))
        return [[b - a - tried for a, b in zip(*pair)] for pair in zip(before, after)], folder

    def test_bits_and_bytes(self):
        for freeze in ("before:fc1", "none"):
            with self.subTest(freeze=freeze):
                short, _ = self.everywhere(2, freeze)
                long, folder = self.everywhere(2 + MORE, freeze)
                start = harness.events(folder, "start")[0]
                self.assertEqual((start["ranks"], start["hosts"]), (N, N))
                self.assertEqual(start["host_names"], ["host-%d" % i for i in range(1, N + 1)])
                self.assertEqual(self.digest(folder), self.alone(2 + MORE, freeze))
                handed = sum(e["exchanged_bytes"] for e in harness.events(folder, "epoch")[2:])
                self.assertEqual(handed, MORE * STEPS * harness.events(folder, "stage")[0]["gradient_bytes"])
                other = sum(e["other_bytes"] for e in harness.events(folder, "epoch")[2:])
                gathered = handed / STEPS  # the momentum, which owners have, for a checkpoint in every epoch
                self.assertTrue(gathered <= other < gathered * 1.01 + 2000 * MORE * STEPS, (gathered, other))
                claimed = handed * 2 * (N - 1) / N + gathered * (N - 1) / N
                for i in range(N):
                    for direction, a, b in zip(("sent", "received"), short[i], long[i]):
                        print("%-12s host-%d %-8s %8d bytes, gradients %8d, overhead %.2f %%" %
                              (freeze, i + 1, direction, b - a, claimed, 100.0 * (b - a - claimed) / claimed), file=sys.stderr)
                        self.assertGreaterEqual(b - a, claimed * 0.999, "less on the wire than was claimed")
                        self.assertLessEqual(b - a, claimed * 1.05 + 8192 * MORE * STEPS, "more than was claimed")
                for f in ("run-2", "run-%d" % (2 + MORE), "alone"):
                    os.rename(self.path(f), self.path("%s-%s" % (f, freeze.replace(":", "-"))))

    def lose(self, how, bound):
        """Loses host 3 in the middle of a run; the other three finish it."""
        epochs = EPOCHS
        folder = self.path("lost")
        history = os.path.join(folder, "history.csv")
        process = harness.start(self.arguments(folder, epochs), prefix=self.hosts.prefix(range(1, N + 1), more=KEEPALIVE))
        self.assertTrue(harness.wait_for(lambda: os.path.exists(history) and len(harness.history(folder)) >= 2, 60))
        how()
        began = time.monotonic()
        result = harness.finish(process, 60)
        seconds = time.monotonic() - began
        self.assertNotIn(result.status, (0, "timeout"), str(result))
        self.assertLess(seconds, bound, str(result))
        self.assertRegex(result.err, r"(?s)lost|disappear|fail", str(result))
        self.assertTrue(re.search(r"host-3|10\.78\.0\.3", result.err), str(result))
        done = len(harness.history(folder))
        self.assertLess(done, epochs, "the run was over before")
        for i in (1, 2, 4):
            self.assertTrue(harness.wait_for(lambda: "thaw" not in self.hosts.processes(i), 15),
                            "host-%d: %s" % (i, self.hosts.processes(i)))
        self.succeed(*self.arguments(folder, epochs), prefix=self.hosts.prefix((1, 2, 4)))
        starts = harness.events(folder, "start")
        self.assertEqual([s["hosts"] for s in starts], [4, 3])
        self.assertEqual(starts[1]["host_names"], ["host-1", "host-2", "host-4"])
        if not self.undisturbed:
            self.undisturbed.append(self.alone(epochs))
        self.assertEqual(self.digest(folder), self.undisturbed[0])
        print("host-3 lost after %d epochs: the run ended in %.1f s, three hosts did the rest" % (done, seconds),
              file=sys.stderr)

    def test_host_dies(self):
        self.lose(lambda: self.hosts.kill(3), BOUND)

    def test_host_is_not_heard_of(self):
        try:
            self.lose(lambda: self.hosts.cut(3), 3 * BOUND)
        finally:
            self.hosts.kill(3)
            self.hosts.cut(3, off=False)


if __name__ == "__main__":
    harness.main()
