# shellcheck shell=bash
# A base image with redis-server for where none can be pulled: Debian, by debootstrap. Sourced, not run.

DEBIAN_RELEASE=bookworm

# redis_base: sets REDIS_IMAGE, unless it is set, to an image that is there.
redis_base() {
    [[ -z "${REDIS_IMAGE:-}" ]] || return 0
    export REDIS_IMAGE=redis:7-alpine
    if docker image inspect "$REDIS_IMAGE" >/dev/null 2>&1 || timeout 120 docker pull --quiet "$REDIS_IMAGE" >/dev/null 2>&1; then
        return
    fi
    REDIS_IMAGE="roundsman/redis-base:$DEBIAN_RELEASE"
    docker image inspect "$REDIS_IMAGE" >/dev/null 2>&1 && return
    note "redis:7-alpine cannot be pulled; making a Debian base with redis-server"
    local cache="${XDG_CACHE_HOME:-$HOME/.cache}/roundsman"
    local archive
    archive="$cache/redis-$DEBIAN_RELEASE-$(uname -m).tar"
    [[ -s "$archive" ]] || debian_with_redis "$archive"
    docker import --change 'WORKDIR /data' --change 'VOLUME /data' --change 'USER redis' \
        "$archive" "$REDIS_IMAGE" >/dev/null || die "docker import failed"
}

# debian_with_redis FILE: a minimal Debian with redis-server as a tar file.
debian_with_redis() {
    local archive="$1" tree
    apt_install debootstrap debootstrap
    mkdir -p "$(dirname "$archive")"
    tree="$(mktemp -d "${TMPDIR:-/tmp}/roundsman-debian.XXXXXX")"
    if ! as_root debootstrap --variant=minbase --include=redis-server,redis-tools "$DEBIAN_RELEASE" "$tree" >"$tree.log" 2>&1; then
        tail -n 20 "$tree.log" >&2
        as_root rm -rf "$tree" "$tree.log"
        die "debootstrap failed; is the Debian mirror reachable, and is this root?"
    fi
    as_root mkdir -p "$tree/data"
    as_root chroot "$tree" chown redis:redis /data
    # The file appears under its name only when it is whole.
    as_root tar --directory "$tree" --exclude=./var/cache/apt --exclude=./var/lib/apt/lists --exclude=./usr/share/doc \
        --exclude=./usr/share/locale --exclude=./usr/share/man --exclude=./proc --exclude=./sys --create . >"$archive.new"
    mv "$archive.new" "$archive"
    as_root rm -rf "$tree" "$tree.log"
}
