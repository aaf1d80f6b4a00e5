//! Calls a service by its name through a `reqwest` client with layers of its own.
//!
//! ```sh
//! cargo run -p roundsman --example middleware --features middleware -- 127.0.0.1:5555
//! ```
#![allow(clippy::print_stdout, reason = "it is there to be watched")]

use std::error::Error;

use reqwest_middleware::ClientBuilder;
use roundsman::{DEFAULT_SERVER, Discovery};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let discovery = Discovery::connect(server).await?;
    run(&discovery).await?;
    discovery.close().await;
    Ok(())
}

pub(crate) async fn run(discovery: &Discovery) -> Result<(), Box<dyn Error>> {
    // This build of reqwest comes without a provider for TLS. An error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let plain = reqwest::Client::builder().tls_certs_only([]).build()?;
    let http = ClientBuilder::new(plain).with(discovery.middleware()).build();

    // To whichever instance can answer. Any other URL goes where it always went.
    let answer = http.get("http://product.roundsman/product/aaa").send().await?;
    println!("{}: {}", answer.status(), answer.text().await?);
    Ok(())
}
