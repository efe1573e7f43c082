"""What the Python tests share: running thaw, job files, tiny data sets. Needs Debian 12's Python, numpy, h5py, Pillow.

    THAW_BIN      the program under test (default: build/thaw of this checkout)
    THAW_TIER     default | long: long tests do more repetitions
"""
import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
THAW = os.path.abspath(os.environ.get("THAW_BIN", os.path.join(ROOT, "build", "thaw")))
LONG = os.environ.get("THAW_TIER", "default") == "long"
# Open MPI in a container: no permission for process_vm_readv, and more ranks than cores.
ENVIRONMENT = {"OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMPI_MCA_rmaps_base_oversubscribe": "1",
               "OMPI_MCA_mpi_yield_when_idle": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


@functools.lru_cache(None)
def library():
    """What the program under test was built with: "Open MPI", "MPICH" or "single process"."""
    line = subprocess.run([THAW, "--version"], stdout=subprocess.PIPE, universal_newlines=True, check=True,
                          env=environment()).stdout.splitlines()[-1]
    return "MPICH" if line.startswith("MPICH") else "Open MPI" if line.startswith("Open MPI") else line


def mpirun(ranks):
    """Command prefix for `ranks` processes on this machine; nothing for ranks = 0 (one process, without mpirun)."""
    if not ranks:
        return []
    if library() == "MPICH":
        return [shutil.which("mpirun.mpich") or "mpirun", "-n", str(ranks)]
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [shutil.which("mpirun.openmpi") or "mpirun", "-n", str(ranks)] + root + ["--oversubscribe", "--bind-to", "none"]


def on_rank(rank, ranks, shell):
    """Command prefix for `ranks` processes, of which one runs the shell words before it becomes thaw."""
    return mpirun(ranks) + ["sh", "-c", '[ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" != %d ] || { %s; }; exec "$@"' % (rank, shell), "sh"]


class Result:
    """Exit status, standard output and standard error of a finished command."""

    def __init__(self, command, status, out, err):
        self.command, self.status, self.out, self.err = command, status, out, err

    def __str__(self):
        return "%s\nstatus %s\n--- stdout\n%s\n--- stderr\n%s" % (" ".join(self.command), self.status, self.out[-4000:],
                                                                   self.err[-4000:])

    @property
    def messages(self):
        """The error lines: those that begin with "thaw: " and are no warnings."""
        return [line for line in self.err.splitlines()
                if line.startswith("thaw: ") and not line.startswith("thaw: warning")]

    @property
    def json(self):
        return json.loads(self.out)


def environment(more=None):
    return {**os.environ, **ENVIRONMENT, **{k: str(v) for k, v in (more or {}).items()}}


def start(arguments, ranks=0, env=None, cwd=None, prefix=None):
    """Starts thaw in a process group of its own; its outputs go to temporary files (no pipe can fill up)."""
    command = (mpirun(ranks) if prefix is None else prefix) + [THAW] + [str(a) for a in arguments]
    out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=environment(env),
                               start_new_session=True)
    process.thaw_files = (command, out, err)
    return process


def finish(process, timeout=120):
    """Waits for a process and returns its Result. After `timeout` seconds its group is killed: status "timeout"."""
    command, out, err = process.thaw_files
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        status = "timeout"
        os.killpg(process.pid, signal.SIGTERM)  # mpirun takes its ranks along
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    texts = []
    for f in (out, err):
        f.seek(0)
        texts.append(f.read())
        f.close()
    return Result(command, status, *texts)


def run(*arguments, ranks=0, env=None, cwd=None, timeout=120, prefix=None):
    return finish(start(arguments, ranks, env, cwd, prefix), timeout)


def ranks_of(process):
    """Process ids of the thaw processes below a started mpirun (or the process itself)."""
    found, todo = [], [process.pid]
    while todo:
        pid = todo.pop()
        try:
            with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
                todo += [int(p) for p in f.read().split()]
            if os.path.realpath("/proc/%d/exe" % pid) == os.path.realpath(THAW):
                found.append(pid)
        except OSError:
            pass
    return sorted(found)


def rank_processes(process):
    """Process id by rank of a started mpirun's ranks, of those that can be looked at."""
    found = {}
    for pid in ranks_of(process):
        try:
            words = dict(w.split("=", 1) for w in read_bytes("/proc/%d/environ" % pid).decode().split("\0") if "=" in w)
            found[int(words.get("OMPI_COMM_WORLD_RANK", words.get("PMI_RANK", "0")))] = pid
        except (OSError, UnicodeDecodeError):
            pass
    return found


def wait_for(condition, timeout=60, pause=0.02):
    """Waits until condition() is true and returns its value; the last value after `timeout` seconds."""
    end = time.monotonic() + timeout
    value = condition()
    while not value and time.monotonic() < end:
        time.sleep(pause)
        value = condition()
    return value


def write_job(path, job):
    """Writes a job (nested dicts and lists) as YAML; JSON's flow form is YAML. Text is written as it is."""
    with open(path, "w") as f:
        f.write(job if isinstance(job, str) else json.dumps(job, indent=1) + "\n")
    return path


def history(folder):
    """Rows of history.csv; numbers as float."""
    with open(os.path.join(folder, "history.csv"), newline="") as f:
        return [{k: v if k == "stage" else float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(f)]


def events(folder, kind=None):
    """Lines of log.jsonl, all or those of one event."""
    with open(os.path.join(folder, "log.jsonl")) as f:
        lines = [json.loads(line) for line in f]
    return [e for e in lines if kind is None or e["event"] == kind]


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def image(kind, rng, size):
    """One 8-bit RGB picture of `kind` 0, 1, 2, ...: noise with a bright band or spot that a small network can learn."""
    height, width = size
    x = rng.normal(100, 30, (height, width, 3))
    at = int(rng.integers(1, max(2, min(height, width) // 2)))
    if kind % 3 == 0:
        x[at:at + height // 4] += 90
    elif kind % 3 == 1:
        x[:, at:at + width // 4] += 90
    else:
        x[at:at + height // 3, at:at + width // 3, kind % 2] += 140
    return x.clip(0, 255).astype("u1")


def make_folders(root, counts, size=(16, 16), seed=1, suffix=".png"):
    """Class folders: counts = {"cat": 20, "dog": 17}. Returns root."""
    rng = np.random.default_rng(seed)
    for kind, (name, count) in enumerate(counts.items()):
        os.makedirs(os.path.join(root, name), exist_ok=True)
        for i in range(count):
            file = os.path.join(root, name, "%03d%s" % (i, suffix))
            Image.fromarray(image(kind, rng, size), "RGB").save(file)
    return root


class Case(unittest.TestCase):
    """A test with a temporary folder `self.dir` and assertions on results."""
    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        if not os.access(THAW, os.X_OK):
            raise RuntimeError("no program to test: " + THAW)
        cls.shared = tempfile.mkdtemp(prefix="thaw-test-")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.shared, ignore_errors=True)

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="t-", dir=self.shared)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def succeed(self, *arguments, **options):
        result = run(*arguments, **options)
        self.assertEqual(result.status, 0, str(result))
        return result

    def assert_close(self, a, b, relative, what=""):
        self.assertLessEqual(abs(a - b), relative * max(abs(a), abs(b), 1e-30), "%s: %.9g and %.9g" % (what, a, b))


class Outcome(unittest.TextTestResult):
    """Counts tests, not subtests: a test with failing subtests is one failed test."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.bad = set()

    def _note(self, test):
        self.bad.add(getattr(test, "test_case", test).id())

    def addError(self, test, err):
        self._note(test)
        super().addError(test, err)

    def addFailure(self, test, err):
        self._note(test)
        super().addFailure(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._note(test)
        super().addSubTest(test, subtest, err)


def main():
    """Runs the tests of the calling file; the last line is "N passed, M failed, K skipped"."""
    runner = unittest.TextTestRunner(stream=sys.stderr, resultclass=Outcome,
                                     verbosity=int(os.environ.get("THAW_VERBOSE", "1")))
    result = unittest.main(module="__main__", testRunner=runner, exit=False).result
    failed, skipped = len(result.bad), len(result.skipped)
    passed = max(0, result.testsRun - len([b for b in result.bad if not b.startswith("setUpClass")]) - skipped)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped), flush=True)
    sys.exit(failed > 0)
