#!/usr/bin/env python3
"""The scripts of jobs/slurm on a real SLURM of four nodes, all on this machine (slurm.py): whole, stopped, over time, with a
dead node. What an interrupted run leaves has the bits of an undisturbed one on as many ranks."""
import csv
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
import slurm  # noqa: E402
from keras_file import small_network  # noqa: E402

SCRIPTS = os.path.join(harness.ROOT, "jobs", "slurm")
EPOCHS = 40


class Slurm(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster = None
        try:
            cls.cluster = slurm.Cluster(nodes=4).__enter__()
        except slurm.Missing as missing:
            super().tearDownClass()
            print("no SLURM here: %s" % missing, file=sys.stderr)
            raise unittest.SkipTest(str(missing))
        cls.addClassCleanup(cls.cluster.close)
        cls.model = small_network(os.path.join(cls.shared, "small.h5"), batch_norm=True)
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 14, "b": 13, "c": 13})
        cls.file = harness.write_job(os.path.join(cls.shared, "job.yaml"), {
            "model": {"base": cls.model},
            "data": {"train": cls.train, "validation_split": 0.2, "preprocess": "rescale",
                     "augment": {"horizontal_flip": True}},
            "training": {"seed": 5, "batch_size": 10, "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
            "stages": [{"name": "head", "freeze": "before:fc1", "epochs": 2, "optimizer": {"name": "adam"}},
                       {"name": "late", "freeze": "before:block2_conv1", "epochs": EPOCHS,
                        "batch_norm_statistics": "batch", "optimizer": {"name": "sgd", "learning_rate": 0.01}}],
            "cache": "off",
            "output": os.path.join(cls.shared, "undisturbed")})
        cls.expected = {}

    def undisturbed(self, ranks, *more):
        """model.h5 and history of a run without SLURM on as many ranks."""
        if (ranks, more) not in self.expected:
            folder = os.path.join(self.shared, "undisturbed-%d" % len(self.expected))
            self.succeed("train", self.file, "--set", "output=" + folder, *more, ranks=ranks)
            self.expected[ranks, more] = harness.read_bytes(os.path.join(folder, "model.h5")), harness.history(folder)
        return self.expected[ranks, more]

    def submit(self, script, *arguments, job=True, nodes=1, tasks=1, options=(), **env):
        """sbatch of a script of jobs/slurm as it is, by default with the job file; its #SBATCH lines ask for a large machine,
        options for this one."""
        self.log = self.path("job-%s.log" % ("%A-%a" if script == "array.sbatch" else "%j"))
        # Open MPI as root, more ranks than cores, ranks of several "nodes" on the same cores.
        env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "THAW": harness.THAW,
               **harness.ENVIRONMENT, **env}
        job = self.cluster.sbatch(
            os.path.join(SCRIPTS, script), *([self.file] if job else []), *arguments, env=env,
            options=["--nodes=%d" % nodes, "--ntasks-per-node=%d" % tasks, "--cpus-per-task=1", "--mem=200", "--time=5",
                     "--oversubscribe", "--no-kill=off", "--output=" + self.log, "--chdir=" + self.dir, *options])
        self.log = self.log.replace("%j", job)
        return job

    def text(self, log=None):
        try:
            return harness.read_bytes(log or self.log).decode(errors="replace")[-6000:]
        except OSError:
            return "(no log)"

    def everything(self, job):
        """For messages: the job, its log, what the daemons said of it."""
        said = []
        for name in sorted(os.listdir(self.cluster.base)):
            if name.endswith(".log"):
                lines = self.text(os.path.join(self.cluster.base, name)).splitlines()
                said += ["%s: %s" % (name, line) for line in lines[-30:]]
        return "\n".join([str(self.cluster.job(job)), self.text(), *said])

    def ended(self, job, seconds=150, state="COMPLETED", code="0:0"):
        """The job has ended in this way."""
        found = self.cluster.wait(job, seconds)
        self.assertEqual((found["JobState"], found["ExitCode"]), (state, code), self.everything(job))

    def ranks(self):
        """Process ids of thaw on all nodes."""
        found = []
        for pid in [p for keeper in self.cluster.keepers.values() for p in slurm.children(keeper.pid)]:
            try:
                if os.readlink("/proc/%d/exe" % pid) == os.path.realpath(harness.THAW):
                    found.append(pid)
            except OSError:
                pass
        return found

    def hold(self, job, rows=3):
        """Waits until a run has some epochs behind it and holds its ranks (SIGSTOP), so that no machine is too fast. False:
        it was stopped before."""
        file = os.path.join(self.path("run"), "history.csv")
        begun = harness.wait_for(lambda: os.path.exists(file) and len(harness.history(self.path("run"))) >= rows or
                                 self.ranks() == [] and "thaw ended" in self.text(), 60, 0.005)
        self.assertTrue(begun, "no epochs: " + self.everything(job))
        return self.signal_ranks(signal.SIGSTOP) > 0

    def signal_ranks(self, number):
        ranks = self.ranks()
        for rank in ranks:
            try:
                os.kill(rank, number)
            except ProcessLookupError:
                pass
        return len(ranks)

    def pending(self, number):
        """A held rank has been sent this signal."""
        for rank in self.ranks():
            try:
                with open("/proc/%d/status" % rank) as f:
                    bits = [int(line.split()[1], 16) for line in f if line.startswith(("SigPnd", "ShdPnd"))]
            except OSError:
                bits = []
            if any(b >> (number - 1) & 1 for b in bits):
                return True
        return False

    def requeued(self, job, seconds=40):
        """The job is back in the queue; it is started at once."""
        found = self.cluster.wait(job, seconds, ("PENDING", "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"))
        self.assertEqual((found["JobState"], found["Restarts"]), ("PENDING", "1"), self.everything(job))
        self.assertFalse(os.path.exists(self.path("run", "model.h5")), "the run was at its end when it was interrupted")

    def same_as_undisturbed(self, folder, ranks, *more, starts=1):
        model, rows = self.undisturbed(ranks, *more)
        self.assertEqual(harness.history(folder), rows)
        self.assertTrue(harness.read_bytes(os.path.join(folder, "model.h5")) == model, "model.h5 differs")
        begun = harness.events(folder, "start")
        self.assertEqual([(e["resumed"], e["ranks"]) for e in begun], [(i > 0, ranks) for i in range(starts)])

    def whole(self, script, ranks, **more):
        short = ("--set", "stages.1.epochs=2")
        job = self.submit(script, "--set", "output=" + self.path("run"), *short, **more)
        self.ended(job)
        self.same_as_undisturbed(self.path("run"), ranks, *short)

    def test_one_node(self):
        self.whole("one-node.sbatch", 2, tasks=2)
        self.assertIn("2 ranks on 1 host x 1 thread", self.text())
        self.assertIn("the allocation ends in", self.text())
        if len(os.sched_getaffinity(0)) >= 2:
            self.assertNotIn("thaw: warning", self.text())

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "one core")
    def test_threads_of_a_rank(self):
        """The cores of a task are those of its rank's threads."""
        self.whole("one-node.sbatch", 1, options=["--cpus-per-task=2"])
        self.assertIn("1 rank on 1 host x 2 threads", self.text())
        self.assertNotIn("thaw: warning", self.text())

    def test_many_nodes_mpirun(self):
        self.whole("many-nodes.sbatch", 4, nodes=4)
        self.assertIn("4 ranks on 4 hosts", self.text())

    def test_many_nodes_srun(self):
        self.whole("many-nodes.sbatch", 4, nodes=4, LAUNCH="srun")
        self.assertIn("4 ranks on 4 hosts", self.text())

    def test_scaling(self):
        """A report with a row for each number of ranks and plan."""
        report = self.path("report")
        job = self.submit("scaling.sbatch", "--model", self.model, "--batch", "4", "--global-batch", "8", "--repeat", "1",
                          job=False, nodes=4, THAW_REPORT=report)
        self.ended(job, 150)
        with open(os.path.join(report, "scaling.csv"), newline="") as f:
            rows = list(csv.DictReader(f))
        for scaling in ("strong", "weak"):
            found = {(row["plan"], int(row["ranks"])) for row in rows if row["scaling"] == scaling}
            self.assertEqual(found, {(plan, ranks) for plan in ("head", "late", "everything") for ranks in (1, 2, 4)})
        self.assertTrue(all(float(row["images_per_second"]) > 0 for row in rows), rows)
        self.assertTrue(os.path.getsize(os.path.join(report, "scaling.html")) > 0)

    def test_array(self):
        """A learning rate for each task; the one without a value says so."""
        rates = ["0.02", "0.001"]
        job = self.submit("array.sbatch", "--set", "stages.1.epochs=1", options=["--array=0-2"], tasks=1,
                          OUTPUT=self.path("rates"), KEY="stages.1.optimizer.learning_rate", VALUES=" ".join(rates))
        losses = set()
        for task, rate in enumerate(rates):
            self.log = self.path("job-%s-%d.log" % (job, task))
            self.ended("%s_%d" % (job, task))
            rows = harness.history(self.path("rates", "stages.1.optimizer.learning_rate=" + rate))
            self.assertEqual([row["learning_rate"] for row in rows][-1], float(rate))
            losses.add(rows[-1]["loss"])
        self.assertEqual(len(losses), len(rates))
        self.log = self.path("job-%s-2.log" % job)
        self.ended(job + "_2", state="FAILED", code="64:0")
        self.assertIn("has no value", self.text())

    def stop_and_requeue(self, launch):
        """USR1, as SLURM sends it before the time limit and at preemption."""
        run = self.path("run")
        job = self.submit("requeue.sbatch", "--set", "output=" + run, nodes=2, LAUNCH=launch)
        self.assertTrue(self.hold(job))
        self.cluster.command("scancel", "--batch", "--signal=USR1", job)
        self.assertTrue(harness.wait_for(lambda: self.pending(signal.SIGUSR1), 20), "no rank got USR1\n" + self.text())
        self.signal_ranks(signal.SIGCONT)
        self.requeued(job)
        self.assertEqual([e["status"] for e in harness.events(run, "end")], [75])
        self.assertIn("stopped on request", self.text())
        self.cluster.release(job)
        self.ended(job)
        self.same_as_undisturbed(run, 2, starts=2)

    def test_requeue_mpirun(self):
        self.stop_and_requeue("mpirun")

    def test_requeue_srun(self):
        self.stop_and_requeue("srun")

    def test_time_limit(self):
        """The allocation of a minute (SLURM gives no less) ends too early; thaw knows it and needs no signal."""
        run, began = self.path("run"), time.monotonic()
        job = self.submit("requeue.sbatch", "--set", "output=" + run, "--set", "checkpoint.before_end=50", nodes=2,
                          options=["--time=1", "--signal=B:USR1@1"])
        if self.hold(job, 1):
            time.sleep(max(0.0, began + 11.0 - time.monotonic()))  # a slow run
            self.signal_ranks(signal.SIGCONT)
        self.requeued(job)
        self.assertEqual([e["status"] for e in harness.events(run, "end")], [75])
        self.assertIn("stopped before the end of the allocation", self.text())
        self.cluster.release(job, "TimeLimit=5")
        self.ended(job)
        self.same_as_undisturbed(run, 2, starts=2)

    def test_dead_node(self):
        """kill -9 of a node with all that runs on it; the job starts again on the nodes that are left."""
        run = self.path("run")
        job = self.submit("requeue.sbatch", "--set", "output=" + run, nodes=2)
        self.assertTrue(self.hold(job))
        nodes = self.cluster.command("squeue", "-h", "-j", job, "-o", "%N")
        dead = self.cluster.command("scontrol", "show", "hostnames", nodes).split()[1]
        self.cluster.kill_node(dead)
        self.signal_ranks(signal.SIGCONT)
        try:
            self.requeued(job)
            self.cluster.release(job)
            self.ended(job)
            self.assertNotIn(dead, self.cluster.job(job)["NodeList"])
            self.same_as_undisturbed(run, 2, starts=2)
        finally:
            self.cluster.start_node(dead)
            self.cluster.command("scontrol", "update", "NodeName=" + dead, "State=RESUME", check=False)


def stop(number, frame):
    sys.exit(128 + number)  # a time limit from outside: the cluster is taken down on the way


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    harness.main()
