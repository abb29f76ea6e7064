# What every kind of emulated machine is made of; sourced by tests/vm/KIND/run. No hardware virtualization and, once the
# packages are there, no root powers are needed. A machine boots Debian's kernel, unpacked and never installed, and a
# root file system in memory that holds busybox, the wanted modules and the wanted programs with their libraries. Its
# serial line is its log.
#
# A kind is a folder with the scripts run (on this machine, below is an example), init (the first process of the emulated
# one, see guest.sh) and check.py (judges the log, see told.py):
#
#     . "$(dirname "$0")/../machine.sh"
#     need v4l2-ctl:v4l-utils
#     fetch_kernel
#     new_root
#     add_modules vivid
#     add_programs "$(program)" "$(command -v v4l2-ctl)"
#     boot 900
#     check
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=${CARGO_TARGET_DIR:-target}
kind=$(basename "$(dirname "$0")")
here=tests/vm/$kind   # What the kind is made of.
work=$target/vm/$kind # What is made of it: root/, root.gz and log.
root=$work/root
export PATH="$PATH:/usr/sbin:/sbin"

say() { echo "tests/vm/$kind: $*" >&2; }

# Installs the packages of programs that are missing.
need() { # PROGRAM:PACKAGE...
    missing=""
    for pair; do
        command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    as_root apt-get update -qq
    # shellcheck disable=SC2086 # One word for each package.
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -qq -y --no-install-recommends $missing >/dev/null
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo --preserve-env=DEBIAN_FRONTEND "$@"; fi; }

# The daemon: the one in $MOBILEVLMD, or else the release build, built if it is missing.
program() {
    [ -n "${MOBILEVLMD:-}" ] || [ -x "$target/release/mobilevlmd" ] || cargo build --release --workspace --bins >&2
    echo "${MOBILEVLMD:-$target/release/mobilevlmd}"
}

# A program of the tests, built if it is missing.
example() { # NAME
    [ -x "$target/release/examples/$1" ] || cargo build --release --workspace --bins --examples >&2
    echo "$target/release/examples/$1"
}

newest_kernel() {
    apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# Unpacks Debian's kernel and keeps it for the next run. Sets kernel (a folder) and release (the kernel's name).
fetch_kernel() {
    need qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio modprobe:kmod dpkg-deb:dpkg python3:python3
    package=$(newest_kernel)
    if [ -z "$package" ]; then
        as_root apt-get update -qq
        package=$(newest_kernel)
    fi
    if [ -z "$package" ]; then
        say "no package linux-image-amd64: this test needs Debian's package lists"
        exit 1
    fi
    kernel=$target/vm/$package
    if [ ! -e "$kernel/ready" ]; then
        rm -rf "${kernel:?}"
        mkdir -p "$kernel"
        (cd "$kernel" && apt-get download -qq "$package" 2>/dev/null && dpkg-deb -x ./*.deb . && rm ./*.deb)
        depmod -b "$kernel" "$(ls "$kernel/lib/modules")"
        touch "$kernel/ready"
    fi
    release=$(ls "$kernel/lib/modules")
}

# Begins an empty root file system with busybox, guest.sh and the kind's init.
new_root() {
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,lib,proc,sys,tmp,run,modules}
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp tests/vm/guest.sh "$root/lib/guest.sh"
    cp "$here/init" "$root/init"
}

# Adds modules and what they depend on; guest.sh loads them by name.
add_modules() { # NAME...
    for name; do
        modprobe -d "$kernel" -S "$release" --show-depends "$name" | sed -n 's/^insmod \([^ ]*\).*/\1/p' >"$work/order"
        while read -r module; do
            cp "$module" "$root/modules/"
        done <"$work/order"
        sed 's|.*/||' "$work/order" >"$root/modules/$name.order"
    done
}

# Adds programs of this machine with the libraries they need.
add_programs() { # PATH...
    for binary; do
        cp "$binary" "$root/bin/"
        { ldd "$binary" 2>/dev/null || true; } | grep -o '/[^ ]*' | while read -r library; do
            mkdir -p "$root$(dirname "$library")"
            cp -nL "$library" "$root$library"
        done
    done
}

# Runs the machine until it powers itself off. Arguments of qemu stand over the ones here: another -append, a -drive.
boot() { # SECONDS-AT-MOST [QEMU-ARGUMENT]...
    limit=$1
    shift
    (cd "$root" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet) | gzip -1 >"$work/root.gz"
    status=0
    # The guest's time is that of the instructions it executes, two nanoseconds each, and it sleeps in no time: however
    # busy this machine is, the guest sees none of it.
    timeout "$limit" qemu-system-x86_64 -machine pc -accel tcg -icount shift=1,sleep=off -cpu max -smp 1 -m 768 -nodefaults -no-user-config \
        -no-reboot -display none -serial stdio -kernel "$kernel/boot/vmlinuz-$release" -initrd "$work/root.gz" \
        -append "console=ttyS0 quiet panic=-1" "$@" </dev/null >"$work/log" || status=$?
    if [ "$status" != 0 ]; then
        tail -n 20 "$work/log" >&2
        say "the machine ended with status $status after $SECONDS s; its whole log is $work/log"
        exit 1
    fi
}

# Judges the log.
check() { # [ARGUMENT]...
    PYTHONPATH=tests/vm PYTHONDONTWRITEBYTECODE=1 python3 "$here/check.py" "$work/log" "$@"
}

mkdir -p "$work"
