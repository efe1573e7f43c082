"""Virtual hosts on one machine: namespaces with a host name, an address on a bridge and processes of their own. Root only.

To Open MPI these are machines: the ranks of two hosts share neither memory nor a daemon, and a host can be lost.
"""
import os
import shutil
import signal
import stat
import subprocess
import time

from cable import quiet

KEEPALIVE = ["--mca", "oob_tcp_keepalive_time", "4", "--mca", "oob_tcp_keepalive_intvl", "2", "--mca",
             "oob_tcp_keepalive_probes", "2"]


class Hosts:
    """`reason` says why there are none, or is None. Host i of 1..n is called host-i and has the address 10.78.0.i."""

    def __init__(self, folder, n, rate=None, burst="256kb"):
        self.n, self.folder = n, folder
        self.bridge = "thaw%d" % os.getpid()
        self.inits, self.outer = {}, {}
        self.agent = os.path.join(folder, "agent")
        try:
            self.reason = self.make(rate, burst)
        except BaseException:
            self.remove()
            raise
        if not self.reason:
            with open(self.agent, "w") as f:  # argv: host, words of a shell command
                f.write('#!/bin/sh\nh=${1##*.}\nshift\nexec nsenter -t "$(cat %s/init-$h)" -n -u -p -m sh -c "$*"\n' % folder)
            os.chmod(self.agent, os.stat(self.agent).st_mode | stat.S_IXUSR)

    def space(self, i):
        return "thaw-%d-%d" % (os.getpid(), i)

    def address(self, i):
        return "10.78.0.%d" % i

    def make(self, rate, burst):
        if os.geteuid() != 0:
            return "only root makes network namespaces"
        for tool in ("ip", "unshare", "nsenter", "hostname") + (("tc",) if rate else ()):
            if not shutil.which(tool):
                return "no " + tool
        commands = [["ip", "link", "add", self.bridge, "type", "bridge"], ["ip", "link", "set", self.bridge, "up"]]
        for i in range(1, self.n + 1):
            space, port = self.space(i), "%s-%d" % (self.bridge, i)
            commands += [["ip", "netns", "add", space],
                         ["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space],
                         ["ip", "link", "set", port, "master", self.bridge, "up"],
                         ["ip", "-n", space, "link", "set", "lo", "up"],
                         ["ip", "-n", space, "addr", "add", self.address(i) + "/24", "dev", "eth0"],
                         ["ip", "-n", space, "link", "set", "eth0", "up"]]
            if rate:
                commands.append(["tc", "-n", space, "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst",
                                 burst, "latency", "20ms"])
        for command in commands:
            done = quiet(*command)
            if done.returncode:
                return "%s: %s" % (" ".join(command[:3]), done.stderr.strip())
        for i in range(1, self.n + 1):
            reason = self.boot(i)
            if reason:
                return reason
        return None

    def boot(self, i):
        """Starts the host's first process, in whose namespaces all others live. Returns why not, or None."""
        process = subprocess.Popen(["ip", "netns", "exec", self.space(i), "unshare", "-u", "-p", "-m", "-f", "--mount-proc",
                                    "--kill-child", "sh", "-c", "hostname host-%d; echo ready; exec sleep infinity" % i],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   universal_newlines=True, start_new_session=True)
        self.outer[i] = process
        if process.stdout.readline() != "ready\n":
            process.kill()
            return "unshare: " + process.communicate()[1].strip()
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as f:
            self.inits[i] = int(f.read().split()[0])
        with open(os.path.join(self.folder, "init-%d" % i), "w") as f:
            f.write("%d\n" % self.inits[i])
        return None

    def kill(self, i):
        """Ends a host with all its processes, as a kernel panic does but for the goodbyes of its connections."""
        os.kill(self.inits[i], signal.SIGKILL)
        self.outer[i].communicate()

    def cut(self, i, off=True):
        """Takes the plug of a host out, or back in: nobody hears of it."""
        quiet("ip", "link", "set", "%s-%d" % (self.bridge, i), "down" if off else "up")

    def remove(self):
        for i, process in self.outer.items():
            if process.poll() is None:
                process.kill()  # --kill-child: the host goes with it
            process.communicate()
        for i in range(1, self.n + 1):
            for _ in range(20):  # its processes may still be ending
                if quiet("ip", "netns", "del", self.space(i)).returncode == 0 or not os.path.exists(
                        "/run/netns/" + self.space(i)):
                    break
                time.sleep(0.1)
            quiet("ip", "link", "del", "%s-%d" % (self.bridge, i))
        quiet("ip", "link", "del", self.bridge)

    def traffic(self, i):
        """Bytes that left host i, and that came in."""
        done = subprocess.run(["ip", "netns", "exec", self.space(i), "cat", "/sys/class/net/eth0/statistics/tx_bytes",
                               "/sys/class/net/eth0/statistics/rx_bytes"], stdout=subprocess.PIPE, check=True)
        return [int(n) for n in done.stdout.split()]

    def processes(self, i):
        """Names of what runs on host i beside its first process."""
        names = []
        space = os.readlink("/proc/%d/ns/net" % self.inits[i])
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if int(pid) != self.inits[i] and os.readlink("/proc/%s/ns/net" % pid) == space:
                    with open("/proc/%s/comm" % pid) as f:
                        names.append(f.read().strip())
            except OSError:
                pass
        return names

    def prefix(self, hosts, slots=1, more=()):
        """Command prefix that starts `slots` ranks on each of some hosts; mpirun and its ranks run on the first one, but see all
        processes of the machine, since the agent enters the other hosts by them."""
        return ["nsenter", "-t", str(self.inits[hosts[0]]), "-n", "-u", "mpirun", "-n", str(len(hosts) * slots),
                "--host", ",".join("%s:%d" % (self.address(i), slots) for i in hosts), "--allow-run-as-root", "--bind-to",
                "none", "--mca", "plm_rsh_agent", self.agent, "--mca", "plm_rsh_no_tree_spawn", "1", "--mca", "btl",
                "tcp,self,vader", "--mca", "pml", "ob1", "--mca", "btl_tcp_if_include", "10.78.0.0/24", "--mca",
                "oob_tcp_if_include", "10.78.0.0/24", "--mca", "orte_tmpdir_base", self.folder, *more]
