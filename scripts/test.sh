#!/usr/bin/env bash
# The test command: installs what is missing, then checks and tests everything. 0 when all of it held.
#
#   ./scripts/test.sh
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

CARGO_DENY_VERSION=0.20.2
SUMMARY=()

cd "$ROOT"

# check NAME COMMAND...: runs it, says how long it took, and ends the script when it fails.
check() {
    local name="$1" begun=$SECONDS
    shift
    step "$name"
    "$@" || die "$name failed: $*"
    SUMMARY+=("$(printf '%-38s %4s s' "$name" $((SECONDS - begun)))")
}

install_missing() {
    need_rust
    apt_install redis-server redis-server
    apt_install redis-cli redis-tools
    apt_install python3 python3
    apt_install shellcheck shellcheck
    apt_install iptables iptables
    apt_install ip iproute2
    apt_install git git
    # Fronts of the examples in docs/examples.
    apt_install nginx nginx
    apt_install haproxy haproxy
    if ! has cargo-deny; then
        note "installing cargo-deny $CARGO_DENY_VERSION (some minutes)"
        "$CARGO" install --quiet --locked "cargo-deny@$CARGO_DENY_VERSION" ||
            die "cannot install cargo-deny; check the network and run this again"
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
}

# Advisories come from a database on the network. Without it nothing can be said about them, which is no fault of
# the code: that is said aloud, and does not fail the run. An advisory that was found does.
advisories() {
    local log
    if log="$(cargo-deny check advisories 2>&1)"; then
        good "no known advisories"
    elif grep -q 'failed to fetch advisory database' <<<"$log"; then
        warn "NOT CHECKED: the advisory database cannot be fetched"
        UNCHECKED="advisories were NOT CHECKED: their database cannot be fetched"
    else
        printf '%s\n' "$log"
        return 1
    fi
}

scripts() {
    local files=()
    mapfile -t files < <(find scripts discovery database services .ci \( -name '*.sh' -o -path '.ci/run' \) -type f | sort)
    shellcheck -x "${files[@]}"
}

# What nobody in this workspace uses alone, others will.
each_feature() {
    local feature
    for feature in '' http reqwest middleware grpc metrics tower axum service testing; do
        "$CARGO" clippy --quiet -p roundsman --no-default-features --features "$feature" -- -D warnings || return 1
    done
}

# Packed as for crates.io, unpacked in a new folder and built there. A warning is a failure. Cargo's own check would build
# the client against the protocol as it was when this folder was packed first: it keeps what it unpacked by name and version.
packages() {
    local log folder version name
    folder="$(mktemp -d "${TMPDIR:-/tmp}/roundsman-packages.XXXXXX")"
    # shellcheck disable=SC2064 # The folder is known now, and not any more when the function is left.
    trap "rm -rf '$folder'; trap - RETURN" RETURN
    log="$("$CARGO" package --allow-dirty --no-verify -p roundsman-protocol -p roundsman 2>&1)" || {
        printf '%s\n' "$log"
        return 1
    }
    version="$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)"
    for name in roundsman-protocol roundsman; do
        tar -xzf "$TARGET_DIR/package/$name-$version.crate" -C "$folder" || return 1
    done
    log+="$("$CARGO" check --manifest-path "$folder/roundsman-$version/Cargo.toml" --target-dir "$TARGET_DIR" \
        --config "patch.crates-io.roundsman-protocol.path='$folder/roundsman-protocol-$version'" 2>&1)" || {
        printf '%s\n' "$log"
        return 1
    }
    if grep '^warning' <<<"$log"; then return 1; fi
}

# Two minutes of scripts/soak.sh, with the build that the tests have made already.
soak() {
    "$CARGO" build --quiet --bins -p roundsman-cli -p roundsman-bench
    "$TARGET_DIR/debug/roundsman-bench" soak --minutes 2
}

UNCHECKED=''
check "install what is missing" install_missing
check "rustfmt" "$CARGO" fmt --all --check
check "clippy" "$CARGO" clippy --quiet --workspace --all-features --all-targets -- -D warnings
check "each feature alone" each_feature
check "rustdoc" env RUSTDOCFLAGS="-D warnings" "$CARGO" doc --quiet --workspace --all-features --no-deps
check "licences, bans and sources" cargo-deny --log-level error check licenses bans sources
check "advisories" advisories
check "shellcheck" scripts
check "all tests" "$CARGO" test --workspace --all-features
check "a soak of two minutes" soak
check "a new service" ./scripts/test-new-service.sh
check "the crates to publish" packages
check "a crate with its own reqwest" ./scripts/test-outside.sh
check "the guide of the client" ./scripts/test-guide.sh
check "the demo" ./scripts/demo.sh --once
check "earlier releases" ./scripts/test-releases.sh

step "All of it held."
printf '  %s\n' "${SUMMARY[@]}"
[[ -z "$UNCHECKED" ]] || warn "$UNCHECKED"
