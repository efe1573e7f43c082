#!/bin/bash
# The quickstart (and with --tests all tests) on a Debian 12 without our packages:     tests/cli/bare_system.sh [--tests]
# Makes a fresh Debian root with debootstrap (from the addresses that this machine's apt uses), copies the files of the last
# commit into it and runs jobs/quickstart.sh there. Root only; needs debootstrap, git, about 3 GB in $TMPDIR. Run by
# tests/run.sh --tier long. Exit status 77: cannot be run here.
set -eu
cd "$(dirname "$0")/../.."
command=jobs/quickstart.sh
[ "${1:-}" != --tests ] || command=tests/run.sh
[ "$(id -u)" -eq 0 ] || { echo "only root makes a Debian root"; exit 77; }
command -v debootstrap >/dev/null || { echo "no debootstrap"; exit 77; }
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | sort -u | head -1)
[ -n "$mirror" ] || { echo "apt has no source of packages"; exit 77; }
root=$(mktemp -d)
cleanup() {
    for place in dev proc sys; do
        ! mountpoint -q "$root/$place" || umount -l "$root/$place"
    done
    rm -rf --one-file-system "$root"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -20 "$root.log"; rm -f "$root.log"; exit 1; }
rm -f "$root.log"
# Names and proxies of this machine, which the root has not.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
cp -a /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
[ ! -d /usr/local/share/ca-certificates ] || cp -aL /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mkdir -p "$root/thaw"
git archive HEAD | tar -x -C "$root/thaw"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"
mount -t sysfs sysfs "$root/sys"
echo "running $command in a bare Debian $(cat "$root/etc/debian_version")"
chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} sh -c "cd /thaw && $command"
