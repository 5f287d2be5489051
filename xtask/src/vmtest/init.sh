#!/bin/busybox sh
# The first and only process that the virtual machine starts by itself. It mounts what tests need
# and runs the script that the suite wrote. What tests print goes to the second serial line, what the
# kernel prints to the first. Lines that begin with "vmtest:" are for the program that started it.
/bin/busybox mkdir -p /bin /sbin /proc /sys /dev /host /lib/modules
/bin/busybox --install -s /bin
export PATH=/bin
# The kernel calls it for modules that something asks for.
ln -s /bin/busybox /sbin/modprobe
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
stty -F /dev/ttyS1 raw
exec </dev/null >/dev/ttyS1 2>&1
. /vmtest/names

fail() {
    echo "vmtest: failed: $1"
    poweroff -f
}

modprobe -a virtio_pci virtiofs || fail "the kernel has no virtiofs"
# All files of the machine that this one runs on, which nothing in here may change.
mount -t virtiofs -o ro host /host || fail "cannot mount the files of the host"
mount -t tmpfs tmpfs "/host$SCRATCH" || fail "cannot mount a folder for temporary files"
mount -t tmpfs tmpfs /host/run || fail "cannot mount /run"
for folder in proc sys dev; do
    mount --rbind "/$folder" "/host/$folder" || fail "cannot mount /$folder"
done
mount -t bpf bpf /host/sys/fs/bpf || fail "the kernel has no BPF file system"
# From here on every module there is can be loaded.
mount --bind "/host$KERNEL/lib/modules" /lib/modules || fail "cannot mount the modules"
ip link set lo up
export HOME="$SCRATCH" TMPDIR="$SCRATCH"

# Runs a program of the host. Its name is shown the way cargo does, which is how it is counted.
run() {
    echo "     Running $(basename "$1" | sed 's/-[0-9a-f]*$//') ($1)"
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot /host "$@"
    echo "vmtest: exit $?"
}

echo "vmtest: up $(uname -r)"
. /vmtest/script
echo "vmtest: done"
poweroff -f
