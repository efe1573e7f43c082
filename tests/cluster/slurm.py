"""A real SLURM on this machine for tests: munge, slurmctld and several slurmd, each a node of its own, in a temporary folder.

    with slurm.Cluster(nodes=4) as cluster:        # slurm.Missing says in one line why there can be none
        job = cluster.sbatch("script.sbatch", "argument", options=["--nodes=2"])
        cluster.wait(job, 60)                      # {"JobState": "COMPLETED", "ExitCode": "0:0", ...}

Root only: installs Debian's packages where they are missing. Everything listens on ports of its own. Each daemon runs below
a keeper (this file as a program), which inherits what the daemon leaves behind (SLURM's job steps are orphans by design), so
a node can be killed with all that it runs, and nothing that others started is ever touched. Needs no systemd, no cgroups.
"""
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PACKAGES = ["munge", "slurmctld", "slurmd", "slurm-client", "libpmix-dev", "openmpi-bin"]
PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "mpirun"]
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ENVIRONMENT = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}

# Debian's slurmd is built for several on one host (-N, %n). config_overrides: nodes may have more cores than the machine.
CONFIGURATION = """
ClusterName=thaw
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdTimeout=20
SlurmctldTimeout=20
MessageTimeout=10
MinJobAge=600
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
SlurmctldPidFile={base}/slurmctld.pid
SlurmctldLogFile={base}/slurmctld.log
StateSaveLocation={base}/state
SlurmdPidFile={base}/slurmd.%n.pid
SlurmdLogFile={base}/slurmd.%n.log
SlurmdSpoolDir={base}/spool.%n
TmpFS={base}/tmp.%n
MailProg=/bin/true
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cores} RealMemory=1500
PartitionName=main Nodes=ALL Default=YES MaxTime=30 State=UP
"""


class Missing(Exception):
    """There can be no cluster here; the text says why."""


def children(pid):
    """All processes below `pid`."""
    found, todo = [], [pid]
    while todo:
        at = todo.pop()
        try:
            for task in os.listdir("/proc/%d/task" % at):
                with open("/proc/%d/task/%s/children" % (at, task)) as f:
                    below = [int(p) for p in f.read().split()]
                found += below
                todo += below
        except OSError:
            pass
    return found


def kill_below(pid, seconds=10):
    """Kills everything below `pid`, also what starts meanwhile."""
    end = time.monotonic() + seconds
    below = children(pid)
    while below and time.monotonic() < end:
        for process in below:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
        below = [p for p in children(pid) if not is_dead(p)]


def is_dead(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def keep(command):
    """The keeper of a daemon: its orphans become children of this process, which ends with its parent or with the daemon, and
    takes all of them along."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def end(number, frame):
        kill_below(os.getpid())
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL).pid
    while os.wait()[0] != daemon:
        pass
    kill_below(os.getpid())
    sys.exit(1)


def install():
    """Debian's packages, if they are missing. The machine's own daemons are not started: there may be no systemd, and ours
    are others."""
    def lacks():
        return [p for p in PROGRAMS if not shutil.which(p, path=ENVIRONMENT["PATH"])]
    if os.geteuid() != 0:
        raise Missing("only root can start a SLURM of its own")
    pmix = "/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so"  # srun's plug-in opens this name, which libpmix-dev has
    if lacks() or not os.path.exists(pmix):
        if not shutil.which("apt-get"):
            raise Missing("no %s, and no apt-get to install packages" % ", ".join(lacks() or [pmix]))
        policy = "/usr/sbin/policy-rc.d"
        ours = not os.path.exists(policy)
        try:
            if ours:
                with open(policy, "w") as f:
                    f.write("#!/bin/sh\nexit 101\n")
                os.chmod(policy, 0o755)
            for arguments in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends"] + PACKAGES):
                subprocess.run(["apt-get"] + arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                               timeout=90)
        except (OSError, subprocess.TimeoutExpired):
            pass
        finally:
            if ours and os.path.exists(policy):
                os.remove(policy)
    if lacks():
        raise Missing("the packages %s cannot be installed: no %s" % (" ".join(PACKAGES), ", ".join(lacks())))


def free_ports(n):
    """A row of `n` ports that nobody listens on now, below those that the kernel hands out."""
    for first in range(20000 + os.getpid() % 500 * 20, 32000, n):
        sockets = []
        try:
            for port in range(first, first + n):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            pass
        finally:
            for s in sockets:
                s.close()
    raise Missing("no free ports")


class Cluster:
    def __init__(self, nodes=4, cores=2):
        install()
        first = free_ports(nodes + 1)
        self.names = ["n%d" % (i + 1) for i in range(nodes)]
        self.base = tempfile.mkdtemp(prefix="thaw-slurm-")
        os.chmod(self.base, 0o755)  # munge trusts no folder that others may write to
        self.keepers = {}
        self.environment = {**os.environ, **ENVIRONMENT, "SLURM_CONF": self.base + "/slurm.conf"}
        for name in [k for k in self.environment if k.startswith(("SLURM_JOB", "SLURM_STEP", "SBATCH_", "OMPI_", "PMIX_"))]:
            del self.environment[name]
        for folder in ["state"] + ["%s.%s" % (kind, n) for n in self.names for kind in ("spool", "tmp")]:
            os.mkdir(os.path.join(self.base, folder))
        with open(self.base + "/slurm.conf", "w") as f:
            f.write(CONFIGURATION.format(host=socket.gethostname().split(".")[0], base=self.base, nodes=nodes, cores=cores,
                                         port=first, first=first + 1, last=first + nodes))
        with open(self.base + "/cgroup.conf", "w") as f:
            f.write("CgroupPlugin=cgroup/v1\n")  # the other one asks systemd
        with open(os.open(self.base + "/munge.key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
            f.write(os.urandom(128))

    def __enter__(self):
        try:
            self.keep("munge", ["munged", "--foreground"] + ["--%s=%s/munge.%s" % (option, self.base, name) for option, name in (
                ("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))])
            self.wait_until(lambda: os.path.exists(self.base + "/munge.socket"), 10, "munged does not start", "munge.log")
            self.keep("slurmctld", ["slurmctld", "-D", "-c", "-f", self.base + "/slurm.conf"])
            for name in self.names:
                self.start_node(name)
            self.wait_until(lambda: self.idle() == len(self.names), 30, "the nodes do not come up", "slurmctld.log")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for name in list(self.keepers):
            self.stop_keeper(name)
        shutil.rmtree(self.base, ignore_errors=True)

    def keep(self, name, command):
        with open("%s/%s.out" % (self.base, name), "ab") as out:
            self.keepers[name] = subprocess.Popen([sys.executable, os.path.abspath(__file__)] + command, cwd=self.base,
                                                  stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment)

    def stop_keeper(self, name):
        keeper = self.keepers.pop(name)
        kill_below(keeper.pid)
        keeper.terminate()
        try:
            keeper.wait(15)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()

    def start_node(self, name):
        self.keep(name, ["slurmd", "-D", "-c", "-N", name, "-f", self.base + "/slurm.conf"])

    def kill_node(self, name):
        """kill -9 of slurmd and of everything that it started; the controller then hears that the node is down."""
        self.stop_keeper(name)
        self.command("scontrol", "update", "NodeName=" + name, "State=DOWN", "Reason=killed")

    def wait_until(self, condition, seconds, words, log):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or any(k.poll() is not None for k in self.keepers.values()):
                raise Missing("%s: %s" % (words, self.last_line(log)))
            time.sleep(0.1)

    def last_line(self, log):
        for name in (log, log.replace(".log", ".out")):
            try:
                with open(os.path.join(self.base, name), errors="replace") as f:
                    lines = [line.strip() for line in f if line.strip()]
                if lines:
                    return lines[-1]
            except OSError:
                pass
        return "it says nothing"

    def command(self, *words, env=None, check=True):
        result = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env={**self.environment, **(env or {})}, timeout=30)
        if check and result.returncode:
            raise RuntimeError("%s: %s" % (" ".join(words), result.stderr.strip()))
        return result.stdout.strip() if result.returncode == 0 else ""

    def idle(self):
        return sum(int(n) for n in self.command("sinfo", "-h", "-t", "idle", "-o", "%D", check=False).split())

    def sbatch(self, script, *arguments, options=(), env=None):
        """Number of the job, as text."""
        return self.command("sbatch", "--parsable", *options, script, *arguments, env=env)

    def job(self, number):
        """What `scontrol show job` says, as a dictionary."""
        words = self.command("scontrol", "-o", "show", "job", number).split()
        return dict(word.partition("=")[::2] for word in words)

    def release(self, number, *changes):
        """A requeued job waits two minutes by SLURM's own rule; an administrator need not, once its old steps are gone."""
        alive = [n for n in self.names if n in self.keepers]
        end = time.monotonic() + 30
        while time.monotonic() < end and (any(len(children(self.keepers[n].pid)) > 1 for n in alive) or
                                          self.idle() < len(alive)):
            time.sleep(0.1)
        time.sleep(1.2)  # slurmd refuses a start in the second in which the job was ended: "already killed, do not launch"
        self.command("scontrol", "update", "JobId=" + number, "StartTime=now", *changes)

    def wait(self, number, seconds, states=("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY")):
        """The job when it is in one of the states, or after so many seconds."""
        end = time.monotonic() + seconds
        job = self.job(number)
        while job["JobState"] not in states and time.monotonic() < end:
            time.sleep(0.1)
            job = self.job(number)
        return job


if __name__ == "__main__":
    keep(sys.argv[1:])
