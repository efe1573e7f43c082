"""Two network namespaces joined by a virtual cable, so that two ranks of one machine are two hosts to Open MPI. Root only."""
import os
import shutil
import stat
import subprocess


SEGMENT = 1448  # bytes of data in a packet of 1500 with IP's and TCP's headers and a time stamp


def quiet(*command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, universal_newlines=True)


class Cable:
    """`reason` says why there is none, or is None. Open MPI's daemon on the other host is started by an agent in `folder`."""

    def __init__(self, folder):
        self.a, self.b = "thaw-a-%d" % os.getpid(), "thaw-b-%d" % os.getpid()
        self.reason = self.lay()
        self.agent = os.path.join(folder, "agent")
        if self.reason:
            return
        with open(self.agent, "w") as f:
            f.write('#!/bin/sh\nshift\nexec ip netns exec %s unshare -u sh -c "hostname node-b; $*"\n' % self.b)
        os.chmod(self.agent, os.stat(self.agent).st_mode | stat.S_IXUSR)

    def lay(self):
        if os.geteuid() != 0:
            return "only root makes network namespaces"
        for tool in ("ip", "unshare"):
            if not shutil.which(tool):
                return "no " + tool
        a, b = self.a, self.b
        for command in (["netns", "add", a], ["netns", "add", b],
                        ["link", "add", "cable-a", "netns", a, "type", "veth", "peer", "name", "cable-b", "netns", b],
                        ["-n", a, "addr", "add", "10.77.0.1/24", "dev", "cable-a"],
                        ["-n", b, "addr", "add", "10.77.0.2/24", "dev", "cable-b"],
                        ["-n", a, "link", "set", "lo", "up"], ["-n", b, "link", "set", "lo", "up"],
                        ["-n", a, "link", "set", "cable-a", "up"], ["-n", b, "link", "set", "cable-b", "up"]):
            done = quiet("ip", *command)
            if done.returncode:
                return "ip %s: %s" % (" ".join(command), done.stderr.strip())
        for name in (a, b):  # which every kernel has; BBR, which some machines take, paces by timers that cost a virtual one much
            quiet("ip", "netns", "exec", name, "sysctl", "-w", "net.ipv4.tcp_congestion_control=reno")
        done = quiet("ip", "netns", "exec", a, "unshare", "-u", "hostname", "node-a")
        return done.stderr.strip() if done.returncode else None

    def remove(self):
        for name in (self.a, self.b):
            quiet("ip", "netns", "del", name)

    def limit(self, rate):
        """Both directions to `rate` (of tc, e.g. 1gbit). Returns why not, or None."""
        if not shutil.which("tc"):
            return "no tc"
        for name, device in ((self.a, "cable-a"), (self.b, "cable-b")):
            done = quiet("tc", "-n", name, "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate, "burst", "256kb",
                         "latency", "20ms")
            if done.returncode:
                return "tc tbf: " + done.stderr.strip()
        return None

    def show(self, host, *paths):
        return subprocess.run(["ip", "netns", "exec", host, "cat"] + list(paths), stdout=subprocess.PIPE, check=True,
                              universal_newlines=True).stdout

    def resent(self, host):
        """Bytes that TCP of a host sent a second time: packets that overtake each other between processors look lost to it."""
        names, values = [line.split()[1:] for line in self.show(host, "/proc/net/snmp").splitlines() if line.startswith("Tcp:")]
        return SEGMENT * int(dict(zip(names, values))["RetransSegs"])

    def traffic(self):
        """Bytes that left host A, and that came in, since the cable was laid; without what was sent a second time."""
        counted = self.show(self.a, "/sys/class/net/cable-a/statistics/tx_bytes", "/sys/class/net/cable-a/statistics/rx_bytes")
        return [int(n) - self.resent(host) for n, host in zip(counted.split(), (self.a, self.b))]

    def prefix(self):
        """Command prefix that starts one rank on each host."""
        name = ["ip", "netns", "exec", self.a, "unshare", "-u", "sh", "-c", 'hostname node-a; exec "$@"', "sh"]
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        return name + ["mpirun", "-n", "2", "--host", "10.77.0.1:1,10.77.0.2:1", "--bind-to", "none"] + root + [
            "--mca", "plm_rsh_agent", self.agent, "--mca", "btl", "tcp,self", "--mca", "pml", "ob1",
            "--mca", "btl_tcp_if_include", "10.77.0.0/24", "--mca", "oob_tcp_if_include", "10.77.0.0/24"]
