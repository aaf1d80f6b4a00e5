//! `roundsman why ID`: everything that led to an instance's state, in order, in sentences.

mod sentence;

use std::sync::Arc;

use clap::Args;
use clap_complete::ArgValueCompleter;
use roundsman::{
    HistoryQuery, Instance, InstanceId, InstanceStatus,
    protocol::{Event, EventKind, time},
};
use serde::Serialize;

use self::sentence::{of_flips, sentence};
use crate::{
    args::{ClientArgs, Shape},
    commands::{connect, events::read, finding::find},
    complete,
    exit::Failure,
    output::{Screen, Style, age, ago, now, printable},
};

#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// The instance's id, also of one that is gone
    #[arg(value_parser = InstanceId::try_new, add = ArgValueCompleter::new(complete::ids))]
    id: InstanceId,
    /// At most so many of the latest events
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// For programs.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a InstanceId,
    instance: Option<&'a Instance>,
    /// Oldest first.
    events: &'a [Event],
}

pub(crate) async fn run(args: WhyArgs) -> Result<(), Failure> {
    let discovery = connect(&args.client).await?;
    let query = HistoryQuery { instance: Some(args.id.clone()), ..HistoryQuery::default() };
    let mut events = read(&discovery, query, args.limit, |_| true).await?;
    events.reverse();
    let service = events.iter().rev().find_map(|event| event.service.clone());
    let instance = find(&discovery, &args.id, service).await?;
    // A cut is about everybody: it alone says nothing of this one.
    let known = events.iter().any(|event| event.kind != EventKind::Cut);
    if instance.is_none() && !known {
        let what = format!("`{}` is not registered, and nothing is remembered of it", args.id);
        return Err(Failure::NotFound { what, see: "events".to_owned(), why: "for what is" });
    }
    let mut screen = Screen::stdout();
    if let Some(data) = args.client.output().data() {
        return screen.data(data, &Answer { id: &args.id, instance: instance.as_deref(), events: &events });
    }
    let state = state(&args.id, instance.as_ref(), &events);
    screen.wrapped("", &screen.paint(Style::Bold, &state))?;
    if events.len() >= usize::try_from(args.limit).unwrap_or(usize::MAX) {
        screen.line(&screen.paint(Style::Dim, "(What was before is left out: see --limit.)"))?;
    }
    match &instance {
        Some(instance) if !known => told(&mut screen, of_flips(instance))?,
        _ => told(&mut screen, events.iter().map(|event| (event.at.to_string(), sentence(event))))?,
    }
    match instance.as_deref().and_then(next) {
        Some(next) => screen.wrapped("", &next),
        None => Ok(()),
    }
}

fn told(screen: &mut Screen, lines: impl Iterator<Item = (String, String)>) -> Result<(), Failure> {
    for (at, sentence) in lines {
        let at = at.split_once('.').map_or_else(|| at.clone(), |(seconds, _)| format!("{seconds}Z"));
        screen.wrapped(&format!("{}  ", screen.paint(Style::Dim, &at)), &printable(&sentence))?;
    }
    Ok(())
}

/// What it is now.
fn state(id: &InstanceId, instance: Option<&Arc<Instance>>, events: &[Event]) -> String {
    let now = now();
    match instance {
        Some(instance) => printable(&format!(
            "{id} of {} at {} is {} for {}: {}",
            instance.name,
            instance.address,
            instance.status,
            age(now.since(instance.since)),
            instance.reason
        )),
        None => match events.last() {
            Some(last) => format!("{id} is not registered; the last of it was {}", ago(last.at, now)),
            None => format!("{id} is not registered"),
        },
    }
}

/// What would change it.
fn next(instance: &Instance) -> Option<String> {
    let (id, name) = (&instance.id, &instance.name);
    match instance.status {
        InstanceStatus::Starting => Some("It is handed out as soon as a visit passes.".to_owned()),
        InstanceStatus::Suspect => Some("It is still handed out. What is heard of it next decides.".to_owned()),
        InstanceStatus::Evicted if instance.reason.starts_with("blocked until ") => {
            Some(format!("Nobody may register under this id until then. `roundsman deregister {id} --block 0s` ends that."))
        }
        InstanceStatus::Evicted => Some(match instance.forget_after {
            None => "It is visited for as long as its probation lasts, comes back when it passes, and is forgotten otherwise."
                .to_owned(),
            Some(after) => format!(
                "It is visited about every half minute, at once when somebody reports it, and comes back when it passes; {} \
                 after its eviction it is forgotten.",
                time::display(after)
            ),
        }),
        InstanceStatus::Draining => Some(format!("`roundsman drain {id} --undo` hands it out again.")),
        InstanceStatus::Passing => Some(format!("It is handed out: `roundsman get {name}` names it in its turn.")),
    }
}
