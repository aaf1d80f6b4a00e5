#!/usr/bin/env bash
# The whole of Roundsman in a minute: services register, find each other, sell an apple, die, vanish and come back.
#
#   ./scripts/demo.sh          stays up afterwards, with addresses to try; Ctrl-C ends it and cleans up
#   ./scripts/demo.sh --once   ends after the tour: 0 when every step held
#
# Everything runs on this machine, on free ports, in a temporary folder.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source=scripts/lib/http.sh
source "$ROOT/scripts/lib/http.sh"

# Upper bounds that tell "at once" from "at the next round", with room for a busy machine.
MAX_GONE_MS=1000
MAX_BACK_MS=1000

ONCE=''
case "${1:-}" in
    '') ;;
    --once) ONCE=1 ;;
    *) die "usage: demo.sh [--once]" ;;
esac

BIN="$TARGET_DIR/release"
PIDS=()
TMP="$(mktemp -d "${TMPDIR:-/tmp}/roundsman-demo.XXXXXX")"

clean_up() {
    local pid
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$TMP"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME COMMAND...: runs it in the background, waits until it serves, leaves its pid in PID.
start() {
    local name="$1"
    shift
    rm -f "$TMP/$name.ready"
    "$@" --ready-file "$TMP/$name.ready" >>"$TMP/$name.log" 2>&1 &
    PID=$!
    PIDS+=("$PID")
    if ! (wait_for 20 "$name to serve; its last words:" test -s "$TMP/$name.ready"); then
        tail -n 5 "$TMP/$name.log" >&2
        exit 1
    fi
}

# address NAME FIELD: where it really listens.
address() { json_field "$2" <"$TMP/$1.ready"; }

# shown COMMAND...: prints the command as one would type it, runs it, and indents what it prints.
shown() {
    printf '\n  %s$ %s%s\n' "$DIM" "$*" "$PLAIN"
    "$@" | sed 's/^/    /'
}

roundsman() { "$BIN/roundsman" "$@"; }

# passing SERVICE: how many instances of it are handed out.
passing() { roundsman list "$1" 2>/dev/null | awk '$3 == "passing"' | wc -l; }

all_passing() { [[ "$(passing product)" -eq 2 && "$(passing order)" -eq 1 ]]; }

# buy: one apple, through order.
buy() {
    printf '\n  %s$ curl -X POST http://%s/purchase/aaa%s\n' "$DIM" "$ORDER" "$PLAIN"
    http POST "$ORDER" /purchase/aaa || die "order does not answer"
    printf '    %s\n' "$BODY"
    [[ "$STATUS" == 200 ]] || die "the purchase was answered with $STATUS"
}

# stamped: each line with the moment at which it arrived, in microseconds.
stamped() {
    local line
    while IFS= read -r line; do printf '%s %s\n' "$(now_us)" "$line"; done
}

# seen PATTERN AFTER: when the watch first printed a matching line after that moment, both in microseconds.
seen() {
    awk -v pattern="$1" -v after="$2" '$1 >= after && $0 ~ pattern { print $1; exit }' "$TMP/watch"
}

has_seen() { [[ -n "$(seen "$@")" ]]; }

# ms FROM TO: the time between two moments, in milliseconds.
ms() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.1f", (to - from) / 1000 }'; }

# at_most MS LIMIT WHAT
at_most() {
    awk -v ms="$1" -v limit="$2" 'BEGIN { exit !(ms <= limit) }' || die "$3 took $1 ms, more than $2 ms"
}

printf '%sRoundsman%s  services register, find each other, sell, die, vanish and come back\n' "$BOLD" "$PLAIN"

need_rust
step "Building (release; some minutes the first time)"
(cd "$ROOT" && "$CARGO" build --quiet --release --bins -p roundsman-cli -p roundsman-product -p roundsman-order) ||
    die "the build failed"
good "built"

step "1. A discovery server, two products, one order"
start discovery "$BIN/roundsman" serve --rpc 127.0.0.1:0 --http 127.0.0.1:0 --store "sqlite:$TMP/roundsman.db"
ROUNDSMAN_SERVER="$(address discovery rpc.addr)"
export ROUNDSMAN_SERVER
CONSOLE="$(address discovery http.addr)"
start product-1 "$BIN/product" --listen 127.0.0.1:0
VICTIM="$PID"
VICTIM_ADDRESS="$(address product-1 http.addr)"
start product-2 "$BIN/product" --listen 127.0.0.1:0
start order "$BIN/order" --listen 127.0.0.1:0
ORDER="$(address order http.addr)"
wait_for 20 "all three to be registered and visited" all_passing
shown roundsman list
shown roundsman list product

step "2. Buy an apple: order asks discovery for a product, and buys there"
buy

# What the watch prints is stamped when it arrives here, so the figures below are those of an outside observer.
"$BIN/roundsman" watch product -o json > >(stamped >"$TMP/watch") 2>"$TMP/watch.log" &
PIDS+=("$!")
wait_for 10 "the watch to begin" test -s "$TMP/watch"

step "3. Kill one product: kill -9, no goodbye"
VICTIM_ID="$(roundsman list product | awk -v address="$VICTIM_ADDRESS" '$2 == address { print $1 }')"
[[ -n "$VICTIM_ID" ]] || die "no instance is registered at $VICTIM_ADDRESS"
killed="$(now_us)"
kill -9 "$VICTIM"
# Bash would report the killed process on its own.
wait "$VICTIM" 2>/dev/null || true
wait_for 20 "$VICTIM_ID to vanish" has_seen "$VICTIM_ID.*evicted" "$killed"
gone="$(ms "$killed" "$(seen "$VICTIM_ID.*evicted" "$killed")")"
good "$VICTIM_ID was gone ${BOLD}$gone ms${PLAIN} after the kill"
note "from just before kill -9 to the line that \`roundsman watch product -o json\` printed"
at_most "$gone" "$MAX_GONE_MS" "the eviction"
shown roundsman list product
[[ "$(passing product)" -eq 1 ]] || die "the dead product is still handed out"

step "4. Buy again: the other one sells"
buy
[[ "$BODY" != *"$VICTIM_ADDRESS"* ]] || die "a dead product sold something"

step "5. Start it again"
started="$(now_us)"
start product-1 "$BIN/product" --listen "$VICTIM_ADDRESS"
wait_for 20 "the restarted product" has_seen "\"$VICTIM_ADDRESS\".*passing" "$started"
back="$(ms "$started" "$(seen "\"$VICTIM_ADDRESS\".*passing" "$started")")"
good "it was handed out again ${BOLD}$back ms${PLAIN} after its start"
at_most "$back" "$MAX_BACK_MS" "the return"
wait_for 10 "both products to be handed out" all_passing
shown roundsman list product

step "Every step held."
[[ -z "$ONCE" ]] || exit 0

cat <<EOF

  Still up. Try, in another terminal:

    export ROUNDSMAN_SERVER=$ROUNDSMAN_SERVER PATH="$BIN:\$PATH"
    roundsman list
    roundsman watch
    roundsman status
    curl -X POST http://$ORDER/purchase/bbb
    curl http://$VICTIM_ADDRESS/product/bbb
    curl http://$CONSOLE/metrics
    kill -9 $PID                       # the product that just came back

  Logs are in $TMP. Ctrl-C ends everything and cleans up.
EOF
while :; do sleep 1; done
