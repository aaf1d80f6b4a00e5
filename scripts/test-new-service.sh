#!/usr/bin/env bash
# Proves new-service.sh in a throw-away copy of this checkout: what it refuses changes nothing, and what it makes builds, is
# tested, registers, is found and finds.
#
#   ./scripts/test-new-service.sh
#
# Shares the target folder, so that nothing from elsewhere is built anew.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source=scripts/lib/http.sh
source "$ROOT/scripts/lib/http.sh"

NAME=greeter-2
PIDS=()
TMP="$(mktemp -d "${TMPDIR:-/tmp}/roundsman-new-service.XXXXXX")"
mkdir -p "$TARGET_DIR"
CARGO_TARGET_DIR="$(cd "$TARGET_DIR" && pwd)"
export CARGO_TARGET_DIR
# Always the same place, with the files' own times, so that Cargo builds only what has changed since the last run.
COPY="$CARGO_TARGET_DIR/new-service"

clean_up() {
    local pid
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$TMP" "$COPY"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME COMMAND...: runs it in the background and waits until it serves.
start() {
    local name="$1"
    shift
    "$@" --ready-file "$TMP/$name.ready" >"$TMP/$name.log" 2>&1 &
    PIDS+=("$!")
    if ! (wait_for 20 "$name to serve; its last words:" test -s "$TMP/$name.ready"); then
        tail -n 5 "$TMP/$name.log" >&2
        exit 1
    fi
}

# tree: everything in the copy, in a line.
tree() { (cd "$COPY" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum); }

# refused WHY ARGUMENT...: whether it says why, and changes nothing.
refused() {
    local why="$1" before said
    shift
    before="$(tree)"
    if said="$("$COPY/scripts/new-service.sh" "$@" 2>&1)"; then die "new-service.sh $* was not refused"; fi
    [[ "$said" == *"$why"* ]] || die "new-service.sh $* was refused for another reason than '$why': $said"
    [[ "$(tree)" == "$before" ]] || die "new-service.sh $* was refused and left something behind"
}

roundsman() { "$CARGO_TARGET_DIR/debug/roundsman" "$@"; }
is_gone() { ! roundsman get "$NAME"; }

need_rust
rm -rf "$COPY"
mkdir "$COPY"
(cd "$ROOT" && git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from -) | tar -x -C "$COPY"

step "What new-service.sh refuses"
refused usage
refused "is no name" Greeter
refused "is no name" a_b
refused "is no name" ../greeter
refused "is no name" 2fast
refused "is no name" "greeter-"
refused "is taken" loop
refused "is taken" roundsman
refused "is there already" product
refused "is there already" testing
refused "is no port" "$NAME" 70000
refused "belongs to another" "$NAME" 7070
mkdir "$COPY/services/half" && touch "$COPY/services/half/notes"
refused "is there already" half
rm -r "$COPY/services/half"
cp "$COPY/Cargo.lock" "$TMP/lock" && echo nonsense >>"$COPY/Cargo.lock"
refused "Cargo does not take it" "$NAME"
cp "$TMP/lock" "$COPY/Cargo.lock"
good "and changes nothing then"

step "What it makes"
"$COPY/scripts/new-service.sh" "$NAME"
for file in Cargo.toml src/main.rs tests/it/main.rs Dockerfile build.sh; do
    [[ -s "$COPY/services/$NAME/$file" ]] || die "$file is missing"
    ! grep -q '@[A-Z]*@' "$COPY/services/$NAME/$file" || die "$file has a gap left"
done
shellcheck -x "$COPY/services/$NAME/build.sh"
PORT="$(sed -n 's/^EXPOSE //p' "$COPY/services/$NAME/Dockerfile")"
! grep -qx "EXPOSE $PORT" "$COPY"/services/{product,order,inventory}/Dockerfile || die "port $PORT is not free"
cd "$COPY"
"$CARGO" fmt --package "roundsman-$NAME" --check || die "it is not formatted"
"$CARGO" test --quiet --locked --package "roundsman-$NAME" || die "its test failed"
good "builds without edits, and its test holds"

step "Beside a server, as an author runs it"
[[ -x "$CARGO_TARGET_DIR/debug/roundsman" ]] || (cd "$ROOT" && "$CARGO" build --quiet --package roundsman-cli)
start discovery "$CARGO_TARGET_DIR/debug/roundsman" serve --rpc 127.0.0.1:0 --http 127.0.0.1:0 --store memory:
ROUNDSMAN_SERVER="$(json_field rpc.addr <"$TMP/discovery.ready")"
export ROUNDSMAN_SERVER
start "$NAME" "$CARGO_TARGET_DIR/debug/$NAME" --listen 127.0.0.1:0
ADDRESS="$(json_field http.addr <"$TMP/$NAME.ready")"
wait_for 20 "$NAME to be handed out" roundsman get "$NAME"
[[ "$(roundsman get "$NAME")" == "$ADDRESS" ]] || die "roundsman get $NAME names another address"
good "roundsman get $NAME: $ADDRESS"
http GET "$ADDRESS" "/find/$NAME" || die "$NAME does not answer on $ADDRESS"
[[ "$STATUS" == 200 && "$BODY" == *"$ADDRESS"* ]] || die "the lookup was answered with $STATUS $BODY"
good "GET /find/$NAME: ${BODY%$'\n'}"
kill -TERM "${PIDS[1]}"
wait "${PIDS[1]}" || die "$NAME did not end in good order"
is_gone 2>/dev/null || die "$NAME is still handed out after it ended"
good "and it left in good order"
