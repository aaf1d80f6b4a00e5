#!/usr/bin/env bash
# Builds everything with optimisation and runs the benchmarks; arguments are passed on, --help lists them.
#
#   ./scripts/bench.sh
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

need_rust
cd "$ROOT"
"$CARGO" build --quiet --release --bins -p roundsman-cli -p roundsman-product -p roundsman-order -p roundsman-bench ||
    die "the build failed"
exec "$TARGET_DIR/release/roundsman-bench" "$@"
