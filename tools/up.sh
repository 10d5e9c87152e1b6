#!/usr/bin/env bash
# Bring a store up, or down: `tools/up.sh up`, `tools/up.sh down`, with STORE and MOUNT in the environment.
# Called by make. Either can be run again at any time: what is there already is left alone.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
ciaosfs=$here/.venv/bin/ciaosfs
if [ "$(id -u)" = 0 ]; then
    store=${STORE:-/var/lib/ciaosfs} mount=${MOUNT:-/mnt/ciaos}
else
    store=${STORE:-$HOME/.local/share/ciaosfs/store} mount=${MOUNT:-$HOME/ciaos}
fi
down='make down'
if [ -n "${MOUNT:-}" ]; then down="make down MOUNT=$(printf %q "$(realpath -ms "$MOUNT")")"; fi
store=$(realpath -ms "$store") mount=$(realpath -ms "$mount")

say() { printf '%s\n' "$*"; }
is_mounted() { # also true for a mount whose daemon is gone, which mountpoint(1) cannot look at
    awk -v want="$mount" '{ gsub(/\\040/, " ", $2) } $2 == want && $3 ~ /^fuse/ { found = 1 } END { exit !found }' \
        /proc/mounts
}
# The kernel answers stat from its cache; only a request that always goes to the daemon tells whether it lives.
is_dead() { is_mounted && ! timeout 20 stat -f -- "$mount" >/dev/null 2>&1; }
detach() { if [ "$(id -u)" = 0 ]; then umount -l -- "$mount"; else fusermount3 -uz -- "$mount"; fi; }

up() {
    if ! [ -c /dev/fuse ]; then
        say "There is no /dev/fuse here: load the kernel module with 'modprobe fuse' as root." >&2
        exit 1
    fi
    if is_dead; then
        say "The daemon behind $mount is gone; taking the dead mount away."
        detach
    fi
    if ! [ -e "$store/ciaosfs.toml" ]; then
        mkdir -p -- "$(dirname "$store")"
        "$ciaosfs" mkfs "$store"
    fi
    if ! is_mounted; then
        mkdir -p -- "$mount"
        "$ciaosfs" mount "$store" "$mount"
    fi
    say "
ciaosfs is mounted at $mount, its store is $store.
Three things to try:

  cp -a $here/ciaosfs $mount/ && diff -r $here/ciaosfs $mount/ciaosfs
  $ciaosfs status $mount
  mv $store/drives/d0 $store/drives/d0.away; cat $mount/ciaosfs/__init__.py; mv $store/drives/d0.away $store/drives/d0

'$down' unmounts it."
}

down() {
    if ! is_mounted; then
        say "Nothing is mounted at $mount."
    elif is_dead || ! [ -x "$ciaosfs" ]; then
        detach
        say "The daemon behind $mount was gone; the dead mount is taken away."
    else
        "$ciaosfs" umount "$mount"
        say "$mount is unmounted; all that was in it is on the drives."
    fi
}

case ${1:-} in up) up ;; down) down ;; *) say "usage: tools/up.sh up|down" >&2; exit 2 ;; esac
