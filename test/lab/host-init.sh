#!/bin/bash
# The first process of a lab's host (or of its fabric): mounts what a host of its own has, then reaps what is handed to it.
# Its end is a power cut: the kernel ends every process of its pid namespace. It ends by itself with the one who holds the
# other end of descriptor 3, so that a crashed test leaves no host running; SKEP_LAB_KEPT=yes: it does not.
#   host-init.sh MARK fabric
#   host-init.sh MARK HOSTNAME FOLDER
set -eu
name=$2
if [ "$name" != fabric ]; then
  folder=$3
  mount --make-rslave /
  mount -t proc proc /proc
  mkdir -p /var/lib/docker /etc/docker
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/lock /run/docker /run/cgroups
  mount --rbind /sys/fs/cgroup /run/cgroups
  mount -t sysfs sysfs /sys # of this network namespace
  mount --rbind /run/cgroups /sys/fs/cgroup
  umount -l /run/cgroups
  rmdir /run/cgroups
  hostname "$name"
  echo "$name" >"$folder/hostname"
  touch /etc/hostname
  mount --bind "$folder/hostname" /etc/hostname
  mount --bind "$folder/etc-hosts" /etc/hosts
  mount --bind "$folder/resolv.conf" /etc/resolv.conf
  mkdir -p "$folder/etc-docker" "$folder/docker"
  mount --bind "$folder/etc-docker" /etc/docker
  mount --bind "$folder/docker" /var/lib/docker
fi
ip link set lo up
trap '' HUP INT QUIT TERM
echo up
exec >/dev/null
# A shell reaps while it waits, not while it reads.
if [ "${SKEP_LAB_KEPT:-}" = yes ]; then sleep infinity & else cat <&3 >/dev/null & fi
exec 3<&-
wait $!
