#!/usr/bin/env bash
# Make this checkout ready: system packages, the virtual environment .venv, ciaosfs installed into it.
#
#   tools/setup.sh run    what a mount needs
#   tools/setup.sh dev    and what the tests, the benchmark and the checkers need (the default)
#
# apt-get is called only when something is missing, and a second run does nothing: a stamp in .venv remembers
# for which pyproject.toml it was made. Set PYTHON to choose an interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-dev}
case $what in run | dev) ;; *) echo "usage: tools/setup.sh [run|dev]" >&2; exit 2 ;; esac
venv=.venv

say() { printf '%s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }
is_good_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# The names of the Debian packages that would bring what is missing here.
missing_packages() {
    local python=$1 header
    if [ -z "$python" ]; then
        echo python3 python3-venv python3-dev
    else
        "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$(debian_name "$python")-venv"
        header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
        [ -e "$header" ] || echo "$(debian_name "$python")-dev"
    fi
    has fusermount3 || echo fuse3
    has gcc || echo gcc
    [ -e /usr/include/stdio.h ] || echo libc6-dev
    if has pkg-config; then pkg-config --exists fuse3 || echo libfuse3-dev; else echo pkg-config libfuse3-dev; fi
    [ "$what" = dev ] || return 0
    has setfattr || echo attr
    has setfacl || echo acl
    has rsync || echo rsync
    has git || echo git
    has prove || echo perl
}

# python3.12 belongs to the packages python3.12-venv and -dev, python3 to python3-venv and -dev.
debian_name() { basename "$(command -v "$1")"; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if has "$candidate" && is_good_python "$candidate"; then echo "$candidate"; return; fi
    done
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
can_be_root() { [ "$(id -u)" = 0 ] || has sudo; }

install_packages() {
    if ! has apt-get || ! can_be_root; then
        say "These system packages are missing: $*."
        say "Install them as root (on Debian and Ubuntu: apt-get install $*) and run this again."
        exit 1
    fi
    say "Installing system packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends "$@" >&2
}

# libisal2 codes several times faster than zfec alone; ciaosfs does without it where it is not to be had.
install_libisal() {
    ldconfig -p 2>/dev/null | grep -q 'libisal\.so\.2' && return
    has apt-get && can_be_root || return 0
    as_root apt-get install -y -qq --no-install-recommends libisal2 >/dev/null 2>&1 ||
        say "libisal2 is not available here: coding will be done by zfec alone."
}

is_fresh() { # a stamp for this level or a higher one, newer than what it was made from
    local stamp
    for stamp in "$venv/.ready-dev" "$venv/.ready-$what"; do
        if [ -e "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ] && [ ! tools/setup.sh -nt "$stamp" ] &&
            "$venv/bin/python" -c 'import ciaosfs' 2>/dev/null; then
            return 0
        fi
    done
    return 1
}

python=$(find_python)
mapfile -t packages < <(missing_packages "$python" | tr ' ' '\n')
if [ "${#packages[@]}" -gt 0 ]; then
    install_packages "${packages[@]}"
    install_libisal
    python=$(find_python)
    if [ -z "$python" ]; then
        say "ciaosfs needs Python 3.11 or newer; this system's python3 is older. Install one and set PYTHON."
        exit 1
    fi
fi
if is_fresh; then exit 0; fi

install_libisal
if ! [ -x "$venv/bin/python" ] || ! is_good_python "$venv/bin/python"; then
    say "Making $venv with $($python --version)"
    "$python" -m venv --clear "$venv"
fi
say "Installing ciaosfs and what it needs into $venv (pyfuse3 is built here, that takes a minute)"
requirement=.
[ "$what" = run ] || requirement=".[dev]"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$requirement"
touch "$venv/.ready-$what"
