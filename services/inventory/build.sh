#!/usr/bin/env bash
# Builds and starts the container `inventory`: reserves what product instances still have. Needs the container `discovery`.
#
#   ./services/inventory/build.sh
#
# HTTP is published on 127.0.0.1:8080; PUBLISH=0.0.0.0 publishes it everywhere.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/lib/common.sh
source "$HERE/../../scripts/lib/common.sh"
# shellcheck source=scripts/lib/container.sh
source "$ROOT/scripts/lib/container.sh"

need_docker
static_binaries
gather inventory "$HERE" "$BINARIES/inventory"
image inventory
run_container inventory --publish "${PUBLISH:-127.0.0.1}:8080:8080"
wait_healthy inventory
wait_registered inventory
