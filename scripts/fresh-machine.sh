#!/bin/bash
# Try the README's words on a fresh Debian 12: debootstrap, a clean clone, `make run`, `make test`.
#
#   scripts/fresh-machine.sh [TARGET...]      make's targets, default: run test
#
# Needs root, debootstrap and the network; mirror, proxies, certificates and pip's settings are
# those of this machine. Works on a tmpfs in mount and pid namespaces of its own, so nothing is
# left behind, whatever happens. FRESH_SHELL=1 ends with a shell inside.
set -eu

readonly include=python3,git,make,ca-certificates suite=bookworm

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" -eq 0 ] || { echo 'fresh-machine: needs root' >&2; exit 1; }
    command -v debootstrap >/dev/null || { echo 'fresh-machine: needs debootstrap' >&2; exit 1; }
    work=$(mktemp -d /tmp/stowage-fresh-XXXXXX)
    trap 'rmdir "$work"' EXIT
    unshare --mount --pid --fork --kill-child --propagation slave -- \
        "$0" --inside "$work" "${@:-run test}"
    exit
fi

readonly work=$2 root=$2/root
repository=$(git -C "$(dirname "$(readlink -f "$0")")" rev-parse --show-toplevel)
shift 2
read -ra targets <<<"$*"

say() { printf '\nfresh-machine: %s\n' "$*"; }

mirror() {  # this machine's own, whatever it is
    apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" | head -n 1
}

mount -t tmpfs -o size=6g,mode=0755 fresh "$work"
mkdir -p "$root"
say "debootstrap $suite with $include"
started=$SECONDS
debootstrap --variant=minbase --include="$include" "$suite" "$root" "$(mirror)" \
    >"$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log"; exit 1; }
say "debootstrap took $((SECONDS - started)) s"

# what belongs to the place, not to the machine: names, proxies, certificates, where pip looks
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/xdg/pip /root/.config/pip /usr/local/share/ca-certificates; do
    if [ -e "$file" ]; then
        mkdir -p "$root$(dirname "$file")"
        cp -rL "$file" "$root$(dirname "$file")/"
    fi
done
cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
chroot "$root" update-ca-certificates >/dev/null 2>&1 || true
# directories of packages that pip's settings name
for directory in $(pip config list 2>/dev/null | grep -oE "(^|[ '=]|file://)/[^ ']+" | grep -o '/[^/].*'); do
    if [ -d "$directory" ]; then
        mkdir -p "$root$directory"
        mount -o bind,ro "$directory" "$root$directory"
    fi
done

git clone -q --no-local "$repository" "$root/root/stowage"
say "cloned $(git -C "$root/root/stowage" log -1 --format='%h %s')"

mount --bind "$root" "$root"   # pivot_root(2) wants the root to be a mount point
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=0755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"

inside() {
    env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        $(env | grep -E '^(PIP_[A-Z_]+|[a-z]+_proxy|[A-Z]+_PROXY)=[^ ]*$') \
        chroot "$root" sh -c "cd /root/stowage && $1"
}

status=0
for target in "${targets[@]}"; do
    say "make $target"
    started=$SECONDS
    inside "make $target </dev/null" || { status=$?; say "make $target FAILED ($status)"; }
    say "make $target took $((SECONDS - started)) s"
done
if [ -n "${FRESH_SHELL:-}" ]; then
    inside bash || true
fi
exit "$status"
