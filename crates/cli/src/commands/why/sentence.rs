//! An event, as one would tell it to a colleague.

use roundsman::{
    Instance, InstanceStatus,
    protocol::{Event, EventKind, Who},
};

pub(super) fn sentence(event: &Event) -> String {
    let (reason, by) = (&event.reason, by(event.who.as_ref()));
    match event.kind {
        EventKind::Registered => match event.from {
            None => format!("It was {reason}{by}."),
            Some(was) => format!("It was {reason} anew{by}; it had been {was}."),
        },
        EventKind::Updated => updated(event, &by),
        EventKind::Flip => flip(event.from, event.to, reason),
        EventKind::Evicted => format!("It was evicted: {reason}. It was no longer handed out."),
        EventKind::Reinstated => format!("It was reinstated: {reason}. It was handed out again."),
        EventKind::Drained => format!("It was drained{by}: registered, and no longer handed out."),
        EventKind::Undrained => format!("Its drain was undone{by}."),
        EventKind::Deregistered => format!("It was {reason}{by}."),
        EventKind::Replaced => format!("It was {reason}."),
        EventKind::Forgotten => format!("It was forgotten: {reason}."),
        EventKind::Cut => format!("(Events are missing here: {reason}.)"),
    }
}

fn updated(event: &Event, by: &str) -> String {
    let what = event.reason.strip_prefix("updated").unwrap_or_default();
    let begins = event.to == Some(InstanceStatus::Starting) && event.from != event.to;
    let begins = if begins { "; it is visited in another way, and was starting until a visit passed" } else { "" };
    format!("It was updated{by}{what}{begins}.")
}

/// From what the instance itself remembers, for a store that keeps no events.
pub(super) fn of_flips(instance: &Instance) -> impl Iterator<Item = (String, String)> {
    let before = std::iter::once(None).chain(instance.history.iter().map(|flip| Some(flip.status)));
    let flips = instance.history.iter().zip(before);
    flips.map(|(now, before)| (now.at.to_string(), flip(before, Some(now.status), &now.reason)))
}

fn flip(from: Option<InstanceStatus>, to: Option<InstanceStatus>, reason: &str) -> String {
    match (from, to) {
        (Some(InstanceStatus::Starting), Some(InstanceStatus::Passing)) => {
            format!("A visit passed: {reason}. It was handed out from then on.")
        }
        (Some(InstanceStatus::Passing), Some(InstanceStatus::Suspect)) => {
            format!("It was suspected: {reason}. It was still handed out.")
        }
        (Some(InstanceStatus::Suspect), Some(InstanceStatus::Passing)) => format!("It was found well again: {reason}."),
        (Some(from), Some(to)) if from != to => format!("It was {to} and no longer {from}: {reason}."),
        (_, Some(to)) => format!("It was {to}: {reason}."),
        (Some(from), None) => format!("It was no longer {from}: {reason}."),
        (None, None) => format!("{reason}."),
    }
}

/// Whoever asked, as far as it is known.
fn by(who: Option<&Who>) -> String {
    let Some(who) = who else { return String::new() };
    match (&who.service, &who.address, &who.session) {
        (Some(service), Some(address), _) => format!(", asked for by {service} from {address}"),
        (Some(service), None, _) => format!(", asked for by {service}"),
        (None, Some(address), _) => format!(", asked for from {address}"),
        (None, None, Some(session)) => format!(", asked for in session {session}"),
        (None, None, None) => String::new(),
    }
}
