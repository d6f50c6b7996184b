#!/bin/busybox sh
# First process of a guest: sets up what tests expect of a host, does what /plan says, switches off.
# The kernel talks to the first serial port, this script and the tests to the second.
export PATH=/usr/sbin:/usr/bin HOME=/ TMPDIR=/tmp
b=/bin/busybox
$b mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS1 2>&1
# The tests' output arrives as it was written.
$b stty -F /dev/ttyS1 raw
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t tracefs trace /sys/kernel/tracing
$b mount -t cgroup2 cgroup /sys/fs/cgroup
$b mkdir -p /dev/pts /dev/shm /run /tmp
$b mount -t devpts pts /dev/pts
$b mount -t debugfs debug /sys/kernel/debug
# On an emulated CPU a tick comes every few thousand instructions. Kernels that preempt what runs in the kernel (7.2) would do so in the
# middle of tracing programs, whose hits on that CPU are then missed: longer slices, and none cut short by who wakes up.
echo NO_WAKEUP_PREEMPTION >/sys/kernel/debug/sched/features
slice=/sys/kernel/debug/sched/base_slice_ns
[ ! -e $slice ] || echo 100000000 >$slice
# Not over what tests are to find there: the project may have been built below one of them.
for dir in /dev/shm /run /tmp; do
    [ -n "$($b ls $dir)" ] || $b mount -t tmpfs tmpfs $dir
done
$b chmod 1777 /tmp /dev/shm
# sysfs gives it 4 KB a call, which takes an emulated CPU half a second, for each tracer that starts.
$b cp /sys/kernel/btf/vmlinux /run/btf
$b mount -o bind /run/btf /sys/kernel/btf/vmlinux
$b ln -s /proc/self/fd /dev/fd
for module in $($b cat /modules/order); do
    $b insmod /modules/$module.ko || echo "vm: module $module is refused"
done
$b ip link set lo up
$b hostname guest
echo "vm: kernel $($b uname -r)"
. /plan
$b sync
$b poweroff -f
