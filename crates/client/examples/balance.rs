//! tower's own balancer over the instances of a service, with hyper as the client.
//!
//! ```sh
//! cargo run -p roundsman --example balance --features tower -- 127.0.0.1:5555
//! ```
#![allow(clippy::print_stdout, reason = "it is there to be watched")]

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use roundsman::{DEFAULT_SERVER, Discovery};
use tower::{
    BoxError, Service, ServiceExt,
    balance::p2c::Balance,
    load::{CompleteOnResponse, PeakEwma},
    service_fn,
};

/// What an instance is thought to take before it has answered anything.
const UNKNOWN: Duration = Duration::from_millis(10);
/// After so long a latency counts a third of what it did.
const DECAY: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = std::env::args().nth(1).unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let discovery = Discovery::connect(server).await?;
    run(&discovery).await?;
    discovery.close().await;
    Ok(())
}

pub(crate) async fn run(discovery: &Discovery) -> Result<(), BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let products = discovery.resolver("product").await?;

    // Each instance is a service; they come and go as discovery says.
    let endpoints = products.endpoints(|instance| {
        let (http, address) = (http.clone(), instance.address.clone());
        let call = service_fn(move |path: &'static str| {
            let (http, url) = (http.clone(), format!("http://{address}{path}"));
            async move {
                let response = http.get(url.parse()?).await?;
                Ok::<_, Box<dyn Error + Send + Sync>>((url, response.status()))
            }
        });
        PeakEwma::new(call, UNKNOWN, DECAY.as_secs_f64() * 1e9, CompleteOnResponse::default())
    });
    let mut products = Balance::new(endpoints);
    for _ in 0..3 {
        let (url, status) = products.ready().await?.call("/product/aaa").await?;
        println!("{url} answered {status}");
    }
    Ok(())
}
