//! The binary `order`.

use std::process::ExitCode;

use axum::Router;
use roundsman::{
    ServiceName,
    service::{App, Failure, Start},
};
use roundsman_order::{routes::routes, shop::Shop};

#[tokio::main]
async fn main() -> ExitCode {
    App::new("order", 6060)
        .about("Example service: purchases, through whatever product instance discovery names")
        .version(env!("CARGO_PKG_VERSION"))
        .run(start)
        .await
}

async fn start(start: Start) -> Result<Router, Failure> {
    let sellers = ServiceName::try_new("product")?;
    Ok(routes(Shop::new(start.discovery, sellers, start.tasks)))
}
