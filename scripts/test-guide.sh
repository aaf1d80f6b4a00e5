#!/usr/bin/env bash
# Checks that the code in docs/client.md compiles: each piece of it as the body of a function, with what it takes for granted.
#
#   ./scripts/test-guide.sh
#
# Downloads nothing, and runs nothing of it.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

GUIDE="$ROOT/docs/client.md"
mkdir -p "$TARGET_DIR"
TARGET_DIR="$(cd "$TARGET_DIR" && pwd)"
CRATE="$TARGET_DIR/guide"
trap 'rm -rf "$CRATE"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

need_rust
rm -rf "$CRATE"
mkdir -p "$CRATE/src"
cat >"$CRATE/Cargo.toml" <<TOML
[package]
name = "guide"
edition = "2024"

[dependencies]
axum = { version = "0.8", default-features = false, features = ["http1", "json", "query", "tokio"] }
reqwest = { version = "0.13", default-features = false }
reqwest-middleware = { version = "0.5", default-features = false }
roundsman = { path = "$ROOT/crates/client", features = ["axum", "grpc", "http", "middleware", "reqwest", "testing", "tower"] }
serde = { version = "1", features = ["derive"] }
tokio = { version = "1", features = ["net"] }
tower = { version = "0.5", default-features = false, features = ["balance", "load"] }

[workspace]
TOML
cp "$ROOT/Cargo.lock" "$CRATE/Cargo.lock"

# What a reader has at hand: the names that the pieces use and do not make.
cat >"$CRATE/src/main.rs" <<'RUST'
//! The pieces of the guide.
#![allow(warnings)]

use std::{convert::Infallible, error::Error, future::Pending, time::Duration};

use axum::Router;
use roundsman::{Address, Discovery, Health, NewInstance, Query, Registration, Resolver};

fn main() {}

#[derive(serde::Serialize, serde::Deserialize)]
struct Sale;

/// A way of one's own to call an instance.
struct CallError;

impl CallError {
    fn is_timeout(&self) -> bool {
        false
    }
}

impl From<&str> for CallError {
    fn from(_: &str) -> Self {
        Self
    }
}

async fn call(_: &Address) -> Result<String, CallError> {
    Err(CallError)
}

#[derive(Clone)]
struct Pool;

impl Pool {
    async fn ping(&self) -> Result<(), String> {
        Ok(())
    }
}

fn free_space() -> Result<(), String> {
    Ok(())
}

/// As tonic generates them.
struct ProductsClient<T>(T);

impl<T> ProductsClient<T> {
    fn new(channel: T) -> Self {
        Self(channel)
    }
}

struct MyService;

impl tower::Service<()> for MyService {
    type Response = ();
    type Error = Infallible;
    type Future = std::future::Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

impl tower::load::Load for MyService {
    type Metric = u32;

    fn load(&self) -> u32 {
        0
    }
}

fn my_service(_: &Address) -> MyService {
    MyService
}
RUST

# A piece that ends without a semicolon tells what comes of a call of one's own.
awk -v names='discovery: Discovery, products: Resolver, registration: Registration, health: Health, listener: tokio::net::TcpListener, router: Router, routes: Router, signal: Pending<()>, key: &str, sale: Sale, pool: Pool, reqwest: reqwest::Client' '
    /^```rust$/ { piece = ""; begun = NR; next }
    /^```$/ && begun {
        own = piece ~ /call\(/ && piece ~ /is_timeout/
        printf "\n// Line %d.\nasync fn line_%d(%s) -> Result<%s> {\n%s%s}\n", begun, begun, names,
            own ? "String, CallError" : "(), Box<dyn Error>", own ? "Ok({\n" piece "})" : piece, own ? "\n" : "Ok(())\n"
        begun = 0
        pieces++
        next
    }
    begun { piece = piece $0 "\n" }
    END { printf "\n// %d pieces.\n", pieces }
' "$GUIDE" >>"$CRATE/src/main.rs"

step "The code in docs/client.md"
cd "$CRATE"
"$CARGO" check --quiet --offline --target-dir "$TARGET_DIR" || die "a piece of docs/client.md does not compile; its function is named after its line"
good "$(sed -n 's|^// \([0-9]* pieces\)\.|\1|p' src/main.rs) compile"
