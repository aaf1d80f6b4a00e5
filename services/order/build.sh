#!/usr/bin/env bash
# Builds and starts the container `order`: purchases. Needs the container `discovery`.
#
#   ./services/order/build.sh
#
# HTTP is published on 127.0.0.1:6060; PUBLISH=0.0.0.0 publishes it everywhere.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/lib/common.sh
source "$HERE/../../scripts/lib/common.sh"
# shellcheck source=scripts/lib/container.sh
source "$ROOT/scripts/lib/container.sh"

need_docker
static_binaries
gather order "$HERE" "$BINARIES/order"
image order
run_container order --publish "${PUBLISH:-127.0.0.1}:6060:6060"
wait_healthy order
wait_registered order
