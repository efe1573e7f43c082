#!/usr/bin/env python3
"""SimGrid platforms: fat trees of 100 Gbit/s and 10 Gbit/s Ethernet.     fat_tree.py writes platforms/ for 4 to 512 hosts

Up to 16 hosts hang on one switch. More: 16 hosts on each leaf switch, 8 links from a leaf up (2:1 oversubscribed), as many spine
switches. Latency is that of a link: a message between leaves passes four.
"""
import os

HERE = os.path.dirname(os.path.abspath(__file__))
NETWORKS = {"100g": ("12.5GBps", "500ns"), "10g": ("1.25GBps", "5us")}
LEAF, UP = 16, 8
HOSTS = (4, 8, 16, 32, 64, 128, 256, 512)


def tree(hosts):
    if hosts <= LEAF:
        return "1;%d;1;1" % hosts, hosts
    leaves = -(-hosts // LEAF)
    return "2;%d,%d;1,%d;1,1" % (LEAF, leaves, UP), leaves * LEAF


def platform(network, hosts):
    bandwidth, latency = NETWORKS[network]
    shape, nodes = tree(hosts)
    return """<?xml version='1.0'?>
<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<platform version="4.1">
  <cluster id="cluster" prefix="node-" suffix="" radical="0-%d" speed="1Gf" bw="%s" lat="%s"
           topology="FAT_TREE" topo_parameters="%s" loopback_bw="10GBps" loopback_lat="100ns"/>
</platform>
""" % (nodes - 1, bandwidth, latency, shape)


def main():
    for network in NETWORKS:
        for hosts in HOSTS:
            with open(os.path.join(HERE, "platforms", "%s-%d.xml" % (network, hosts)), "w") as f:
                f.write(platform(network, hosts))


if __name__ == "__main__":
    main()
