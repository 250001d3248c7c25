#!/bin/bash
# Set up this checkout: the Debian packages that containers need, then .venv with Stowage in it.
#
# Safe to run again at any time; when nothing is to be done it takes a fraction of a second.
# What cannot be installed is named with what it would have brought, and the rest goes on.
# STOWAGE_SETUP_RETRY=1 tries again what failed before.
set -u
cd "$(dirname "$0")/.." || exit 1

readonly venv=.venv stamp=.venv/.setup-stamp failed=.venv/.setup-failed
exec </dev/null   # nothing here may wait for an answer

# package | what it brings
readonly packages='
python3-venv|the virtual environment
gcc|python-iptables is built with it
python3-dev|python-iptables is built with it
e2fsprogs|ext4 disks in tests and benchmarks
xfsprogs|xfs disks (reflink copies) in tests and benchmarks
btrfs-progs|btrfs disks and the btrfs driver
crun|running containers (the OCI runtime of choice)
runc|running containers (the other OCI runtime)
conmon|detached containers: logs, exit codes, terminals
nftables|published ports and the firewall backend nftables
iptables|the firewall backend iptables
libfuse2|drivers that live in user space (FUSE)
libarchive13|reading image layers
busybox-static|the busybox image
debootstrap|the debian image
zsh|the tests of completion in zsh
fish|the tests of completion in fish
'

say() { printf 'setup: %s\n' "$*"; }

note_failure() {  # NAME WHAT-IT-WOULD-HAVE-BROUGHT
    say "could not install $1; without it: $2"
    printf '%s|%s\n' "$1" "$2" >>"$failed.new"
}

installed() {  # PACKAGE: whether dpkg has it, under its name of before or after the t64 transition
    dpkg-query -W -f '${Status}\n' "$1" "${1}t64" 2>/dev/null | grep -q '^install ok installed$'
}

failed_before() { [ -z "${STOWAGE_SETUP_RETRY:-}" ] && grep -qs "^$1|" "$failed"; }

brings() { printf '%s' "$packages" | sed -n "s/^$1|//p"; }

missing_packages() {
    local present name
    # one call for all; only what it does not list is looked at more closely
    present=$(printf '%s' "$packages" | sed -n 's/|.*//p' |
        xargs dpkg-query -W -f '${Package} ${Status}\n' 2>/dev/null)
    for name in $(printf '%s' "$packages" | sed -n 's/|.*//p'); do
        grep -q "^$name install ok installed$" <<<"$present" && continue
        installed "$name" || printf '%s\n' "$name"
    done
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends \
        -o Dpkg::Use-Pty=0 install "$@" >"$log" 2>&1
}

install_packages() {  # NAME...
    local log name
    log=$(mktemp)
    if ! apt_install "$@"; then
        say 'refreshing the package lists'
        apt-get -q update >"$log" 2>&1 || say "apt-get update: $(grep -m1 '^E:' "$log")"
        if ! apt_install "$@"; then
            for name in "$@"; do
                installed "$name" || apt_install "$name" || {
                    say "$(grep -m1 '^E:' "$log" || tail -n 1 "$log")"
                    note_failure "$name" "$(brings "$name")"
                }
            done
        fi
    fi
    rm -f "$log"
}

debian_packages() {
    local wanted=() name
    if ! command -v dpkg-query >/dev/null; then
        say 'not a Debian system: install by its own means what this would bring:'
        printf '%s' "$packages" | sed -n 's/\([^|]*\)|\(.*\)/         \1: \2/p'
        return
    fi
    for name in $(missing_packages); do
        if failed_before "$name"; then
            grep "^$name|" "$failed" >>"$failed.new"
        else
            wanted+=("$name")
        fi
    done
    [ ${#wanted[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        say "not root, so no Debian package is installed. As root: apt-get install ${wanted[*]}"
        for name in "${wanted[@]}"; do
            say "  without $name: $(brings "$name")"
        done
        return
    fi
    say "installing Debian packages: ${wanted[*]}"
    install_packages "${wanted[@]}"
}

find_python() {  # Debian's own first: python3-venv and python3-dev belong to it
    local candidate
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    say 'no Python 3.11 or later was found' >&2
    return 1
}

pip_install() {  # its output is shown only when it fails
    local output
    output=$("$venv/bin/python" -m pip --disable-pip-version-check --no-input install \
        -q --use-pep517 "$@" 2>&1) && return
    printf '%s\n' "$output" | grep -v '^WARNING: Location' | tail -n 15 >&2
    return 1
}

virtual_environment() {
    local python extra wanted
    wanted=$(cat pyproject.toml scripts/setup.sh | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -z "${STOWAGE_SETUP_RETRY:-}" ]; then
        grep -s '^stowage\[' "$failed" >>"$failed.new"
        return 0
    fi
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python) || return 1
        say "making $venv with $("$python" --version)"
        rm -rf "${venv:?}"/{bin,lib,lib64,include,pyvenv.cfg}
        "$python" -m venv "$venv" || {
            say "could not make $venv (apt-get install python3-venv)"
            return 1
        }
    fi
    say 'installing Stowage and its tools into .venv'
    pip_install -e '.[dev]' || { say 'pip failed; see above'; return 1; }
    extra='stowage[fuse]'
    pip_install -e '.[fuse]' || note_failure "$extra" 'drivers that live in user space'
    extra='stowage[iptables]'
    pip_install -e '.[iptables]' || note_failure "$extra" 'the firewall backend iptables'
    printf '%s\n' "$wanted" >"$stamp"
}

started=$SECONDS
mkdir -p "$venv"
: >"$failed.new"
debian_packages
virtual_environment || { rm -f "$failed.new"; exit 1; }
mv "$failed.new" "$failed"
while IFS='|' read -r name what; do
    say "still without $name ($what); STOWAGE_SETUP_RETRY=1 make setup tries again"
done <"$failed"
[ $((SECONDS - started)) -gt 2 ] && say "done in $((SECONDS - started)) s"
exit 0
