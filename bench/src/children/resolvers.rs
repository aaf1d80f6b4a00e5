//! A caller that keeps the instances of some services at hand.

use std::net::SocketAddr;

use roundsman::{Discovery, Resolver};

use super::serve_parent;
use crate::{
    error::{Context, Result},
    population,
};

pub(super) async fn run(server: SocketAddr, services: u32, each: u32) -> Result<()> {
    let discovery = Discovery::connect(server.to_string()).await.context("connecting to the server")?;
    // What every client has, whether it resolves anything or not.
    discovery.get(population::service(0)?).await.context("looking up")?;
    let mut resolvers: Vec<Resolver> = Vec::new();
    for number in 0..services {
        for _ in 0..each {
            let resolver = discovery.resolver(population::service(number)?);
            resolvers.push(resolver.await.context("resolving")?);
        }
    }
    let known = |_: &str| resolvers.iter().map(|resolver| resolver.instances().len()).sum::<usize>().to_string();
    serve_parent("ready", known).await
}
