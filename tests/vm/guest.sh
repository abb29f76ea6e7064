# Sourced by the init of an emulated machine: the first process, in a root file system with nothing but busybox.
# shellcheck shell=sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# The bus shares memory.
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
dmesg -n 1

# Loads a module after those it depends on. Parameters are for the module itself.
load() { # MODULE [PARAMETER]...
    order=/modules/$1.order
    shift
    last=$(tail -n 1 "$order")
    while read -r module; do
        name=$(echo "${module%.ko}" | tr - _)
        if [ -d "/sys/module/$name" ]; then
            continue
        elif [ "$module" = "$last" ]; then
            insmod "/modules/$module" "$@"
        else
            insmod "/modules/$module"
        fi
    done <"$order"
}

# What a case says is kept until it has ended, since two may run side by side; its lines begin with its name.
case_of() { # NAME PROGRAM ARGUMENTS...
    begin "$@"
    finish "$1"
}
begin() { # NAME PROGRAM ARGUMENTS...
    name=$1
    shift
    "$@" >"/tmp/$name" 2>&1
}
finish() { # NAME...
    for name; do
        sed "s/^/@$name /" "/tmp/$name"
        echo "@$name end"
    done
}

try() { mobilevlmd cameras --json --try "$@"; }
control() { v4l2-ctl -d "$1" -c "$2"; }

# Tells that everything was run, and powers off.
over() {
    echo "@machine end"
    poweroff -f
}
