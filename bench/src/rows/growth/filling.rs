//! Very many instances, registered in JSON by a handshake of version 1, many calls in one write.

use std::{net::SocketAddr, ops::Range, time::Duration};

use roundsman_protocol::Registration;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    error::{Context, Failure, Result},
    population,
    wire::Wire,
};

/// Calls in one write: the server makes few batches of them.
pub(super) const TOGETHER: usize = 256;

/// What instance number `number` of a service is called.
pub(super) fn id(number: u32) -> String {
    format!("filler-{number}")
}

/// What it registers: one of the population, under that name.
pub(super) fn registration(service: &str, number: u32) -> Result<Value> {
    let mut registration = in_version_1(&population::instance(number, 1)?)?;
    if let Some(fields) = registration.as_object_mut() {
        fields.insert("name".to_owned(), service.into());
        fields.insert("id".to_owned(), id(number).into());
    }
    Ok(json!({"registration": registration}))
}

/// A registration without the fields that version 1 refuses.
fn in_version_1(registration: &Registration) -> Result<Value> {
    let mut registration = serde_json::to_value(registration).context("writing a registration")?;
    if let Some(fields) = registration.as_object_mut() {
        fields.retain(|field, _| !["forget_after", "again"].contains(&field.as_str()));
    }
    Ok(registration)
}

/// Registers these instances of one service.
pub(super) async fn register(wire: &mut Wire, service: &str, numbers: Range<u32>) -> Result<()> {
    wire.call_all("Register", numbers.map(|number| registration(service, number)), TOGETHER).await
}

/// Registers the population of that many services, as [`population::register`] does where both speak the newest version.
pub(in crate::rows) async fn populate(server: SocketAddr, count: u32, services: u32) -> Result<()> {
    let mut wire = Wire::open(server, "default").await?;
    let registration = |number| {
        let registration = in_version_1(&population::instance(number, services)?)?;
        Ok(json!({"registration": registration}))
    };
    wire.call_all("Register", (0..count).map(registration), TOGETHER).await
}

/// Waits until so many instances are handed out.
pub(in crate::rows) async fn wait_until_passing(server: SocketAddr, count: u32, limit: Duration) -> Result<()> {
    let mut wire = Wire::open(server, "default").await?;
    let end = Instant::now() + limit;
    loop {
        let services = wire.call("Services", json!({})).await?;
        let services = services.as_array().map(Vec::as_slice).unwrap_or_default();
        let passing: u64 = services.iter().filter_map(|service| service.get("passing")?.as_u64()).sum();
        if passing == u64::from(count) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Failure::Late { what: format!("{count} instances passing ({passing} are)"), limit });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roundsman_protocol::Registration;

    #[test]
    fn what_is_registered_is_a_registration() {
        let value = registration("grown", 7).unwrap();
        let read: Registration = serde_json::from_value(value["registration"].clone()).unwrap();
        assert_eq!((read.name.as_str(), read.id.unwrap().as_str()), ("grown", "filler-7"));
        assert_eq!(read.address.to_string(), "10.0.0.7:7070");
    }
}
