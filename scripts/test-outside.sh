#!/usr/bin/env bash
# Proves that a crate of somebody else's, which uses the client library in whichever feature set, keeps its own reqwest as it is:
# Cargo unites features, and a TLS that nobody brought a provider for makes reqwest::Client::new() panic.
#
#   ./scripts/test-outside.sh
#
# Downloads nothing, and builds in a folder of its own within the target folder.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

# Each is looked at; the last is built and run as well.
SETS=('' http reqwest middleware grpc metrics tower axum service 'http,reqwest,middleware,grpc,metrics,tower,axum,service')

mkdir -p "$TARGET_DIR"
CRATE="$(cd "$TARGET_DIR" && pwd)/outside"
trap 'rm -rf "$CRATE"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# manifest SET: depends on the library with these features, and on reqwest without any.
manifest() {
    local features=''
    [[ -z "$1" ]] || features="\"${1//,/\", \"}\""
    cat >"$CRATE/Cargo.toml" <<TOML
[package]
name = "outside"
edition = "2024"

[dependencies]
reqwest = { version = "0.13", default-features = false }
roundsman = { path = "$ROOT/crates/client", default-features = false, features = [$features] }
tokio = { version = "1", features = ["rt", "macros"] }

[profile.dev]
debug = false
incremental = false

[workspace]
TOML
}

# of_reqwest: its features in the build of the crate.
of_reqwest() {
    # Where it is named again it has a star.
    "$CARGO" tree --quiet --offline --edges normal --format '{p} {f}' --prefix none |
        sed -n 's/ *(\*)$//; s/^reqwest v[^ ]* *//p' | sort -u
}

need_rust
rm -rf "$CRATE"
mkdir -p "$CRATE/src"
cat >"$CRATE/src/main.rs" <<'RUST'
//! A crate with a reqwest of its own.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let discovery = roundsman::Discovery::builder().servers("127.0.0.1:1").connect_lazy()?;
    // It panics when another crate has turned TLS on in it, and no provider is there.
    let _own = reqwest::Client::new();
    let error = discovery.http("product").timeout(std::time::Duration::from_millis(10)).get("/").send().await;
    assert!(error.is_err(), "nobody is there");
    discovery.close().await;
    println!("its own reqwest works");
    Ok(())
}
RUST
cd "$CRATE"

step "Somebody else's reqwest"
for set in "${SETS[@]}"; do
    manifest "$set"
    # The same versions as here, all of which are there.
    cp "$ROOT/Cargo.lock" Cargo.lock
    features="$(of_reqwest)" || die "the dependencies with the features '$set' cannot be resolved"
    [[ -z "$features" ]] || die "the features '$set' turn these on in reqwest: $features"
    good "left alone by ${set:-no feature}"
done
SAID="$(CARGO_TARGET_DIR="$CRATE/target" "$CARGO" run --quiet --offline)" || die "a crate with a reqwest of its own fails"
[[ "$SAID" == "its own reqwest works" ]] || die "it said: $SAID"
good "builds, and $SAID"
