//! `roundsman watch [NAME]`: a line per change, until interrupted.

use std::{collections::BTreeMap, sync::Arc};

use clap::Args;
use clap_complete::ArgValueCompleter;
use roundsman::{Discovery, Error, Event, Instance, InstanceId, Namespace, Removed, Scope, ServiceName};
use serde::Serialize;

use crate::{
    args::{ClientArgs, Filter, Output, Shape},
    commands::{connect, note},
    complete,
    exit::{Failure, typed},
    output::{Screen, Style, now, printable, short},
};

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// Follow this service only
    #[arg(value_parser = ServiceName::try_new, add = ArgValueCompleter::new(complete::services))]
    name: Option<ServiceName>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pub(crate) client: ClientArgs<Output>,
}

/// One line. `present` is what was there when watching began.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Present { instance: Arc<Instance> },
    Changed { instance: Arc<Instance> },
    Removed { removed: Removed },
}

pub(crate) async fn run(args: WatchArgs) -> Result<(), Failure> {
    let discovery = connect(&args.client).await?;
    let mut changes = discovery.watch(args.filter.query(args.name.as_ref(), Scope::All)?)?;
    let mut follower = Follower {
        screen: Screen::stdout(),
        output: args.client.output(),
        namespace: args.client.namespace(),
        name: args.name,
        filter: args.filter,
        known: None,
        widths: (0, 0),
    };
    loop {
        tokio::select! {
            event = changes.next() => match event {
                Some(event) => follower.tell(event)?,
                None => return Err(changes.failure().cloned().unwrap_or(Error::Closed).into()),
            },
            () = interruption(&discovery) => {}
        }
    }
}

/// Says when the server is lost and when it is back; returns after both.
pub(crate) async fn interruption(discovery: &Discovery) {
    let tried = match discovery.disconnected().await {
        Error::Unreachable { tried } | Error::Refused { tried } => tried.to_string(),
        error => error.to_string(),
    };
    note(&format!("lost the server ({}); waiting for it", short(&tried)));
    if discovery.connected().await.is_ok() {
        note("connected again");
    }
}

/// For those who wait for a name that nobody has, perhaps because nobody ever will.
pub(crate) fn nobody_yet(name: &ServiceName, filter: &Filter, namespace: &Namespace) -> String {
    let such = if filter.is_empty() { "" } else { " that is what you ask for" };
    let list = typed("list", namespace);
    format!("nobody has the name `{name}` yet{such}; waiting (see {list} for the names that there are)")
}

struct Follower {
    screen: Screen,
    output: Output,
    namespace: Namespace,
    name: Option<ServiceName>,
    filter: Filter,
    /// What was told so far; a snapshot is told as its difference to this.
    known: Option<BTreeMap<InstanceId, Arc<Instance>>>,
    /// The longest id and address so far: columns line up as far as that is known.
    widths: (usize, usize),
}

impl Follower {
    fn tell(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Snapshot(instances) => self.snapshot(instances),
            Event::Changed(instance) => self.changed(instance),
            Event::Removed(removed) => self.removed(removed),
        }
    }

    fn snapshot(&mut self, instances: Vec<Arc<Instance>>) -> Result<(), Failure> {
        let Some(known) = &self.known else {
            if let Some(name) = self.name.as_ref().filter(|_| instances.is_empty()) {
                note(&nobody_yet(name, &self.filter, &self.namespace));
            }
            let lengths = |instance: &Arc<Instance>| (instance.id.as_str().len(), instance.address.to_string().len());
            let lengths = instances.iter().filter(|instance| self.filter.passes(instance)).map(lengths);
            self.widths = lengths.fold(self.widths, |(id, address), now| (id.max(now.0), address.max(now.1)));
            self.known = Some(instances.iter().map(|instance| (instance.id.clone(), Arc::clone(instance))).collect());
            return instances.into_iter().try_for_each(|instance| self.print(&Line::Present { instance }, None));
        };
        let gone = known.values().filter(|old| !instances.iter().any(|instance| instance.id == old.id));
        let gone: Vec<_> = gone.cloned().collect();
        for old in gone {
            let (id, name) = (old.id.clone(), old.name.clone());
            self.removed(Removed { id, name, status: None, reason: "no longer registered".into() })?;
        }
        for instance in instances {
            let same =
                self.known.as_ref().and_then(|known| known.get(&instance.id)).is_some_and(|old| *old == instance);
            if !same {
                self.changed(instance)?;
            }
        }
        Ok(())
    }

    fn changed(&mut self, instance: Arc<Instance>) -> Result<(), Failure> {
        let known = self.known.get_or_insert_default();
        let old = known.insert(instance.id.clone(), Arc::clone(&instance));
        self.print(&Line::Changed { instance }, old.as_deref())
    }

    fn removed(&mut self, removed: Removed) -> Result<(), Failure> {
        let old = self.known.get_or_insert_default().remove(&removed.id);
        self.print(&Line::Removed { removed }, old.as_deref())
    }

    fn print(&mut self, line: &Line, old: Option<&Instance>) -> Result<(), Failure> {
        let now = match line {
            Line::Present { instance } | Line::Changed { instance } => Some(instance.status),
            Line::Removed { removed } => removed.status,
        };
        // Who gets into such a status is told of, and who leaves it.
        if !self.filter.admits_any([now, old.map(|old| old.status)]) {
            return Ok(());
        }
        if let Some(data) = self.output.data() {
            return self.screen.one_of_many(data, line);
        }
        let (id, address) = match line {
            Line::Present { instance } | Line::Changed { instance } => (&instance.id, instance.address.to_string()),
            Line::Removed { removed } => (&removed.id, old.map_or_else(String::new, |old| old.address.to_string())),
        };
        if self.output == Output::Name {
            return self.screen.line(id.as_str());
        }
        self.widths = (self.widths.0.max(id.as_str().len()), self.widths.1.max(address.len()));
        let who = format!("{id:0$}  {address:1$}", self.widths.0, self.widths.1);
        let (status, rest) = match line {
            Line::Present { instance } | Line::Changed { instance } => self.instance_line(instance, old),
            Line::Removed { removed } => self.removed_line(removed),
        };
        self.screen.wrapped(&format!("{}  {status}  {who}  ", clock()), &rest)
    }

    fn instance_line(&self, instance: &Instance, old: Option<&Instance>) -> (String, String) {
        let status = self.screen.paint(Style::of(instance.status), &format!("{:8}", instance.status));
        let from = match old {
            Some(old) if old.status != instance.status => format!(" (was {})", old.status),
            Some(old) if old.reason == instance.reason => " (data changed)".to_owned(),
            _ => String::new(),
        };
        let reason = printable(&instance.reason);
        let more = if self.output == Output::Wide { more(instance) } else { String::new() };
        (status, format!("{reason}{from}{more}"))
    }

    fn removed_line(&self, removed: &Removed) -> (String, String) {
        let reason = printable(&removed.reason);
        match removed.status.filter(|_| !self.filter.is_empty()) {
            // It is there, and it is not what was asked for any more.
            Some(status) => (
                self.screen.paint(Style::Dim, "left    "),
                format!("no longer what you ask for; it is {status}: {reason}"),
            ),
            None => (self.screen.paint(Style::Red, "removed "), reason),
        }
    }
}

/// What `-o wide` tells besides.
fn more(instance: &Instance) -> String {
    let mut parts = vec![format!("service={}", instance.name)];
    parts.extend(instance.version.as_ref().map(|version| format!("version={version}")));
    parts.extend(instance.zone.as_ref().map(|zone| format!("zone={zone}")));
    parts.push(format!("weight={}", instance.weight));
    parts.extend(instance.tags.iter().map(|tag| format!("tag={tag}")));
    parts.extend(instance.meta.iter().map(|(key, value)| format!("{key}={value}")));
    printable(&format!("  [{}]", parts.join(" ")))
}

/// The time of day, in UTC as all times here are.
fn clock() -> String {
    let now = now().to_string();
    let time = now.split_once('T').map_or(now.as_str(), |(_, time)| time);
    format!("{}Z", time.get(..8).unwrap_or(time))
}
