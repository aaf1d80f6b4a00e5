//! A tonic channel that is fed with the instances of a service: any generated client can be made of it. This one asks for
//! the standard health service, whose messages are short enough to be written here.
//!
//! ```sh
//! cargo run -p roundsman --example grpc --features tower -- 127.0.0.1:5555 SERVICE
//! ```
#![allow(clippy::print_stdout, reason = "it is there to be watched")]

use futures::StreamExt;
use roundsman::{DEFAULT_SERVER, Discovery, InstanceId};
use tokio::task::JoinSet;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint, channel::Change as Told},
};
use tonic_prost::ProstCodec;
use tower::{BoxError, discover::Change};

/// Changes that wait until tonic takes them.
const WAITING: usize = 64;

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
async fn main() -> Result<(), BoxError> {
    let mut args = std::env::args().skip(1);
    let server = args.next().unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let service = args.next().unwrap_or_else(|| "greeter".to_owned());
    let discovery = Discovery::connect(server).await?;
    run(&discovery, &service).await?;
    discovery.close().await;
    Ok(())
}

pub(crate) async fn run(discovery: &Discovery, service: &str) -> Result<(), BoxError> {
    let mut endpoints = discovery
        .resolver(service)
        .await?
        .endpoints(|instance| Endpoint::from_shared(format!("http://{}", instance.address)));

    // The channel balances over whatever this task tells it; the task ends with the client or the channel.
    let (channel, changes) = Channel::balance_channel::<InstanceId>(WAITING);
    let mut feeding = JoinSet::new();
    feeding.spawn(async move {
        while let Some(Ok(change)) = endpoints.next().await {
            let change = match change {
                Change::Insert(id, Ok(endpoint)) => Told::Insert(id, endpoint),
                // No URL leads there.
                Change::Insert(id, Err(_)) | Change::Remove(id) => Told::Remove(id),
            };
            if changes.send(change).await.is_err() {
                break;
            }
        }
    });

    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = grpc.unary(Request::new(HealthCheckRequest { service: String::new() }), path, codec).await?;
    println!("`{service}` says {}", if answer.get_ref().status == 1 { "SERVING" } else { "something else" });
    Ok(())
}
