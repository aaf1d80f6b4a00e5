#!/usr/bin/env bash
# Builds and starts the container `redis_cs`: Redis, for discovery to keep registrations in.
#
#   ./database/build.sh                                  on redis:7-alpine
#   REDIS_IMAGE=my-redis:7 ./database/build.sh           on another base
#
# The data lies in the volume `redis_cs` and outlives the container.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/lib/common.sh
source "$HERE/../scripts/lib/common.sh"
# shellcheck source=scripts/lib/container.sh
source "$ROOT/scripts/lib/container.sh"

need_docker
gather redis_cs "$HERE" "$HERE/redis.conf"
image redis_cs --build-arg "REDIS_IMAGE=${REDIS_IMAGE:-redis:7-alpine}"
run_container redis_cs --volume redis_cs:/data
wait_healthy redis_cs
