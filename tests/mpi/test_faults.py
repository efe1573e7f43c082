#!/usr/bin/env python3
"""Whatever happens to a rank: the run finishes with the same bits, or all ranks end in bounded time with one clear line.

Ranks that are late, slow, stopped for a while or for ever, or killed; that have another environment, program, job file or
data. Every case has a time limit; none may leave a process behind. Lost hosts are in tests/cluster/test_hosts.py.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import small_network  # noqa: E402

RANKS = 3
LATE = 30 if harness.LONG else 4      # seconds
STOPPED = 20 if harness.LONG else 4   # seconds
LIMIT = 3                             # training.watchdog_seconds where the watchdog shall act
SLACK = 5 + 5                         # seconds beyond: what ranks behind rank 1 add, and a busy machine


class Faults(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = small_network(os.path.join(cls.shared, "norm.h5"), batch_norm=True, size=(32, 32))
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 33, "b": 32, "c": 32}, size=(40, 40))
        cls.expected = cls.bits(cls.run_undisturbed(os.path.join(cls.shared, "undisturbed")))

    @classmethod
    def run_undisturbed(cls, folder):
        result = harness.run(*cls.arguments(cls, folder, os.path.join(cls.shared, "job.yaml")), ranks=RANKS)
        if result.status != 0:
            raise RuntimeError("undisturbed run failed: %s" % result)
        return folder

    @staticmethod
    def bits(folder):
        return harness.read_bytes(os.path.join(folder, "model.h5")), harness.history(folder)

    def arguments(self, folder, job=None, epochs=12, batch=8, **training):
        """Batches of 8 by 3 ranks, the last one a single image: two ranks without any."""
        file = job or self.path("job.yaml")
        return ("train", harness.write_job(file, {
            "model": {"base": self.model},
            "data": {"train": self.train, "validation_split": 0.2, "preprocess": "rescale", "augment": {"horizontal_flip": True}},
            "training": dict({"seed": 5, "batch_size": batch, "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
                             **training),
            "stages": [{"name": "late", "freeze": "before:block2_conv1", "epochs": epochs, "batch_norm_statistics": "batch",
                        "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}}],
            "output": folder}))

    def same(self, folder):
        model, rows = self.bits(folder)
        self.assertEqual(model, self.expected[0], "model.h5 differs")
        self.assertEqual(rows, self.expected[1])

    def start_and_wait(self, folder, **options):
        """A run behind its first epochs, and its ranks' process ids."""
        process = harness.start(self.arguments(folder, **options), ranks=RANKS)
        file = os.path.join(folder, "history.csv")
        self.assertTrue(harness.wait_for(lambda: os.path.exists(file) and len(harness.history(folder)) >= 2, 60))
        pids = harness.rank_processes(process)
        self.assertEqual(sorted(pids), list(range(RANKS)))
        return process, pids

    def all_gone(self, pids):
        def running(pid):
            try:
                with open("/proc/%d/stat" % pid) as f:
                    return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
            except OSError:
                return False
        self.assertTrue(harness.wait_for(lambda: not any(running(pid) for pid in pids.values()), 10), "a rank is left: %s" % pids)

    def refused(self, result, status, *words):
        """One line, the same status for all, nothing written."""
        self.assertEqual(result.status, status, str(result))
        self.assertEqual(len(result.messages), 1, str(result))
        for word in words:
            self.assertIn(word, result.messages[0])
        self.assertFalse(os.path.exists(self.path("run")), "something was written")

    # Ranks that are not even.

    def test_shares_of_none_one_and_many(self):
        """As many images as one, and batches in which one rank has all (slices of whole batches), against one process."""
        for images, batch, training in ((2, 8, {}), (4, 1, {}), (40, 32, {"reproducible": "ranks", "slices": 4})):
            with self.subTest(images=images, batch=batch):
                shutil.rmtree(self.dir)
                os.makedirs(self.dir)
                data = harness.make_folders(self.path("data"), {"a": images // 2, "b": images - images // 2, "c": 1})
                job = json.loads(open(self.arguments(self.path("run"), epochs=2, batch=batch, **training)[1]).read())
                job["data"] = {"train": data, "validation": data, "preprocess": "rescale"}
                file = harness.write_job(self.path("job.yaml"), job)
                rows = []
                for ranks in (1, 4):
                    self.succeed("train", file, "--set", "output=run-%d" % ranks, ranks=ranks)
                    rows.append(harness.history(self.path("run-%d" % ranks)))
                for one, four in zip(*rows):
                    self.assert_close(one["loss"], four["loss"], 1e-5, "loss")
                    self.assert_close(one["val_loss"], four["val_loss"], 1e-5, "val_loss")
                for ranks in (1, 4):
                    self.assertEqual([e["images"] for e in harness.events(self.path("run-%d" % ranks), "epoch")],
                                     [images + 1] * 2)

    def test_late_rank(self):
        folder = self.path("run")
        began = time.monotonic()
        self.succeed(*self.arguments(folder, watchdog_seconds=LIMIT), prefix=harness.on_rank(1, RANKS, "sleep %d" % LATE))
        self.assertGreater(time.monotonic() - began, LATE)
        self.same(folder)

    # Ranks that are stopped.

    def test_stopped_for_a_while(self):
        for victim in (0, 1):
            with self.subTest(victim=victim):
                folder = self.path("run-%d" % victim)
                process, pids = self.start_and_wait(folder)
                os.kill(pids[victim], signal.SIGSTOP)
                rows = len(harness.history(folder))
                time.sleep(STOPPED)
                self.assertLessEqual(len(harness.history(folder)) - rows, 1, "the others went on")
                os.kill(pids[victim], signal.SIGCONT)
                result = harness.finish(process, 60)
                self.assertEqual(result.status, 0, str(result))
                self.same(folder)

    def test_all_stopped_for_long(self):
        """A job that its batch system suspends hears nothing from anybody for longer than the limit, and goes on."""
        folder = self.path("run")
        process, pids = self.start_and_wait(folder, watchdog_seconds=LIMIT)
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2 * LIMIT + 1)
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)
        result = harness.finish(process, 60)
        self.assertEqual(result.status, 0, str(result))
        self.same(folder)

    def test_stopped_for_ever(self):
        for victim in range(RANKS):
            with self.subTest(victim=victim):
                folder = self.path("run-%d" % victim)
                process, pids = self.start_and_wait(folder, epochs=5000, watchdog_seconds=LIMIT)
                os.kill(pids[victim], signal.SIGSTOP)
                began = time.monotonic()
                result = harness.finish(process, 60)
                seconds = time.monotonic() - began
                self.assertEqual(result.status, 76, str(result))
                self.assertEqual(len(result.messages), 1, str(result))
                self.assertRegex(result.messages[0], r"rank %d \(%s\) gave no sign of life for \d s" %
                                 (victim, re.escape(socket.gethostname())))
                self.assertGreaterEqual(seconds, LIMIT - 0.5)
                self.assertLess(seconds, LIMIT + SLACK)
                self.all_gone(pids)
                print("rank %d stopped: ended after %.1f s" % (victim, seconds), file=sys.stderr)

    def test_both_of_the_first_stopped(self):
        """Rank 2 is alone: it ends the run, if later."""
        process, pids = self.start_and_wait(self.path("run"), epochs=5000, watchdog_seconds=LIMIT)
        for victim in (1, 0):
            os.kill(pids[victim], signal.SIGSTOP)
        result = harness.finish(process, LIMIT + SLACK + 10)
        self.assertEqual(result.status, 76, str(result))
        self.assertEqual(len(result.messages), 1, str(result))
        self.assertIn("rank 2: rank 0 (", result.messages[0])
        self.all_gone(pids)

    def hold(self, stream, name):
        """The main thread of rank 0 writes into a pipe that nobody reads for longer than the limit. Returns the Result."""
        folder, pipe = self.path("run-" + name), self.path(name)
        os.mkfifo(pipe)
        end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # both ends: nobody waits for us
        try:
            for size in (4096, 1):
                try:
                    while True:
                        os.write(end, b"." * size)
                except BlockingIOError:
                    pass
            process = harness.start(self.arguments(folder, watchdog_seconds=LIMIT),
                                    prefix=harness.on_rank(0, RANKS, "exec %d>%s" % (stream, pipe)))
            pids = harness.wait_for(lambda: (lambda p: p if len(p) == RANKS else None)(harness.rank_processes(process)), 30)
            if stream == 1:  # written at the end
                self.assertTrue(harness.wait_for(lambda: os.path.exists(os.path.join(folder, "model.h5")), 60))
            time.sleep(3 * LIMIT)
            self.assertIsNone(process.poll(), "a slow rank was taken for a dead one")
            until = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < until:
                try:
                    os.read(end, 1 << 20)
                except BlockingIOError:
                    time.sleep(0.01)
            result = harness.finish(process, 10)
        finally:
            os.close(end)
        self.assertEqual(result.status, 0, str(result))
        self.same(folder)
        self.all_gone(pids)
        return result

    def test_slow_is_not_dead(self):
        result = self.hold(1, "output")
        self.assertRegex(result.err, r"warning: 2 ranks have waited \d+ s for rank 0 \(.+\), which is alive and at work")

    def test_halted_terminal(self):
        self.hold(2, "errors")

    def test_killed(self):
        for victim in (0, 2):
            with self.subTest(victim=victim):
                process, pids = self.start_and_wait(self.path("run-%d" % victim), epochs=5000)
                os.kill(pids[victim], signal.SIGKILL)
                began = time.monotonic()
                result = harness.finish(process, 60)
                self.assertNotIn(result.status, (0, "timeout"), str(result))
                self.assertLess(time.monotonic() - began, SLACK)
                self.all_gone(pids)

    # Ranks with something else than the others.

    def test_other_number_of_threads(self):
        folder = self.path("run")
        self.succeed(*self.arguments(folder), prefix=harness.on_rank(1, RANKS, "export OMP_NUM_THREADS=2"))
        self.same(folder)

    def test_other_kernels(self):
        for shell, words in (("export THAW_ISA=portable", "portable"), ("export THAW_CONV=direct", "convolution direct"),
                             ("export THAW_KERNELS=reference", "reference (plain loops")):
            with self.subTest(shell):
                result = harness.run(*self.arguments(self.path("run")), prefix=harness.on_rank(1, RANKS, shell))
                self.refused(result, 78, "rank 1 (", "kernels", words, "THAW_ISA")

    def test_other_version(self):
        version = harness.run("--version").out.split()[1]
        program = harness.read_bytes(harness.THAW)
        self.assertIn(b"thaw " + version.encode(), program)
        other = version[:-1] + chr(ord(version[-1]) + 1)
        with open(self.path("thaw"), "wb") as f:
            f.write(program.replace(b"thaw " + version.encode(), b"thaw " + other.encode()))
        os.chmod(f.name, 0o755)
        shell = "shift; set -- %s \"$@\"" % f.name
        result = harness.run(*self.arguments(self.path("run")), prefix=harness.on_rank(2, RANKS, shell))
        self.refused(result, 78, "rank 2 (", "thaw " + other, "thaw " + version)

    def test_other_command_line(self):
        result = harness.run(*self.arguments(self.path("run")),
                             prefix=harness.on_rank(1, RANKS, 'set -- "$@" --set training.seed=6'))
        self.refused(result, 64, "rank 1 (", "command line")

    def test_other_job_file(self):
        """Rank 0 reads it for all: on other hosts it may be another one, or missing."""
        file = self.arguments(self.path("run"), job=self.path("job.yaml"))[1]
        for content in (None, "model: [nonsense"):
            with self.subTest(content=content):
                shutil.rmtree(self.path("run"), ignore_errors=True)
                other = self.path("other-%s" % (content is not None))
                os.makedirs(other)
                if content:
                    harness.write_job(os.path.join(other, "job.yaml"), content)
                self.succeed("train", "job.yaml", cwd=self.dir, prefix=harness.on_rank(1, RANKS, "cd " + other))
                self.same(self.path("run"))
        self.assertTrue(os.path.exists(file))

    def test_other_variable_in_the_job(self):
        """$VAR is each rank's own, so paths may differ; the data may not."""
        file = self.arguments(self.path("run"))[1]
        with open(file) as f:
            text = f.read().replace(json.dumps(self.train), '"$THAW_TEST_DATA"')
        harness.write_job(file, text)
        result = harness.run("train", file, env={"THAW_TEST_DATA": self.train},
                             prefix=harness.on_rank(1, RANKS, "unset THAW_TEST_DATA"))
        self.refused(result, 64, "rank 1 (", "THAW_TEST_DATA")

    def test_other_folder(self):
        job = json.loads(open(self.arguments(self.path("run"))[1]).read())
        job["data"]["train"] = "train"
        harness.write_job(self.path("job.yaml"), job)
        os.makedirs(self.path("other"))
        result = harness.run("train", "job.yaml", cwd=self.dir, prefix=harness.on_rank(1, RANKS, "cd " + self.path("other")))
        self.refused(result, 78, "rank 1 (", "train: ", self.path("other"), "same folder")

    def other_data(self, change, bad="error"):
        """Rank 1 sees other data under the same path."""
        seen, other = self.path("train"), self.path("other")
        os.makedirs(seen)
        os.makedirs(other)
        shutil.copytree(self.train, seen, dirs_exist_ok=True)
        change(other)
        job = json.loads(open(self.arguments(self.path("run"))[1]).read())
        job["data"].update(train=seen, on_bad_image=bad)
        harness.write_job(self.path("job.yaml"), job)
        mount = "mount --bind %s %s" % (other, seen)
        if subprocess.run(["unshare", "-m", "sh", "-c", mount], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no permission to mount something")
        shell = "set -- unshare -m sh -c '%s && exec \"$@\"' sh \"$@\"" % mount
        return harness.run("train", self.path("job.yaml"), prefix=harness.on_rank(1, RANKS, shell))

    def test_data_are_missing(self):
        self.refused(self.other_data(lambda other: None), 66, "rank 1 (", "train/")

    def test_data_are_missing_and_skipped(self):
        """data.on_bad_image: skip is for bad images, not for a host without the data."""
        self.refused(self.other_data(lambda other: None, bad="skip"), 66, "rank 1 (", "train/")

    def test_data_are_others(self):
        def change(other):
            harness.make_folders(other, {"a": 33, "b": 32, "c": 32}, size=(40, 40), seed=2)
        self.refused(self.other_data(change), 78, "rank 1 (", "train/", "differs from rank 0's")

    def test_one_image_is_another(self):
        """Not among those that are compared at the start: found when it is read."""
        def change(other):
            shutil.copytree(self.train, other, dirs_exist_ok=True)
            for i in (2, 3, 5, 8, 9, 11, 14, 15, 17, 20, 21, 23, 26, 27, 29):  # whose bytes other ranks knew first
                shutil.copy(os.path.join(self.train, "b", "020.png"), os.path.join(other, "a", "%03d.png" % i))
        result = self.other_data(change)
        self.assertEqual(result.status, 65, str(result))
        self.assertEqual(len(result.messages), 1, str(result))
        for word in ("rank 1 (", "train/a/", "another file on this host"):
            self.assertIn(word, result.messages[0])


if __name__ == "__main__":
    harness.main()
