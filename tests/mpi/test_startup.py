#!/usr/bin/env python3
"""What thaw says before it starts: warnings of places and hosts that will make a run slow, and none where all is well."""
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402
from hosts import Hosts  # noqa: E402
from keras_file import small_network  # noqa: E402

# Says that a path is on NFS, or that /dev/shm is full.
OTHER_SYSTEM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
int statfs(const char *path, struct statfs *out) {
    int (*real)(const char *, struct statfs *) = (int (*)(const char *, struct statfs *))dlsym(RTLD_NEXT, "statfs");
    int error = real(path, out);
    if (!error && getenv("OTHER_NFS") && strstr(path, getenv("OTHER_NFS"))) out->f_type = 0x6969;
    return error;
}
int statvfs(const char *path, struct statvfs *out) {
    int (*real)(const char *, struct statvfs *) = (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
    int error = real(path, out);
    if (!error && getenv("OTHER_SHM") && strcmp(path, "/dev/shm") == 0) { out->f_bavail = 1 << 20; out->f_frsize = 1; }
    return error;
}
"""


class Startup(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = small_network(os.path.join(cls.shared, "model.h5"))
        cls.train = harness.make_folders(os.path.join(cls.shared, "train"), {"a": 5, "b": 5, "c": 5})
        cls.preload = os.path.join(cls.shared, "other.so")
        with open(os.path.join(cls.shared, "other.c"), "w") as f:
            f.write(OTHER_SYSTEM)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", cls.preload, f.name, "-ldl"], check=True)

    def train_words(self, prefix=None, ranks=2, **env):
        """Standard error of a short training."""
        job = harness.write_job(self.path("job.yaml"), {
            "model": {"base": self.model}, "data": {"train": self.train, "preprocess": "rescale"},
            "training": {"batch_size": 5, "loss": "categorical_crossentropy"},
            "stages": [{"freeze": "before:fc1", "optimizer": {"name": "sgd"}}], "output": self.path("run")})
        return self.succeed("train", job, "--resume", "never", ranks=ranks, prefix=prefix, env=env).err

    def test_nothing_to_say(self):
        if len(os.sched_getaffinity(0)) < 2:
            self.skipTest("one core")
        for ranks in (1, 2):
            text = self.train_words(ranks=ranks)
            self.assertNotIn("warning", text)
            self.assertNotIn("stage_data", text)
            self.assertNotIn("network", text)

    def test_one_core_for_all(self):
        if len(os.sched_getaffinity(0)) < 2 or not shutil.which("taskset"):
            self.skipTest("one core, or no taskset")
        core = min(os.sched_getaffinity(0))
        prefix = harness.mpirun(2) + ["taskset", "-c", str(core)]
        self.assertRegex(self.train_words(prefix=prefix), r"warning: 2 threads of 2 ranks were bound to 1 core of a host that has "
                                                          r"\d+: start with mpirun --bind-to none")

    def test_too_many_threads(self):
        cores = len(os.sched_getaffinity(0))
        self.assertRegex(self.train_words(OMP_NUM_THREADS=cores + 1),
                         r"warning: %d threads of 2 ranks share %d core" % (2 * cores + 2, cores))

    def test_network_file_system(self):
        text = self.train_words(LD_PRELOAD=self.preload, OTHER_NFS=self.train)
        self.assertRegex(text, r"\n\S+/train lies on NFS: .*data\.stage_data: node-local")
        self.assertNotIn("lies on", self.train_words(LD_PRELOAD=self.preload, OTHER_NFS="/nowhere"))

    def test_little_shared_memory(self):
        text = self.train_words(LD_PRELOAD=self.preload, OTHER_SHM="1")
        if "Open MPI" not in text:
            self.skipTest("not Open MPI")
        self.assertRegex(text, r"warning: /dev/shm of a host has \d+ MB less than Open MPI takes for its 2 ranks")

    def test_another_build(self):
        program = self.path("thaw")
        shutil.copy(harness.THAW, program)
        with open(program, "ab") as f:
            f.write(b"another build")
        text = self.train_words(prefix=harness.on_rank(1, 2, "shift; set -- %s \"$@\"" % program))
        self.assertRegex(text, r"warning: rank 1 \(.+\) runs another build of thaw than rank 0")

    def network(self, n, words, rate=None, slow=None):
        """What is said of a network of n virtual hosts, of which host-2 may have a slower link. The hosts share this machine:
        where others load it, any of them may be the slow one for a moment, so words that do not come get more chances."""
        hosts = Hosts(self.shared, n, rate, "64kb")  # more would be much of what a short probe sends
        try:
            if hosts.reason:
                self.skipTest(hosts.reason)
            if slow:
                # A short queue: acknowledgements of what comes into host-2 wait in it too.
                subprocess.run(["tc", "-n", hosts.space(2), "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", slow, "burst",
                                "64kb", "latency", "2ms"], check=True)
            for _ in range(8):
                text = self.train_words(prefix=hosts.prefix(range(1, n + 1)))
                if re.search(words, text):
                    break
            fastest = re.search(r"to ([\d.]+) GB/s into a host", text)
            if slow and fastest and float(fastest.group(1)) < 0.3 and not re.search(words, text):
                self.skipTest("this machine is busy: no link between its virtual hosts is faster than the slow one")
            self.assertRegex(text, words)
            return text
        finally:
            hosts.remove()

    def test_slow_network(self):
        text = self.network(2, r"warning: only [\d.]+ MB/s come into host-[12] over the network", rate="200mbit")
        found = re.search(r"network between 2 hosts: ([\d.]+) to ([\d.]+) GB/s into a host, \d+ us", text)
        self.assertTrue(found, text)
        for value in found.groups():
            self.assertLess(float(value), 0.032)
            self.assertGreater(float(value), 0.005)

    def test_uneven_network(self):
        """What host-2 sends comes into host-3."""
        self.network(3, r"warning: the network is uneven: [\d.]+ GB/s come into host-3", slow="1200mbit")


if __name__ == "__main__":
    harness.main()
