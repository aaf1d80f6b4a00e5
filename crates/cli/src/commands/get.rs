//! `roundsman get NAME`

use std::sync::Arc;

use clap::Args;
use clap_complete::ArgValueCompleter;
use roundsman::{Discovery, Instance, Scope, ServiceName};

use crate::{
    args::{ClientArgs, Filter, Output, Shape},
    commands::{connect, list::nothing_matches},
    complete,
    exit::Failure,
    instances::View,
    output::Screen,
};

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// The service
    #[arg(value_parser = ServiceName::try_new, add = ArgValueCompleter::new(complete::services))]
    name: ServiceName,
    /// Print these columns instead of the address, such as host,port or id,meta.team
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    columns: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pub(crate) client: ClientArgs<Output>,
}

pub(crate) async fn run(args: GetArgs) -> Result<(), Failure> {
    let output = args.client.output();
    let view = View::new(output, &args.columns, output == Output::Wide && args.columns.is_empty())?;
    let discovery = connect(&args.client).await?;
    let instance = if args.filter.is_empty() {
        discovery.get(args.name).await?
    } else {
        one_of(&discovery, &args.name, &args.filter).await?
    };
    let mut screen = Screen::stdout();
    match output.data() {
        Some(data) => screen.data(data, &instance),
        None if output == Output::Table && args.columns.is_empty() => screen.line(&instance.address.to_string()),
        None => view.print(&mut screen, &[instance]),
    }
}

/// One of those that match, at random and by weight: whose turn it is, a server knows only of a whole service.
pub(crate) async fn one_of(
    discovery: &Discovery,
    name: &ServiceName,
    filter: &Filter,
) -> Result<Arc<Instance>, Failure> {
    let mut matching = discovery.list(filter.query(Some(name), Scope::Available)?).await?;
    matching.retain(|instance| filter.passes(instance));
    match weighted(&matching, fastrand::u64) {
        Some(instance) => Ok(instance),
        None => Err(nothing_matches(discovery, name).await?),
    }
}

/// `random` draws a number below its range's end.
fn weighted(instances: &[Arc<Instance>], random: impl FnOnce(std::ops::Range<u64>) -> u64) -> Option<Arc<Instance>> {
    let weight = |instance: &Instance| u64::from(instance.weight.max(1));
    let total: u64 = instances.iter().map(|instance| weight(instance)).sum();
    let mut drawn = if total == 0 { 0 } else { random(0..total) };
    let chosen = instances.iter().find(|instance| {
        let weight = weight(instance);
        let found = drawn < weight;
        drawn = drawn.saturating_sub(weight);
        found
    });
    chosen.cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares() {
        let instance = |id: &str, weight: u32| {
            let json = serde_json::json!({
                "id": id, "name": "product", "namespace": "default", "address": "10.0.0.7:7070", "status": "passing",
                "reason": "", "since": "2026-11-21T19:00:00Z", "registered_at": "2026-11-21T19:00:00Z",
                "check": {}, "tags": [], "meta": {}, "zone": null, "version": null, "weight": weight,
            });
            Arc::new(serde_json::from_value::<Instance>(json).unwrap())
        };
        let instances = [instance("a", 1), instance("b", 3)];
        let drawn = |nth| {
            weighted(&instances, |range| {
                assert_eq!(range, 0..4);
                nth
            })
        };
        let ids: Vec<String> = (0..4).map(|nth| drawn(nth).unwrap().id.to_string()).collect();
        assert_eq!(ids, ["a", "b", "b", "b"]);
        assert!(weighted(&[], |_| 0).is_none());
    }
}
