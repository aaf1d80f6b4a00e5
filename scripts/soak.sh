#!/usr/bin/env bash
# A real server for a long time, under instances that die, freeze and flap, and under hostile callers. Fails when a promise
# was broken. An hour, unless told otherwise, which writes bench/soak.md; --help lists all arguments.
#
#   ./scripts/soak.sh [--minutes N]
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

need_rust
cd "$ROOT"
"$CARGO" build --quiet --release --bins -p roundsman-cli -p roundsman-bench || die "the build failed"
exec "$TARGET_DIR/release/roundsman-bench" soak "$@"
