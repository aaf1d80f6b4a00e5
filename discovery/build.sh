#!/usr/bin/env bash
# Builds and starts the container `discovery`: the Roundsman server, with Redis (`redis_cs`) as its store.
#
#   ./discovery/build.sh
#
# RPC is published on 127.0.0.1:5555 and HTTP on 127.0.0.1:5556; PUBLISH=0.0.0.0 publishes them everywhere.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/lib/common.sh
source "$HERE/../scripts/lib/common.sh"
# shellcheck source=scripts/lib/container.sh
source "$ROOT/scripts/lib/container.sh"

PUBLISH="${PUBLISH:-127.0.0.1}"

need_docker
static_binaries
gather discovery "$HERE" "$BINARIES/roundsman"
image discovery
run_container discovery --publish "$PUBLISH:5555:5555" --publish "$PUBLISH:5556:5556"
wait_healthy discovery
