//! gRPC by the name of a service: any client that tonic generates takes the channel. This one asks for the standard health
//! service, whose messages are short enough to be written here.
//!
//! ```sh
//! cargo run -p roundsman --example grpc --features grpc -- 127.0.0.1:5555 SERVICE
//! ```
#![allow(clippy::print_stdout, reason = "it is there to be watched")]

use std::error::Error;

use roundsman::{DEFAULT_SERVER, Discovery, grpc::Idempotent};
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let server = args.next().unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let service = args.next().unwrap_or_else(|| "greeter".to_owned());
    let discovery = Discovery::connect(server).await?;
    println!("`{service}` says {}", run(&discovery, &service).await?);
    discovery.close().await;
    Ok(())
}

pub(crate) async fn run(discovery: &Discovery, service: &str) -> Result<&'static str, Box<dyn Error>> {
    // A generated client: HealthClient::new(discovery.grpc(service)).
    let mut grpc = Grpc::new(discovery.grpc(service));
    grpc.ready().await?;
    let mut request = Request::new(HealthCheckRequest { service: String::new() });
    // Asking twice is as good as once, so it may be asked again elsewhere.
    request.extensions_mut().insert(Idempotent(true));
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = grpc.unary(request, path, codec).await?;
    Ok(if answer.get_ref().status == 1 { "SERVING" } else { "something else" })
}
