#!/usr/bin/env bash
# Everything in containers with one command: builds the static binaries and the images, starts them by compose.yaml,
# and waits until order and product are registered.
#
#   ./scripts/compose.sh          up
#   ./scripts/compose.sh down     down again, the data in Redis is kept
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source=scripts/lib/container.sh
source "$ROOT/scripts/lib/container.sh"

case "${1:-up}" in
    up) ;;
    down)
        compose down
        exit 0
        ;;
    *) die "usage: compose.sh [up|down]" ;;
esac

need_docker
static_binaries
gather discovery "$ROOT/discovery" "$BINARIES/roundsman"
gather product "$ROOT/services/product" "$BINARIES/product"
gather order "$ROOT/services/order" "$BINARIES/order"
step "Containers by compose.yaml"
compose up --build --detach
for name in redis_cs discovery product order; do wait_healthy "$name"; done
for name in product order; do wait_registered "$name"; done
note "try: curl -X POST http://127.0.0.1:6060/purchase/aaa"
