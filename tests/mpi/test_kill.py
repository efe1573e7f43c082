#!/usr/bin/env python3
"""Runs that are killed, stopped, or run out of disk go on where they were: same bits as an undisturbed run."""
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from keras_file import small_network  # noqa: E402

KILLS = 30 if harness.LONG else 10


class Kill(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = small_network(os.path.join(cls.shared, "norm.h5"), batch_norm=True, size=(32, 32))
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 53, "b": 52, "c": 52}, size=(40, 40))
        cls.job = {
            "model": {"base": cls.model},
            "data": {"train": cls.train, "validation_split": 0.2, "preprocess": "rescale",
                     "augment": {"horizontal_flip": True}},
            "training": {"seed": 5, "batch_size": 8, "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
            "stages": [{"name": "head", "freeze": "before:fc1", "epochs": 3, "optimizer": {"name": "adam"}},
                       {"name": "late", "freeze": "before:block2_conv1", "epochs": 6, "batch_norm_statistics": "batch",
                        "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}}],
            "output": os.path.join(cls.shared, "undisturbed")}
        cls.file = harness.write_job(os.path.join(cls.shared, "job.yaml"), cls.job)
        result = harness.run("train", cls.file, ranks=2)
        if result.status != 0:
            raise RuntimeError("undisturbed run failed: %s" % result)
        cls.expected = harness.read_bytes(os.path.join(cls.shared, "undisturbed", "model.h5"))
        cls.rows = harness.history(os.path.join(cls.shared, "undisturbed"))

    def arguments(self, folder, *more):
        return ("train", self.file, "--set", "output=" + folder) + more

    def wait_for_epochs(self, folder, epochs=1):
        file = os.path.join(folder, "history.csv")
        self.assertTrue(harness.wait_for(lambda: os.path.exists(file) and len(harness.history(folder)) >= epochs, 60))

    def same_as_undisturbed(self, folder):
        self.assertEqual(harness.read_bytes(os.path.join(folder, "model.h5")), self.expected, "model.h5 differs")
        rows = harness.history(folder)
        self.assertEqual(rows, self.rows)
        left = [f for _, _, files in os.walk(folder) for f in files if ".tmp" in f or f.startswith(".")]
        self.assertEqual(left, [])

    def kill(self, folder, when, rng):
        """Starts a run, kills one rank when `when` says, and sees that all ends. True: the run had not ended by itself."""
        process = harness.start(self.arguments(folder), ranks=2)
        ranks = harness.wait_for(lambda: len(harness.ranks_of(process)) == 2 and harness.ranks_of(process), 20)
        harness.wait_for(lambda: when(process), 30, 0.001)
        try:
            os.kill(rng.choice(ranks), signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was done
        began = time.monotonic()
        result = harness.finish(process, 60)
        self.assertNotEqual(result.status, "timeout", str(result))
        self.assertLess(time.monotonic() - began, 30, "the other rank did not end")
        return result.status != 0

    def test_kill_at_random_times(self):
        """Before the first checkpoint, in an epoch, while a file is being written; then once to the end."""
        rng = random.Random(os.environ.get("THAW_TEST_SEED", "thaw"))
        folder = self.path("run")
        file, interrupted = os.path.join(folder, "history.csv"), []

        def rows():
            return len(harness.history(folder)) if os.path.exists(file) else 0

        def writing():
            return [f for _, _, files in os.walk(folder) for f in files if ".tmp." in f]

        def when(number):
            """The moment of a kill, as a function of the process."""
            pause, more, skip = rng.uniform(0.0, 0.1), rng.randint(1, 2), [rng.randint(0, 2)]
            if number % 3 == 0:
                return "before the first checkpoint", lambda p: os.path.exists(folder) and not time.sleep(pause)
            if number % 3 == 1:
                want = rows() + more
                return "in an epoch", lambda p: p.poll() is not None or rows() >= want and not time.sleep(pause)

            def at_file(process):
                skip[0] -= len(writing()) > 0
                return process.poll() is not None or skip[0] < 0
            return "while writing", at_file

        for number in range(KILLS):
            name, moment = when(number)
            if number % 3 == 0 or os.path.exists(os.path.join(folder, "model.h5")):
                shutil.rmtree(folder, ignore_errors=True)
            if self.kill(folder, moment, rng):
                interrupted.append(name)
        print("kills that met a running job: %s" % interrupted, file=sys.stderr)
        self.succeed(*self.arguments(folder), ranks=2)
        self.same_as_undisturbed(folder)
        self.assertGreaterEqual(len(set(interrupted)), 3, "a kind of kill never met a running job: %s" % interrupted)
        self.assertGreaterEqual(len(interrupted), KILLS // 2, str(interrupted))

    def test_stop_and_resume(self):
        """SIGUSR1 or SIGUSR2 (what a batch system sends before the end of the time limit) and SIGTERM at one rank."""
        for number, which in ((signal.SIGUSR1, 0), (signal.SIGUSR2, 1), (signal.SIGTERM, 1)):
            folder = self.path("run-%d" % number)
            process = harness.start(self.arguments(folder), ranks=2)
            self.wait_for_epochs(folder)
            os.kill(harness.ranks_of(process)[which], number)
            result = harness.finish(process, 60)
            self.assertEqual(result.status, 75, str(result))
            self.assertFalse(os.path.exists(os.path.join(folder, "model.h5")))
            self.assertLess(len(harness.history(folder)), 9)
            self.succeed(*self.arguments(folder), ranks=2)
            self.same_as_undisturbed(folder)

    def stopped(self, folder):
        """A run that was asked to stop in the middle. On a busy machine it may have ended before: then another."""
        for _ in range(5):
            process = harness.start(self.arguments(folder), ranks=2)
            self.wait_for_epochs(folder)
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(harness.ranks_of(process)[0], signal.SIGUSR1)
            result = harness.finish(process, 60)
            if result.status != 0:
                break
            shutil.rmtree(folder)
        self.assertEqual(result.status, 75, str(result))

    def test_finished_run_stays(self):
        folder = self.path("run")
        shutil.copytree(os.path.join(self.shared, "undisturbed"), folder)
        self.succeed(*self.arguments(folder), ranks=2)
        self.same_as_undisturbed(folder)

    def test_changed_job(self):
        folder = self.path("run")
        self.stopped(folder)
        saved = sorted((f, harness.read_bytes(os.path.join(folder, "checkpoints", f)))
                       for f in os.listdir(os.path.join(folder, "checkpoints")))
        for key, value in (("training.batch_size", "16"), ("training.seed", "6"),
                           ("stages.1.optimizer.learning_rate", "0.02")):
            result = harness.run(*self.arguments(folder, "--set", key + "=" + value), ranks=2)
            self.assertEqual(result.status, 78, str(result))
            self.assertEqual(len(result.messages), 1, str(result))
            self.assertIn(key.split(".")[-1], result.messages[0])
        self.assertEqual(saved, sorted((f, harness.read_bytes(os.path.join(folder, "checkpoints", f)))
                                       for f in os.listdir(os.path.join(folder, "checkpoints"))))
        self.succeed(*self.arguments(folder), ranks=2)
        self.same_as_undisturbed(folder)

    def test_changed_data(self):
        train = self.path("train")
        shutil.copytree(self.train, train)
        job = json.loads(json.dumps(self.job))
        job["data"]["train"], job["output"] = train, self.path("run")
        file = harness.write_job(self.path("job.yaml"), job)
        process = harness.start(("train", file), ranks=2)
        self.wait_for_epochs(self.path("run"))
        os.kill(harness.ranks_of(process)[0], signal.SIGUSR1)
        self.assertEqual(harness.finish(process, 60).status, 75)
        os.remove(os.path.join(train, "b", "003.png"))
        result = harness.run("train", file, ranks=2)
        self.assertEqual(result.status, 78, str(result))
        self.assertEqual(len(result.messages), 1, str(result))

    def test_never_moves_the_old_run_aside(self):
        folder = self.path("run")
        self.stopped(folder)
        self.succeed(*self.arguments(folder, "--resume", "never"), ranks=2)
        self.same_as_undisturbed(folder)
        self.assertEqual(len([f for f in os.listdir(self.dir) if f.startswith("run")]), 2)

    def test_damaged_checkpoint(self):
        """The newest checkpoint is damaged: the one before is used."""
        folder = self.path("run")
        process = harness.start(self.arguments(folder), ranks=2)
        self.wait_for_epochs(folder, 3)
        os.kill(harness.ranks_of(process)[0], signal.SIGUSR1)
        self.assertEqual(harness.finish(process, 60).status, 75)
        checkpoints = os.path.join(folder, "checkpoints")
        files = sorted((f for f in os.listdir(checkpoints) if os.path.getsize(os.path.join(checkpoints, f)) > 1000),
                       key=lambda f: os.stat(os.path.join(checkpoints, f)).st_mtime_ns)
        self.assertGreaterEqual(len(files), 2)
        with open(os.path.join(checkpoints, files[-1]), "r+b") as f:
            f.seek(os.path.getsize(f.name) // 2)
            byte = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([byte[0] ^ 1]))
        self.succeed(*self.arguments(folder), ranks=2)
        self.same_as_undisturbed(folder)

    def test_disk_full(self):
        """A file system that fills up while checkpoints are written: 74, and what was saved before can be resumed."""
        if os.geteuid() != 0:
            self.skipTest("a small file system can be mounted by root only")
        disk = self.path("disk")
        os.makedirs(disk)
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
        if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no permission to mount a file system")
        try:
            folder = os.path.join(disk, "run")
            self.stopped(folder)
            with open(os.path.join(disk, "ballast"), "wb", buffering=0) as f:
                try:
                    while True:
                        f.write(b"\0" * 4096)
                except OSError:
                    pass
            result = harness.run(*self.arguments(folder), ranks=2)
            self.assertEqual(result.status, 74, str(result))
            self.assertEqual(len(result.messages), 1, str(result))
            os.remove(os.path.join(disk, "ballast"))
            self.succeed(*self.arguments(folder), ranks=2)
            self.same_as_undisturbed(folder)
        finally:
            subprocess.run(["umount", "-l", disk], check=True)


if __name__ == "__main__":
    harness.main()
