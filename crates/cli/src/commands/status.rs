//! `roundsman status`: the whole server at this moment.

use clap::Args;
use roundsman::{
    HistoryQuery, Status,
    protocol::{Event, EventKind, history::MAX_EVENTS, status::RecentFlip, time},
};

use crate::{
    args::{ClientArgs, Shape},
    commands::{connect, list::summary::services_table},
    exit::Failure,
    output::{Screen, Style, age, ago, printable},
    table::{Cell, Table},
};

/// How many of the latest flips people are shown; JSON has them all.
const RECENT: usize = 10;

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

pub(crate) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let discovery = connect(&args.client).await?;
    let status = discovery.status().await?;
    let mut screen = Screen::stdout();
    if let Some(data) = args.client.output().data() {
        return screen.data(data, &status);
    }
    for (title, text) in summary(&screen, &status) {
        let title = screen.paint(Style::Bold, &format!("{title:8}"));
        screen.wrapped(&format!("{title}  "), &text)?;
    }
    for namespace in &status.namespaces {
        screen.line("")?;
        if namespace.services.is_empty() {
            screen.line(&format!("no services are registered in namespace `{}`", namespace.namespace))?;
        } else {
            services_table(&namespace.services).print(&mut screen)?;
        }
    }
    if !status.recent.is_empty() {
        screen.line("")?;
        recent(&status).print(&mut screen)?;
    }
    // A server of an earlier release has no history, and a store may be away: the rest is worth showing all the same.
    let lately = HistoryQuery { limit: MAX_EVENTS, ..HistoryQuery::default() };
    let removals = removals(discovery.history(lately).await.map(|page| page.events).unwrap_or_default());
    if !removals.is_empty() {
        screen.line("")?;
        removed(&removals, &status).print(&mut screen)?;
    }
    Ok(())
}

/// A title and a line for each part of the server.
fn summary(screen: &Screen, status: &Status) -> Vec<(&'static str, String)> {
    let (doors, rounds) = (&status.doors, &status.rounds);
    let ready = if status.ready { screen.paint(Style::Green, "ready") } else { screen.paint(Style::Red, "not ready") };
    let door = |addr: &Option<String>| addr.clone().unwrap_or_else(|| "closed".to_owned());
    let up = age(status.now.since(status.started_at));
    vec![
        ("server", format!("{ready}, {} (version {}), up {up}", status.server, status.version)),
        ("doors", format!("rpc {}, http {}", door(&doors.rpc), door(&doors.http))),
        (
            "clients",
            [plural(doors.connections, "connection"), plural(doors.calls, "call"), plural(doors.watches, "watch")]
                .join(", "),
        ),
        ("store", store(screen, status)),
        ("", commits(status)),
        (
            "rounds",
            format!(
                "every {}, timeout {}, {} in a row evict, probation {}",
                time::display(rounds.interval),
                time::display(rounds.timeout),
                plural(u64::from(rounds.failures), "failure"),
                time::display(rounds.probation),
            ),
        ),
        (
            "",
            format!(
                "{}, {} kept, {} in flight",
                plural(rounds.targets, "target"),
                plural(rounds.kept, "connection"),
                plural(rounds.in_flight, "visit")
            ),
        ),
        ("", visits(status)),
        ("names", names(screen, status)),
        ("lag", lag(screen, status)),
        ("brake", brake(screen, status)),
        ("memory", memory(status)),
        ("replicas", if status.replicas.is_empty() { "none".to_owned() } else { status.replicas.join(", ") }),
    ]
}

fn store(screen: &Screen, status: &Status) -> String {
    let store = &status.store;
    let since = age(status.now.since(store.since));
    let state = if store.available {
        screen.paint(Style::Green, &format!("available for {since}"))
    } else {
        let error = store.last_error.as_deref().map_or_else(String::new, |error| format!(": {}", printable(error)));
        screen.paint(Style::Red, &format!("unavailable for {since}{error}"))
    };
    format!("{} ({}), {state}", store.kind, store.location)
}

fn commits(status: &Status) -> String {
    let store = &status.store;
    let mut text = plural(store.commits, "commit");
    let counts = [
        (store.unwritten, "unwritten change"),
        (store.refills, "refill"),
        (store.repaired, "repaired record"),
        (store.damaged, "damaged record"),
    ];
    for (count, what) in counts {
        if count > 0 {
            text.push_str(", ");
            text.push_str(&plural(count, what));
        }
    }
    text
}

fn visits(status: &Status) -> String {
    let rounds = &status.rounds;
    let mut text = format!(
        "{}, {} failed, {}, {}",
        plural(rounds.visits, "visit"),
        rounds.failed,
        plural(rounds.evictions, "eviction"),
        plural(rounds.reinstatements, "reinstatement"),
    );
    if rounds.unvisited > 0 {
        text.push_str(&format!(", {} not visited yet since the start", rounds.unvisited));
    }
    if rounds.queued > 0 {
        text.push_str(&format!(", {} waiting for a turn", rounds.queued));
    }
    text
}

/// Host names; nothing when there are none.
fn names(screen: &Screen, status: &Status) -> String {
    let names = &status.rounds.names;
    if names.known == 0 {
        return "none registered by name".to_owned();
    }
    let text = plural(names.known, "name");
    if names.stale == 0 {
        return text;
    }
    let stale = format!("{} at the last known address: no name server answers", names.stale);
    format!("{text}, {}", screen.paint(Style::Red, &stale))
}

/// How late the server itself was.
fn lag(screen: &Screen, status: &Status) -> String {
    let (lag, timeout) = (&status.rounds.lag, status.rounds.timeout);
    let recent = format!("{} at most in the last minute", time::display(lag.recent));
    let recent = if lag.recent > timeout / 4 { screen.paint(Style::Red, &recent) } else { recent };
    let mut text = format!("{recent}, worst {}", time::display(lag.worst));
    if let Some(last) = lag.last {
        let timeouts = plural(lag.voided, "timeout");
        text.push_str(&format!("; {timeouts} void, the last lag was {}", ago(last, status.now)));
    }
    text
}

/// What callers make the server keep.
fn memory(status: &Status) -> String {
    let memory = &status.memory;
    let mib = |bytes: u64| bytes.div_ceil(1_024 * 1_024);
    let mut text = format!("{} of {} MiB accounted for", mib(memory.used), mib(memory.limit));
    if memory.refused > 0 {
        text.push_str(&format!(", {} refused", plural(memory.refused, "request")));
    }
    text
}

fn brake(screen: &Screen, status: &Status) -> String {
    let brake = &status.brake;
    let silent = format!("{} of {} instances silent", brake.silent, brake.visited);
    if !brake.on {
        return format!("off, {silent}");
    }
    let since = brake.since.map_or_else(String::new, |since| format!(" for {}", age(status.now.since(since))));
    let on = screen.paint(Style::Red, &format!("on{since}"));
    format!("{on}, {silent}, {} held back: is this server cut off?", plural(brake.held, "eviction"))
}

fn recent(status: &Status) -> Table {
    let mut table = Table::new(["LATEST", "INSTANCE", "ADDRESS", "STATUS", "REASON"]);
    for RecentFlip { id, address, flip, .. } in status.recent.iter().take(RECENT) {
        table.row([
            Cell::new(ago(flip.at, status.now)),
            Cell::new(id),
            Cell::new(address),
            Cell::styled(flip.status.to_string(), Style::of(flip.status)),
            Cell::new(&flip.reason),
        ]);
    }
    table
}

/// The latest of those that took somebody out of the lists.
fn removals(events: Vec<Event>) -> Vec<Event> {
    let kinds = [EventKind::Evicted, EventKind::Deregistered, EventKind::Replaced, EventKind::Forgotten];
    events.into_iter().filter(|event| kinds.contains(&event.kind)).take(RECENT).collect()
}

fn removed(removals: &[Event], status: &Status) -> Table {
    let mut table = Table::new(["REMOVED", "INSTANCE", "SERVICE", "HOW", "REASON"]);
    for event in removals {
        table.row([
            Cell::new(ago(event.at, status.now)),
            Cell::new(event.instance.as_ref().map_or("-", |instance| instance.as_str())),
            Cell::new(event.service.as_ref().map_or("-", |service| service.as_str())),
            Cell::new(event.kind.as_str()),
            Cell::new(&event.reason),
        ]);
    }
    table
}

fn plural(count: u64, what: &str) -> String {
    let ending = match what {
        _ if count == 1 => "",
        "watch" => "es",
        _ => "s",
    };
    format!("{count} {what}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_their_nouns() {
        assert_eq!([0, 1, 2].map(|n| plural(n, "watch")), ["0 watches", "1 watch", "2 watches"]);
        assert_eq!(plural(1, "visit"), "1 visit");
    }
}
