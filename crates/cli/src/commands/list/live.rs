//! `roundsman list --watch`: the list, shown again whenever it changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::FutureExt;
use roundsman::{Discovery, Error, Event, Instance, InstanceId, Namespace, Scope, ServiceName};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, interval, sleep_until},
};

use super::{Shown, summary::summaries};
use crate::{
    args::{Filter, Output, Shape},
    commands::{
        note,
        watch::{interruption, nobody_yet},
    },
    exit::Failure,
    output::Screen,
};

/// What happens together is shown together.
const TOGETHER: Duration = Duration::from_millis(50);
/// On a terminal ages are kept up to date.
const AGES: Duration = Duration::from_secs(1);
/// Puts the cursor into the upper left corner and wipes the screen.
const WIPE: &[u8] = b"\x1b[H\x1b[2J\x1b[3J";

pub(super) async fn follow(
    discovery: &Discovery,
    shown: &Shown,
    filter: &Filter,
    namespace: &Namespace,
) -> Result<(), Failure> {
    let name = match shown {
        Shown::Instances(name, _) => Some(name),
        Shown::Services(_) => None,
    };
    let mut changes = discovery.watch(filter.query(name, Scope::All)?)?;
    let mut list = List { shown, filter, namespace, screen: Screen::stdout(), known: BTreeMap::new(), drawn: false };
    let (mut due, mut ages, mut resized) = (None, interval(AGES), listen(SignalKind::window_change())?);
    loop {
        tokio::select! {
            event = changes.next() => {
                let mut event = Some(event);
                // Whatever else is there already belongs to the same picture.
                while let Some(next) = event {
                    let Some(next) = next else {
                        return Err(changes.failure().cloned().unwrap_or(Error::Closed).into());
                    };
                    list.take_in(next);
                    event = changes.next().now_or_never();
                }
                due.get_or_insert_with(|| Instant::now() + if list.drawn { TOGETHER } else { Duration::ZERO });
            }
            () = until(due), if due.is_some() => {
                due = None;
                list.draw()?;
            }
            _ = ages.tick(), if list.drawn && list.redraws() => list.draw()?,
            _ = resized.recv(), if list.drawn && list.redraws() => list.draw()?,
            () = interruption(discovery) => {}
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(Failure::Runtime)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

struct List<'a> {
    shown: &'a Shown,
    filter: &'a Filter,
    namespace: &'a Namespace,
    screen: Screen,
    known: BTreeMap<(ServiceName, InstanceId), Arc<Instance>>,
    drawn: bool,
}

// === impl List ===

impl List<'_> {
    fn take_in(&mut self, event: Event) {
        let keyed = |instance: Arc<Instance>| ((instance.name.clone(), instance.id.clone()), instance);
        match event {
            Event::Snapshot(instances) => self.known = instances.into_iter().map(keyed).collect(),
            Event::Changed(instance) => self.known.extend([keyed(instance)]),
            Event::Removed(removed) => drop(self.known.remove(&(removed.name, removed.id))),
        }
    }

    /// Whether the old picture gives way to the new one; otherwise it is printed below.
    fn redraws(&self) -> bool {
        let output = match self.shown {
            Shown::Services(services) => services.output(),
            Shown::Instances(_, view) => view.output,
        };
        self.screen.width().is_some() && matches!(output, Output::Table | Output::Wide)
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let instances: Vec<Arc<Instance>> =
            self.known.values().filter(|instance| self.filter.passes(instance)).cloned().collect();
        if self.redraws() {
            self.screen.raw(WIPE)?;
        } else if self.drawn && self.is_text() {
            self.screen.line("")?;
        }
        self.drawn = true;
        match self.shown {
            Shown::Services(services) => match services.output().data() {
                Some(data) => self.screen.one_of_many(data, &summaries(&instances)),
                None if instances.is_empty() => self.nothing(&services.none()),
                None => services.print(&mut self.screen, &summaries(&instances)),
            },
            Shown::Instances(name, view) => match view.output.data() {
                Some(data) => self.screen.one_of_many(data, &instances),
                None if instances.is_empty() => self.nothing(&nobody_yet(name, self.filter, self.namespace)),
                None => view.print(&mut self.screen, &instances),
            },
        }
    }

    /// Says why there is nothing to see: in its place on a terminal, and beside the answer where a script may read that.
    fn nothing(&mut self, why: &str) -> Result<(), Failure> {
        if self.redraws() {
            return self.screen.line(why);
        }
        note(why);
        Ok(())
    }

    fn is_text(&self) -> bool {
        match self.shown {
            Shown::Services(services) => services.output().data().is_none(),
            Shown::Instances(_, view) => view.output.data().is_none(),
        }
    }
}
