#!/usr/bin/env bash
# Builds and starts the container `product`: product details and stock. Needs the container `discovery`.
#
#   ./services/product/build.sh
#
# HTTP is published on 127.0.0.1:7070; PUBLISH=0.0.0.0 publishes it everywhere.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/lib/common.sh
source "$HERE/../../scripts/lib/common.sh"
# shellcheck source=scripts/lib/container.sh
source "$ROOT/scripts/lib/container.sh"

need_docker
static_binaries
gather product "$HERE" "$BINARIES/product"
image product
run_container product --publish "${PUBLISH:-127.0.0.1}:7070:7070"
wait_healthy product
wait_registered product
