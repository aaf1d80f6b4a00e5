#!/usr/bin/env bash
# Proves the containers on a Docker engine: builds all five, buys and reserves through the published ports, kills the product, sees it
# evicted from discovery and from Redis, starts it again, buys again.
#
#   ./scripts/test-containers.sh
#
# It replaces containers named redis_cs, discovery, product, order and inventory, as their build.sh does, and removes them, their
# network and the volume redis_cs at the end.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source=scripts/lib/container.sh
source "$ROOT/scripts/lib/container.sh"
# shellcheck source=scripts/lib/http.sh
source "$ROOT/scripts/lib/http.sh"
# shellcheck source=scripts/lib/redis_base.sh
source "$ROOT/scripts/lib/redis_base.sh"

# Far below a round of five seconds: a death is seen, not only polled.
MAX_EVICTION_MS=3000
ORDER=127.0.0.1:6060
INVENTORY=127.0.0.1:8080

clean_up() {
    docker rm --force --volumes inventory order product discovery redis_cs >/dev/null 2>&1 || true
    docker network rm "$NETWORK" >/dev/null 2>&1 || true
    docker volume rm redis_cs >/dev/null 2>&1 || true
}

# purchase STATUS: buys an apple and wants this answer.
purchase() {
    http POST "$ORDER" /purchase/aaa || die "order does not answer on $ORDER"
    printf '  %sPOST http://%s/purchase/aaa%s\n  %s %s\n' "$DIM" "$ORDER" "$PLAIN" "$STATUS" "$BODY"
    [[ "$STATUS" == "$1" ]] || die "the purchase was answered with $STATUS, not $1"
}

redis() { docker exec redis_cs redis-cli "$@"; }

# product_keys: the live registrations of product in Redis.
product_keys() { redis --raw KEYS 'roundsman:{default}:instance:product:*'; }

in_redis() { [[ -n "$(product_keys)" ]]; }
not_in_redis() { [[ -z "$(product_keys)" ]]; }
not_found() {
    local code=0
    docker exec discovery /roundsman get product || code=$?
    [[ $code -eq 3 ]]
}

# field NAME VALUE: whether the hash that was read has this field.
field() {
    grep -x -A 1 "$1" <<<"$HASH" | grep -qx "$2" || die "HGETALL shows no $1 $2"
}

need_docker
trap clean_up EXIT
clean_up
redis_base

"$ROOT/database/build.sh"
"$ROOT/discovery/build.sh"
"$ROOT/services/product/build.sh"
"$ROOT/services/order/build.sh"
"$ROOT/services/inventory/build.sh"

step "What discovery knows, and what Redis keeps"
docker exec discovery /roundsman list | sed 's/^/  /'
wait_for 10 "product to be in Redis" in_redis
KEY="$(product_keys)"
HASH="$(redis --raw HGETALL "$KEY")"
printf '\n  %sHGETALL %s%s\n' "$DIM" "$KEY" "$PLAIN"
paste - - <<<"$HASH" | sed 's/^/  /'
field name product
field address product:7070
field health /health
good "name, address and health path are there"

step "A purchase through the published port"
purchase 200
[[ "$(json_field quantity <<<"$BODY")" == 9 ]] || die "not 9 apples left"

step "A reservation: inventory finds product by name, too"
http POST "$INVENTORY" /reserve/aaa || die "inventory does not answer on $INVENTORY"
printf '  %sPOST http://%s/reserve/aaa%s\n  %s %s\n' "$DIM" "$INVENTORY" "$PLAIN" "$STATUS" "$BODY"
[[ "$STATUS" == 200 && "$(json_field left <<<"$BODY")" == 8 ]] || die "not one of nine reserved"

step "docker kill product"
killed="$(now_us)"
docker kill product >/dev/null
wait_for 30 "the eviction" not_found
evicted=$((($(now_us) - killed) / 1000))
good "no longer handed out $evicted ms after the command, with two docker commands in between"
((evicted <= MAX_EVICTION_MS)) || die "the eviction took $evicted ms, more than $MAX_EVICTION_MS ms"
wait_for 10 "its hash to leave Redis" not_in_redis
[[ -z "$(redis --raw HGETALL "$KEY")" ]] || die "HGETALL still shows $KEY"
good "HGETALL $KEY is empty"
purchase 503

step "The product comes back"
docker start product >/dev/null
wait_healthy product
wait_registered product
wait_for 10 "product to be in Redis again" in_redis
good "in Redis as $(product_keys)"
purchase 200

step "Redis forgets everything"
redis FLUSHALL >/dev/null
wait_for 20 "discovery to write it back" in_redis
good "discovery noticed and wrote back what it holds"
purchase 200

step "The containers hold."
