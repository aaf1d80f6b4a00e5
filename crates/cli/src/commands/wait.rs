//! `roundsman wait NAME [--passing N]`: for scripts that need somebody to be there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use clap::Args;
use clap_complete::ArgValueCompleter;
use futures::FutureExt;
use roundsman::{Discovery, Error, Event, Instance, InstanceId, Query, Scope, ServiceName, protocol::time};

use crate::{
    args::{ClientArgs, Filter, Output, Shape},
    commands::connect_lazy,
    complete,
    exit::Failure,
    instances::View,
    output::Screen,
};

#[derive(Args, Debug)]
pub(crate) struct WaitArgs {
    /// The service
    #[arg(value_parser = ServiceName::try_new, add = ArgValueCompleter::new(complete::services))]
    name: ServiceName,
    /// Until so many of its instances are handed out (passing or suspect), or are in the --status asked for
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    passing: u32,
    /// For so long at most, such as 30s or 5m; 0s asks once
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = time::parse)]
    timeout: Duration,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pub(crate) client: ClientArgs<Output>,
}

pub(crate) async fn run(args: WaitArgs) -> Result<(), Failure> {
    let output = args.client.output();
    let view = View::new(output, &[], true)?;
    let discovery = connect_lazy(&args.client)?;
    let instances = for_instances(&discovery, &args.name, &args.filter, args.passing, args.timeout).await?;
    let mut screen = Screen::stdout();
    if output != Output::Table || output.data().is_some() {
        return view.print(&mut screen, &instances);
    }
    let (count, name) = (instances.len(), &args.name);
    let instances = if count == 1 { "instance" } else { "instances" };
    screen.line(&format!("{count} {instances} of {name} {}", if count == 1 { "is there" } else { "are there" }))
}

/// So many instances of a service, as soon as there are that many. Also a server is waited for.
pub(crate) async fn for_instances(
    discovery: &Discovery,
    name: &ServiceName,
    filter: &Filter,
    wanted: u32,
    timeout: Duration,
) -> Result<Vec<Arc<Instance>>, Failure> {
    let query = filter.query(Some(name), Scope::Available)?;
    if timeout.is_zero() {
        return at_once(discovery, name, filter, wanted, query).await;
    }
    let mut changes = discovery.watch(query)?;
    let mut known: BTreeMap<InstanceId, Arc<Instance>> = BTreeMap::new();
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let mut heard = false;
    let enough = async {
        while let Some(event) = changes.next().await {
            heard = true;
            let keyed = |instance: Arc<Instance>| (instance.id.clone(), instance);
            match event {
                Event::Snapshot(instances) => known = instances.into_iter().map(keyed).collect(),
                Event::Changed(instance) => known.extend([keyed(instance)]),
                Event::Removed(removed) => drop(known.remove(&removed.id)),
            }
            if known.values().filter(|instance| filter.passes(instance)).count() >= wanted {
                return Ok(());
            }
        }
        Err(Failure::from(changes.failure().cloned().unwrap_or(Error::Closed)))
    };
    let waited = tokio::time::timeout(timeout, enough).await;
    known.retain(|_, instance| filter.passes(instance));
    match waited {
        Ok(done) => done?,
        // A server that is there and says nothing may be frozen.
        Err(_) if !heard => return Err(unheard(discovery, timeout)),
        Err(_) => return Err(late(discovery, name, known.len(), wanted, timeout)),
    }
    Ok(known.into_values().collect())
}

/// Without any patience: the server is asked once, for as long as every command asks it.
async fn at_once(
    discovery: &Discovery,
    name: &ServiceName,
    filter: &Filter,
    wanted: u32,
    query: Query,
) -> Result<Vec<Arc<Instance>>, Failure> {
    let mut instances = match discovery.list(query).await {
        // Nobody has this name: that is an answer, too.
        Err(error) if error.is_not_found() => Vec::new(),
        listed => listed?,
    };
    instances.retain(|instance| filter.passes(instance));
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    if instances.len() < wanted {
        return Err(late(discovery, name, instances.len(), wanted, Duration::ZERO));
    }
    Ok(instances)
}

/// Without a server nobody knows who is there.
fn unheard(discovery: &Discovery, after: Duration) -> Failure {
    let away = discovery.disconnected().now_or_never();
    away.unwrap_or_else(|| Error::Deadline { server: "the discovery server".into(), after }).into()
}

fn late(discovery: &Discovery, name: &ServiceName, there: usize, wanted: usize, timeout: Duration) -> Failure {
    if let Some(away) = discovery.disconnected().now_or_never() {
        return away.into();
    }
    let (waited, instances) = (time::display(timeout), if wanted == 1 { "instance" } else { "instances" });
    Failure::NotFound(format!(
        "waited {waited} for {wanted} {instances} of `{name}`, {there} there; see `roundsman list {name}` for the reasons"
    ))
}
