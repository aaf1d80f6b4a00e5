//! `roundsman events [NAME]`: what happened, newest first.

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use clap_complete::ArgValueCompleter;
use roundsman::{
    Discovery, HistoryQuery, InstanceId, ServiceName,
    protocol::{Event, EventKind, Who, history::MAX_EVENTS},
};

use crate::{
    args::{ClientArgs, Shape, values::Moment},
    commands::{connect, note},
    complete,
    exit::Failure,
    output::{Screen, Style, moment, now},
    table::{Cell, Table},
};

#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Only of this service
    #[arg(value_parser = ServiceName::try_new, add = ArgValueCompleter::new(complete::services))]
    name: Option<ServiceName>,
    /// Only of this instance
    #[arg(long, value_name = "ID", value_parser = InstanceId::try_new, add = ArgValueCompleter::new(complete::ids))]
    instance: Option<InstanceId>,
    /// Not before: so long ago, such as 1h, or a time such as 2026-11-21T19:00:00Z
    #[arg(long, value_name = "TIME", value_parser = Moment::read)]
    since: Option<Moment>,
    /// Not after, written as --since
    #[arg(long, value_name = "TIME", value_parser = Moment::read)]
    until: Option<Moment>,
    /// Only of this kind, or one of several with commas between them
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',', value_parser = kinds())]
    kinds: Vec<EventKind>,
    /// At most so many events
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

pub(crate) async fn run(args: EventsArgs) -> Result<(), Failure> {
    let now = now();
    let moment = |moment: Option<Moment>| moment.map(|moment| moment.before(now));
    let query = HistoryQuery {
        service: args.name,
        instance: args.instance,
        since: moment(args.since),
        until: moment(args.until),
        ..HistoryQuery::default()
    };
    let nothing = match query == HistoryQuery::default() && args.kinds.is_empty() {
        true => format!("nothing is remembered yet in namespace `{}`", args.client.namespace()),
        false => "nothing is remembered that matches".to_owned(),
    };
    let events = read(&connect(&args.client).await?, query, args.limit, |event| {
        // A cut may hide one of any kind.
        args.kinds.is_empty() || args.kinds.contains(&event.kind) || event.kind == EventKind::Cut
    })
    .await?;
    let mut screen = Screen::stdout();
    match args.client.output().data() {
        Some(data) => screen.data(data, &events),
        None if events.is_empty() => {
            note(&nothing);
            Ok(())
        }
        None => table(&events).print(&mut screen),
    }
}

/// Those that servers write down. A cut is shown in any case, and seldom asked for.
fn kinds() -> impl TypedValueParser<Value = EventKind> {
    let value = |kind: EventKind| PossibleValue::new(kind.as_str()).hide(kind == EventKind::Cut);
    PossibleValuesParser::new(EventKind::ALL.map(value)).try_map(|text| text.parse::<EventKind>())
}

/// So many of the events that are wanted, newest first, page by page.
pub(crate) async fn read(
    discovery: &Discovery,
    query: HistoryQuery,
    limit: u32,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Vec<Event>, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut events, mut after) = (Vec::new(), None);
    loop {
        let left = u32::try_from(limit.saturating_sub(events.len())).unwrap_or(u32::MAX);
        let page = discovery.history(HistoryQuery { limit: left.min(MAX_EVENTS), after, ..query.clone() }).await?;
        events.extend(page.events.into_iter().filter(&wanted));
        after = page.next;
        if events.len() >= limit || after.is_none() {
            return Ok(events);
        }
    }
}

fn table(events: &[Event]) -> Table {
    let mut table = Table::new(["TIME", "KIND", "SERVICE", "INSTANCE", "STATUS", "WHO", "SERVER", "REASON"]);
    for event in events {
        table.row([
            Cell::styled(moment(event.at), Style::Dim),
            Cell::styled(event.kind.as_str(), style(event.kind)),
            Cell::new(event.service.as_ref().map_or("-", |service| service.as_str())),
            Cell::new(event.instance.as_ref().map_or("-", |instance| instance.as_str())),
            Cell::new(status(event)),
            Cell::new(event.who.as_ref().map_or_else(|| "-".to_owned(), who)),
            Cell::new(if event.server.is_empty() { "-" } else { &event.server }),
            Cell::new(&event.reason),
        ]);
    }
    table
}

/// What became of the status: `passing→evicted`, or only what it is since.
fn status(event: &Event) -> String {
    match (event.from, event.to) {
        (Some(from), Some(to)) if from != to => format!("{from}→{to}"),
        (_, Some(status)) => status.to_string(),
        (Some(from), None) => format!("{from}→gone"),
        (None, None) => "-".to_owned(),
    }
}

/// Who asked: the service that it said it is, and from where.
fn who(who: &Who) -> String {
    let known = [&who.service, &who.address].into_iter().flatten();
    let known: Vec<&str> = known.map(AsRef::as_ref).collect();
    if known.is_empty() { who.session.as_deref().unwrap_or("-").to_owned() } else { known.join("@") }
}

fn style(kind: EventKind) -> Style {
    match kind {
        EventKind::Registered | EventKind::Reinstated | EventKind::Undrained => Style::Green,
        EventKind::Evicted | EventKind::Forgotten => Style::Red,
        EventKind::Drained => Style::Cyan,
        EventKind::Deregistered | EventKind::Replaced => Style::Yellow,
        EventKind::Cut => Style::Dim,
        EventKind::Updated | EventKind::Flip => Style::Plain,
    }
}

#[cfg(test)]
mod tests {
    use roundsman::{InstanceStatus, Timestamp};

    use super::*;

    #[test]
    fn an_event_is_a_line_and_a_cut_is_one_too() {
        let cut =
            Event::cut(None, Timestamp::from_millis(1_795_225_800_123), "older ones were dropped".into(), "".into());
        assert_eq!((moment(cut.at).as_str(), status(&cut).as_str()), ("2026-11-21T01:50:00Z", "-"));
        let (from, to) = (Some(InstanceStatus::Passing), Some(InstanceStatus::Evicted));
        let evicted = Event { kind: EventKind::Evicted, from, to, ..cut.clone() };
        assert_eq!(status(&evicted), "passing→evicted");
        assert_eq!(status(&Event { to: None, ..evicted.clone() }), "passing→gone");
        assert_eq!(status(&Event { from: None, ..evicted }), "evicted");
        assert_eq!(who(&Who::default()), "-");
        let order = Who { service: Some("order".into()), address: Some("10.0.0.9:1".into()), session: None };
        assert_eq!(who(&order), "order@10.0.0.9:1");
    }
}
