# shellcheck shell=bash
# What the build.sh of each container shares. Sourced, not run; needs common.sh.

NETWORK=service_discovery

need_docker() {
    has docker || die "docker is missing; on Debian: apt-get install docker.io"
    docker info >/dev/null 2>&1 || die "no Docker engine answers; start one, or name its socket in DOCKER_HOST"
}

# services: the names of all services that have a container.
services() {
    local file
    for file in "$ROOT"/services/*/Dockerfile; do basename "$(dirname "$file")"; done
}

# static_binaries: builds roundsman and all services so that they run in an empty image. One call for all of them:
# the second build.sh finds nothing left to do. Sets BINARIES to their folder.
static_binaries() {
    need_rust
    local triple name packages=(-p roundsman-cli)
    triple="$(uname -m)-unknown-linux-gnu"
    for name in $(services); do packages+=(-p "roundsman-$name"); done
    note "building static binaries (release; some minutes the first time)"
    (cd "$ROOT" && RUSTFLAGS="-C target-feature=+crt-static" "$CARGO" build --quiet --release --target "$triple" \
        --bins "${packages[@]}") || die "the build failed"
    good "static binaries built"
    # shellcheck disable=SC2034  # for the build.sh that called this
    BINARIES="$TARGET_DIR/$triple/release"
}

# gather NAME FOLDER FILE...: puts FOLDER's Dockerfile and these files into target/container/NAME and sets CONTEXT to
# it, so that the engine is sent nothing else.
gather() {
    CONTEXT="$TARGET_DIR/container/$1"
    rm -rf "$CONTEXT" && mkdir -p "$CONTEXT"
    cp "$2/Dockerfile" "${@:3}" "$CONTEXT/"
}

# image NAME [BUILD OPTIONS...]: builds roundsman/NAME from CONTEXT.
image() {
    local name="$1" log
    shift
    step "Image roundsman/$name"
    log="$(docker build --tag "roundsman/$name" "$@" "$CONTEXT" 2>&1)" || die "docker build failed: $log"
    good "$(docker image inspect --format '{{.Size}}' "roundsman/$name" | awk '{ printf "%.1f MB", $1 / 1e6 }')"
}

# run_container NAME OPTIONS...: runs roundsman/NAME as the container NAME on the network, in place of an earlier one.
# What follows -- goes to the program.
run_container() {
    local name="$1" options=()
    shift
    while (($#)) && [[ "$1" != -- ]]; do
        options+=("$1")
        shift
    done
    (($# == 0)) || shift
    docker network inspect "$NETWORK" >/dev/null 2>&1 || docker network create "$NETWORK" >/dev/null
    # SIGTERM first, so that a service says goodbye to discovery.
    docker stop --time 10 "$name" >/dev/null 2>&1 || true
    docker rm --force --volumes "$name" >/dev/null 2>&1 || true
    step "Container $name"
    docker run --detach --name "$name" --network "$NETWORK" --restart unless-stopped "${options[@]}" \
        "roundsman/$name" "$@" >/dev/null || die "docker run failed"
}

# is_healthy NAME: what the image's own health check says.
is_healthy() { [[ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" == healthy ]]; }

# wait_healthy NAME
wait_healthy() {
    wait_or_log "$1" 60 "container $1 to be healthy" is_healthy "$1"
    good "healthy"
}

# is_registered SERVICE: whether discovery hands it out.
is_registered() { docker exec discovery /roundsman get "$1"; }

# wait_registered SERVICE
wait_registered() {
    wait_or_log "$1" 60 "$1 to be handed out by discovery" is_registered "$1"
    good "registered at $(docker exec discovery /roundsman get "$1")"
}

# wait_or_log NAME SECONDS WHAT COMMAND...: like wait_for, with the container's log when it was in vain.
wait_or_log() {
    local name="$1"
    shift
    if ! (wait_for "$@"); then
        docker logs --tail 20 "$name" >&2 || true
        exit 1
    fi
}
