//! Instances as they are in real life: with metadata, a zone, a version and a tag.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::{Address, Check, InstanceId, Registration, ServiceName};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    error::{Context, Failure, Result},
    rpc::{self, Connection},
};

/// Connections and callers that register many.
const CONNECTIONS: usize = 8;
const CALLERS: usize = 64;

/// A service's name, always of the same length.
pub(crate) fn service(number: u32) -> Result<ServiceName> {
    ServiceName::try_new(&format!("service-{number:05}")).context("a service's name")
}

/// Bytes of such a name.
pub(crate) const NAME_LEN: usize = 13;

/// An instance that nobody visits: number `number` of all, spread over so many services.
pub(crate) fn instance(number: u32, services: u32) -> Result<Registration> {
    let [_, b, c, d] = number.to_be_bytes();
    at(number, services, SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, b, c, d)), 7_070), Check::none())
}

/// An instance at an address of its own.
pub(crate) fn at(number: u32, services: u32, address: SocketAddr, check: Check) -> Result<Registration> {
    let name = service(number % services)?;
    let id = InstanceId::random(&name);
    let address = Address::try_from(address).context("an instance's address")?;
    let zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"];
    let zone = zones.iter().cycle().nth((number / services % 3) as usize).copied();
    Ok(Registration {
        id: Some(id),
        check,
        tags: vec!["stable".into()],
        meta: [("commit".to_owned(), format!("{number:07x}")), ("team".to_owned(), "checkout".to_owned())]
            .into_iter()
            .collect(),
        zone: zone.map(Into::into),
        version: Some("1.14.2".into()),
        ..Registration::new(name, address)
    })
}

/// Registers instances 0 to `count`, many at a time.
pub(crate) async fn register(
    server: SocketAddr,
    count: u32,
    make: impl Fn(u32) -> Result<Registration> + Clone + Send + 'static,
) -> Result<()> {
    let connections = Connection::open_many(server, CONNECTIONS).await?;
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    for connection in connections.iter().cycle().take(CALLERS) {
        let (client, next, make) = (connection.client.clone(), Arc::clone(&next), make.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                let answer = client.register(rpc::within(Duration::from_secs(30)), make(number)?).await;
                rpc::answer("registering", answer)?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("registering")??;
    }
    Ok(())
}

/// Waits until so many instances are handed out.
pub(crate) async fn wait_until_passing(server: SocketAddr, count: u32, limit: Duration) -> Result<()> {
    let connection = Connection::open(server).await?;
    let end = Instant::now() + limit;
    loop {
        let services = connection.client.services(rpc::within(Duration::from_secs(10))).await;
        let passing: u32 = rpc::answer("asking for services", services)?.iter().map(|service| service.passing).sum();
        if passing == count {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Failure::Late { what: format!("{count} instances passing ({passing} are)"), limit });
        }
        sleep(Duration::from_millis(20)).await;
    }
}
