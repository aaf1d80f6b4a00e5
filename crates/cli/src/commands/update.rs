//! `roundsman update ID --weight 50`: changes what is named, and leaves the rest as it is.

use std::{sync::Arc, time::Duration};

use clap::Args;
use clap_complete::ArgValueCompleter;
use roundsman::{
    Discovery, Error, Instance, InstanceId, InstanceStatus,
    protocol::{Registration, instance::Outcome, time},
};

use crate::{
    args::{ClientArgs, Shape, values::key_value},
    commands::{connect, finding::found, note},
    complete,
    exit::Failure,
    output::{Screen, printable},
};

#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// The instance's id, the first column of `roundsman list NAME`
    #[arg(value_parser = InstanceId::try_new, add = ArgValueCompleter::new(complete::ids))]
    id: InstanceId,
    #[command(flatten)]
    wishes: Wishes,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Wishes {
    /// Its share of lookups, relative to the service's other instances
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// Which version it is; an empty one takes it away
    #[arg(long)]
    version: Option<String>,
    /// Where it runs; an empty one takes it away
    #[arg(long)]
    zone: Option<String>,
    /// Add this tag; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Take this tag away; may be repeated
    #[arg(long = "untag", value_name = "TAG")]
    untags: Vec<String>,
    /// Set this metadata entry; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// Take this metadata entry away; may be repeated
    #[arg(long, value_name = "KEY")]
    unmeta: Vec<String>,
    /// The path to visit
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    /// Time between two visits
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    interval: Option<Duration>,
    /// Time that a visit may take
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    timeout: Option<Duration>,
}

pub(crate) async fn run(args: UpdateArgs) -> Result<(), Failure> {
    let discovery = connect(&args.client).await?;
    let before = found(&discovery, &args.id).await?;
    if before.status == InstanceStatus::Evicted {
        let reason = printable(&before.reason);
        return Err(Failure::Failed(format!(
            "{} is evicted ({reason}), and an update would register it anew; update it once it is back",
            args.id
        )));
    }
    let wanted = args.wishes.apply(&before);
    wanted.validate().map_err(Error::from)?;
    let outcome = discovery.register_once(&wanted).await?.outcome;
    if *before.check != wanted.check {
        keep_drained(&discovery, &before).await?;
    }
    let mut screen = Screen::stdout();
    if let Some(data) = args.client.output().data() {
        return screen.data(data, &*found(&discovery, &args.id).await?);
    }
    if outcome == Outcome::Unchanged {
        return screen.line(&format!("{} is so already", args.id));
    }
    screen.line(&format!("{}: {}", args.id, differences(&before, &wanted).join(", ")))?;
    screen.line("a program that keeps itself registered says again what it says of itself when it reconnects")
}

/// With another check an instance begins anew: not handed out until a visit passes, and not drained any more.
async fn keep_drained(discovery: &Discovery, before: &Instance) -> Result<(), Failure> {
    note(&format!("{} is visited in another way: it is starting until a visit passes", before.id));
    if before.status == InstanceStatus::Draining {
        discovery.drain(&before.id, true).await?;
        note(&format!("{} was draining, and drains again", before.id));
    }
    Ok(())
}

// === impl Wishes ===

impl Wishes {
    /// The registration of an instance that is what it was, but for these.
    fn apply(self, before: &Instance) -> Registration {
        let label = |wish: Option<String>, old: &Option<Box<str>>| match wish {
            Some(text) => Some(text).filter(|text| !text.is_empty()).map(Box::from),
            None => old.clone(),
        };
        let mut check = (*before.check).clone();
        check.path = self.health.map(Arc::from).or(check.path);
        check.interval = self.interval.or(check.interval);
        check.timeout = self.timeout.or(check.timeout);
        let mut tags: Vec<Box<str>> =
            before.tags.iter().filter(|tag| !self.untags.iter().any(|gone| **gone == ***tag)).cloned().collect();
        let added: Vec<Box<str>> = self.tags.into_iter().map(Box::from).filter(|tag| !tags.contains(tag)).collect();
        tags.extend(added);
        let kept = before.meta.iter().filter(|(key, _)| !self.unmeta.iter().any(|gone| gone == key));
        let mut meta: std::collections::BTreeMap<String, String> =
            kept.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        meta.extend(self.meta);
        Registration {
            id: Some(before.id.clone()),
            check,
            tags,
            meta: meta.into_iter().collect(),
            zone: label(self.zone, &before.zone),
            version: label(self.version, &before.version),
            weight: self.weight.unwrap_or(before.weight),
            ..Registration::new(before.name.clone(), before.address.clone())
        }
    }
}

/// What becomes of what: `weight 1 → 50`.
fn differences(before: &Instance, after: &Registration) -> Vec<String> {
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or("none").to_owned();
    let list = |texts: Vec<String>| if texts.is_empty() { "none".to_owned() } else { texts.join(",") };
    let tags = |tags: &[Box<str>]| list(tags.iter().map(ToString::to_string).collect());
    let meta = |meta: &roundsman::Meta| list(meta.iter().map(|(key, value)| format!("{key}={value}")).collect());
    let path = |check: &roundsman::Check| check.path().unwrap_or("none").to_owned();
    let time = |time: Option<Duration>| time.map_or_else(|| "default".to_owned(), time::display);
    let fields = [
        ("weight", before.weight.to_string(), after.weight.to_string()),
        ("version", text(&before.version), text(&after.version)),
        ("zone", text(&before.zone), text(&after.zone)),
        ("tags", tags(&before.tags), tags(&after.tags)),
        ("meta", meta(&before.meta), meta(&after.meta)),
        ("health", path(&before.check), path(&after.check)),
        ("interval", time(before.check.interval), time(after.check.interval)),
        ("timeout", time(before.check.timeout), time(after.check.timeout)),
    ];
    let changed = fields.into_iter().filter(|(_, before, after)| before != after);
    changed.map(|(field, before, after)| printable(&format!("{field} {before} → {after}"))).collect()
}
