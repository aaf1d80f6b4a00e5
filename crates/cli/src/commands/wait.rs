//! `roundsman wait NAME [--passing N]`: for scripts that need somebody to be there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use clap::Args;
use clap_complete::ArgValueCompleter;
use futures::FutureExt;
use roundsman::{
    Discovery, DiscoveryError, Error, Event, Instance, InstanceId, Namespace, Query, Scope, ServiceName, protocol::time,
};

use crate::{
    args::{ClientArgs, Filter, Output, Shape},
    commands::{connect_lazy, note, watch::nobody_yet},
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
    let namespace = args.client.namespace();
    let wanted = Wanted { namespace: &namespace, name: &args.name, filter: &args.filter, count: args.passing };
    let instances = wanted.wait(&discovery, args.timeout).await?;
    let mut screen = Screen::stdout();
    if output != Output::Table || output.data().is_some() {
        return view.print(&mut screen, &instances);
    }
    let (count, name) = (instances.len(), &args.name);
    let instances = if count == 1 { "instance" } else { "instances" };
    screen.line(&format!("{count} {instances} of {name} {}", if count == 1 { "is there" } else { "are there" }))
}

/// So many instances of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) name: &'a ServiceName,
    pub(crate) filter: &'a Filter,
    pub(crate) count: u32,
}

// === impl Wanted ===

impl Wanted<'_> {
    /// These instances, as soon as there are that many. Also a server is waited for.
    pub(crate) async fn wait(self, discovery: &Discovery, timeout: Duration) -> Result<Vec<Arc<Instance>>, Failure> {
        let query = self.filter.query(Some(self.name), Scope::Available)?;
        if timeout.is_zero() {
            return self.at_once(discovery, query).await;
        }
        let mut changes = discovery.watch(query)?;
        let mut known: BTreeMap<InstanceId, Arc<Instance>> = BTreeMap::new();
        let mut heard = false;
        let enough = async {
            while let Some(event) = changes.next().await {
                let first = !std::mem::replace(&mut heard, true);
                let keyed = |instance: Arc<Instance>| (instance.id.clone(), instance);
                match event {
                    Event::Snapshot(instances) => known = instances.into_iter().map(keyed).collect(),
                    Event::Changed(instance) => known.extend([keyed(instance)]),
                    Event::Removed(removed) => drop(known.remove(&removed.id)),
                }
                if known.values().filter(|instance| self.filter.passes(instance)).count() >= self.count() {
                    return Ok(());
                }
                if first && known.is_empty() && self.is_unknown(discovery).await {
                    note(&nobody_yet(self.name, &Filter::default(), self.namespace));
                }
            }
            Err(Failure::from(changes.failure().cloned().unwrap_or(Error::Closed)))
        };
        let waited = tokio::time::timeout(timeout, enough).await;
        known.retain(|_, instance| self.filter.passes(instance));
        match waited {
            Ok(done) => done?,
            // A server that is there and says nothing may be frozen.
            Err(_) if !heard => return Err(unheard(discovery, timeout)),
            Err(_) => return Err(self.late(discovery, known.len(), timeout).await),
        }
        Ok(known.into_values().collect())
    }

    /// Without any patience: the server is asked once, for as long as every command asks it.
    async fn at_once(self, discovery: &Discovery, query: Query) -> Result<Vec<Arc<Instance>>, Failure> {
        let mut instances = match discovery.list(query).await {
            // Nobody has this name: that is an answer, too.
            Err(error) if error.is_not_found() => Vec::new(),
            listed => listed?,
        };
        instances.retain(|instance| self.filter.passes(instance));
        if instances.len() < self.count() {
            return Err(self.late(discovery, instances.len(), Duration::ZERO).await);
        }
        Ok(instances)
    }

    fn count(self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Whether nobody at all has the name, which may be a typing error.
    async fn is_unknown(self, discovery: &Discovery) -> bool {
        let found = discovery.get(self.name.clone()).await;
        matches!(found, Err(Error::Discovery(DiscoveryError::NoSuchService { .. })))
    }

    async fn late(self, discovery: &Discovery, there: usize, timeout: Duration) -> Failure {
        if let Some(away) = discovery.disconnected().now_or_never() {
            return away.into();
        }
        let (name, count, patient) = (self.name, self.count, !timeout.is_zero());
        let (waited, instances) = (time::display(timeout), if count == 1 { "instance" } else { "instances" });
        if there == 0 && self.is_unknown(discovery).await {
            return Failure::unknown_name(match patient {
                true => format!("waited {waited} for {count} {instances} of `{name}`, which is nobody's name"),
                false => format!("nobody has the name `{name}`"),
            });
        }
        let what = match patient {
            true => format!("waited {waited} for {count} {instances} of `{name}`, {there} there"),
            false => format!(
                "{there} of {count} {instances} of `{name}` {}",
                if count == 1 { "is there" } else { "are there" }
            ),
        };
        Failure::NotFound { what, see: format!("list {name}"), why: "for the reasons" }
    }
}

/// Without a server nobody knows who is there.
fn unheard(discovery: &Discovery, after: Duration) -> Failure {
    let away = discovery.disconnected().now_or_never();
    away.unwrap_or_else(|| Error::Deadline { server: "the discovery server".into(), after }).into()
}
