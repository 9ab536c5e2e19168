#!/usr/bin/env bash
# Makes a fresh guest look like a Kubernetes node, then runs the command it was booted for.
#
#   guest.sh BASE SHARED [CACHED...]
#
# virtme-ng has mounted SHARED, read-write, at BASE/0 and the CACHED directories, read-only, at
# BASE/1, BASE/2, ...; each is moved to its own path here. SHARED/command.sh is run and its exit
# status left in SHARED/status: the machine's own exit status is lost on the way out.
set -eu

base=$1
shared=$2
shift 2

# Not the host's: what is left behind by tests must vanish with the machine.
mount -t tmpfs -o mode=1777 tmpfs /tmp

# The same directories, but with the guest's page cache: over an uncached 9p, every start of a
# program reads all of it again. Nobody writes to them while the machine runs.
number=0
for path in "$@"; do
    number=$((number + 1))
    tag=$(findmnt -n -o SOURCE "$base/$number")
    umount "$base/$number"
    mkdir -p "$path"
    mount -t 9p -o trans=virtio,version=9p2000.L,access=any,msize=512000,cache=loose,ro \
        "$tag" "$path"
done
mkdir -p "$shared" 2>/dev/null || true
mount --bind "$base/0" "$shared"

ip link set lo up
modprobe -a nvme-tcp nvmet nvmet-tcp loop ext4 xfs dm-multipath dm-round-robin
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config

mkdir -p /var/lib/kubelet /var/lib/rds-csi
mount -t tmpfs tmpfs /var/lib/kubelet
mount -t tmpfs tmpfs /var/lib/rds-csi
# The kubelet's mounts propagate into containers, so on a node everything is shared.
mount --make-rshared /

# The kernel's own words go to a file of their own, and only panics between those of the command.
dmesg --follow >"$shared/dmesg.log" &
dmesg --console-level alert

read -r uptime _ </proc/uptime
echo "lab: ready, Linux $(uname -r), ${uptime%.*} s after power-on"
status=0
bash "$shared/command.sh" || status=$?
echo "$status" >"$shared/status"
sync
