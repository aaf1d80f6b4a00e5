#!/usr/bin/env bash
# Earlier releases with today's build: their command line with today's server, and today's with their servers.
#
#   ./scripts/test-releases.sh                                      builds them out of the history of git
#   RELEASES="v1=/path/to/roundsman v2=/path" ./scripts/test-releases.sh    takes these
#   NOW=/path/to/roundsman ./scripts/test-releases.sh               takes this as today's build
#
# 0 when every step held with each of them, or when there is no history to build them from, which it says aloud.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source=scripts/lib/http.sh
source "$ROOT/scripts/lib/http.sh"

# The protocol's version, and the last commit that spoke no later one. Append only.
HISTORY=(
    "v1 a96512f"
    "v2 b6f3a9c"
)
STEPS=(register get list watch drain status graph evicted reconnected deregister expect)

TMP="$(mktemp -d "${TMPDIR:-/tmp}/roundsman-releases.XXXXXX")"
PIDS=()
TABLE=()
FAILED=''

clean_up() {
    local pid
    for pid in "${PIDS[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$TMP"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# build NAME COMMIT: leaves the command line of that commit in $TARGET_DIR/releases/NAME-COMMIT/roundsman.
build() {
    local home="$TARGET_DIR/releases/$1-$2"
    [[ -x "$home/roundsman" ]] && return
    note "building $1 out of $2 (some minutes the first time)"
    mkdir -p "$home/source"
    git -C "$ROOT" archive "$2" | tar -x -C "$home/source"
    # In the same target folder: most dependencies are built already.
    (cd "$home/source" && CARGO_TARGET_DIR="$TARGET_DIR" "$CARGO" build --quiet --locked -p roundsman-cli) ||
        die "cannot build $1 out of $2"
    cp "$TARGET_DIR/debug/roundsman" "$home/roundsman"
    rm -rf "$home/source"
}

# releases: prints NAME=PATH for each of them.
releases() {
    local line name commit
    for line in "${HISTORY[@]}"; do
        read -r name commit <<<"$line"
        build "$name" "$commit" >&2
        printf '%s\n' "$name=$TARGET_DIR/releases/$name-$commit/roundsman"
    done
}

has_history() {
    local line
    has git || return 1
    for line in "${HISTORY[@]}"; do
        git -C "$ROOT" cat-file -e "${line#* }^{commit}" 2>/dev/null || return 1
    done
}

# serve BINARY ADDRESS: starts a server there, and leaves its pid in SERVER and its address in ROUNDSMAN_SERVER.
serve() {
    rm -f "$TMP/ready"
    "$1" serve --rpc "$2" --http 127.0.0.1:0 --store "sqlite:$TMP/store.db" --interval 300ms --timeout 300ms \
        --ready-file "$TMP/ready" >>"$TMP/server.log" 2>&1 &
    SERVER=$!
    PIDS+=("$SERVER")
    (wait_for 30 "the server to serve" test -s "$TMP/ready") || return 1
    ROUNDSMAN_SERVER="$(json_field rpc.addr <"$TMP/ready")"
    export ROUNDSMAN_SERVER
}

# instance: starts something that answers GET /health, and leaves its pid in INSTANCE and its address in ADDRESS.
instance() {
    rm -f "$TMP/instance"
    mkdir -p "$TMP/web"
    printf 'ok' >"$TMP/web/health"
    python3 -u - "$TMP/web" >"$TMP/instance" 2>/dev/null <<'PYTHON' &
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(f"127.0.0.1:{server.server_address[1]}")
server.serve_forever()
PYTHON
    INSTANCE=$!
    PIDS+=("$INSTANCE")
    (wait_for 30 "an instance" test -s "$TMP/instance") || return 1
    ADDRESS="$(cat "$TMP/instance")"
}

# kill_now PID: kill -9, without bash's word about it.
kill_now() {
    kill -9 "$1"
    wait "$1" 2>/dev/null || true
}

# Whether a command prints something that matches.
prints() {
    local pattern="$1"
    shift
    "$@" 2>/dev/null | grep -qE -- "$pattern"
}

told() { grep -qE -- "$1" "$TMP/watch"; }
patiently() { (wait_for 30 "$1" "${@:2}") 2>>"$TMP/why"; }

try_register() {
    ID="$("$CLIENT" register --name product --address "$ADDRESS" --tag blue --meta shelf=3)" || return 1
    [[ "$ID" == product-* ]]
}
try_get() { patiently "get" prints "^$ADDRESS\$" "$CLIENT" get product; }
try_list() { prints "$ID +$ADDRESS +passing" "$CLIENT" list product && prints '^product' "$CLIENT" list; }
try_watch() {
    : >"$TMP/watch"
    "$CLIENT" watch -o json >"$TMP/watch" 2>>"$TMP/watch.log" &
    PIDS+=("$!")
    WATCH=$!
    patiently "the watch to begin" told "$ID"
}
try_drain() {
    "$CLIENT" drain "$ID" >/dev/null && patiently "draining" told "$ID.*draining" &&
        "$CLIENT" drain --undo "$ID" >/dev/null && try_get
}
try_status() { prints 'sqlite' "$CLIENT" status && prints '"ready": ?true' "$CLIENT" status -o json; }
try_graph() { "$CLIENT" graph >/dev/null && prints '"services"' "$CLIENT" graph -o json; }
try_evicted() {
    kill_now "$INSTANCE"
    patiently "the eviction" told "$ID.*evicted"
}
try_reconnected() {
    kill_now "$SERVER"
    serve "$SERVED" "$ROUNDSMAN_SERVER" || return 1
    "$CLIENT" register --name database --id database-1 --address 10.0.0.7:5432 --check none >/dev/null || return 1
    patiently "the watch to go on" told "database-1"
}
try_deregister() {
    local status=0
    "$CLIENT" deregister database-1 >/dev/null || return 1
    "$CLIENT" get database >/dev/null 2>&1 || status=$?
    [[ "$status" -eq 3 ]]
}
# What version 1 cannot express is an error that says so, and not forgotten. Others: not asked.
try_expect() {
    "$CLIENT" register --help | grep -q -- --expect-header || return 2
    local said
    said="$("$CLIENT" register --name shop --address 10.0.0.7:80 --expect-header 'a: b' 2>&1)" && [[ "$1" != v1 ]] && return
    [[ "$1" == v1 && "$said" == *"version 1"* ]]
}

# pair CLIENT-NAME BINARY SERVER-NAME BINARY: all steps, each of which needs those before it.
pair() {
    local step marks='' status
    CLIENT="$2" SERVED="$4"
    rm -f "$TMP"/store.db* "$TMP/server.log" "$TMP/watch.log" "$TMP/why"
    serve "$SERVED" 127.0.0.1:0 || die "the server of $3 does not start: $(tail -n 3 "$TMP/server.log")"
    instance || die "cannot start an instance"
    for step in "${STEPS[@]}"; do
        status=0
        "try_$step" "$3" || status=$?
        case "$status" in
            0) marks+="$(printf '%-12s' yes)" ;;
            2) marks+="$(printf '%-12s' -)" ;;
            *)
                marks+="$(printf '%-12s' NO)"
                FAILED=1
                warn "$1 with the server of $3: $step"
                cat "$TMP/why" "$TMP/watch.log" >&2 2>/dev/null || true
                tail -n 3 "$TMP/server.log" >&2
                break
                ;;
        esac
    done
    kill_now "${WATCH:-$INSTANCE}" 2>/dev/null || true
    kill_now "$INSTANCE" 2>/dev/null || true
    kill_now "$SERVER" 2>/dev/null || true
    TABLE+=("$(printf '%-8s%-8s%s' "$1" "$3" "$marks")")
}

if [[ -z "${RELEASES:-}" ]] && ! has_history; then
    warn "NOT CHECKED: earlier releases, because the history of git is not here (git fetch --unshallow brings it)"
    exit 0
fi
RELEASES="${RELEASES:-$(releases)}"
if [[ -z "${NOW:-}" ]]; then
    (cd "$ROOT" && "$CARGO" build --quiet --bins -p roundsman-cli) || die "the build failed"
    NOW="$TARGET_DIR/debug/roundsman"
fi

for release in $RELEASES; do
    pair "${release%%=*}" "${release#*=}" now "$NOW"
    pair now "$NOW" "${release%%=*}" "${release#*=}"
done

printf '\n  %-8s%-8s' client server
printf '%-12s' "${STEPS[@]}"
printf '\n'
printf '  %s\n' "${TABLE[@]}"
[[ -z "$FAILED" ]] || die "not every release works with today's build"
