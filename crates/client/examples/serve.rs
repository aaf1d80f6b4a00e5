//! A service that registers, answers for its health, and leaves so that no caller notices. What is left of it when
//! `roundsman::service` does the rest: see there.
//!
//! ```sh
//! cargo run -p roundsman --example serve --features axum -- 127.0.0.1:5555
//! ```
#![allow(clippy::print_stdout, reason = "it is there to be watched")]

use std::error::Error;

use axum::{Router, middleware::from_fn, routing::get};
use roundsman::{DEFAULT_SERVER, Discovery, Health, NewInstance};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let discovery = Discovery::builder().servers(server).service("greeter").connect_lazy()?;
    run(&discovery, async { drop(signal::ctrl_c().await) }).await?;
    discovery.close().await;
    Ok(())
}

/// Serves until `stop`.
pub(crate) async fn run(
    discovery: &Discovery,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    let health = Health::new().check("memory", async || Ok::<(), String>(()));
    let routes = Router::new()
        .route("/hello", get("hello"))
        .merge(health.router())
        // Calls made for a request carry its trace on.
        .layer(from_fn(roundsman::trace::carry));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // Discovery may come later: it goes on trying.
    let me = discovery.register_in_background(NewInstance::new("greeter", address)?.identified())?;
    // Its id is in each answer to a visit, so that whoever takes over this port is not mistaken for it.
    health.follow(&me);
    println!("{} serves on {address}", me.id());

    // At the end: drained, then out of all lists, then no longer accepting.
    axum::serve(listener, routes).with_graceful_shutdown(me.graceful(stop)).await?;
    Ok(())
}
