//! `roundsman update ID --weight 50`: changes what is named, and leaves the rest as it is.

use std::{sync::Arc, time::Duration};

use clap::Args;
use clap_complete::ArgValueCompleter;
use roundsman::{
    Discovery, Error, InstanceId, InstanceStatus,
    protocol::{Patch, Patched, instance::Outcome, time},
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
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
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
    /// How long it is remembered once it is evicted, visited now and then; 0s: as long as the server's probation
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    forget_after: Option<Duration>,
}

pub(crate) async fn run(args: UpdateArgs) -> Result<(), Failure> {
    let (id, discovery, patch) = (&args.id, connect(&args.client).await?, args.wishes.patch());
    let Patched { outcome, before, after } = match discovery.patch(id, &patch).await {
        Err(Error::Invalid(invalid)) if invalid.field == "update" => by_hand(&discovery, id, &patch).await?,
        patched => patched?,
    };
    if before.check != after.check && after.status == InstanceStatus::Starting {
        note(&format!("{id} is visited in another way: it is starting until a visit passes"));
    }
    let mut screen = Screen::stdout();
    if let Some(data) = args.client.output().data() {
        return screen.data(data, &*after);
    }
    if outcome == Outcome::Unchanged {
        return screen.line(&format!("{id} is so already"));
    }
    screen.line(&printable(&format!("{id}: {}", before.differences(&after).join(", "))))?;
    screen.line(
        "a program that keeps itself registered says again what it says of itself when it reconnects, which undoes this: \
         change it there",
    )
}

/// With a server of an earlier release, which cannot be asked for a change in part: registers it again as it is, but for
/// that. Of two such changes at a time only the later one may hold.
async fn by_hand(discovery: &Discovery, id: &InstanceId, patch: &Patch) -> Result<Patched, Failure> {
    let before = found(discovery, id).await?;
    if before.status == InstanceStatus::Evicted {
        let reason = printable(&before.reason);
        return Err(Failure::Failed(format!(
            "{id} is evicted ({reason}), and with this server, which is of an earlier release, an update would register it \
             anew; update it once it is back"
        )));
    }
    let wanted = patch.apply(&before);
    wanted.validate().map_err(Error::from)?;
    let outcome = discovery.register_once(&wanted).await?.outcome;
    if *before.check != wanted.check && before.status == InstanceStatus::Draining {
        discovery.drain(id, true).await?;
    }
    Ok(Patched { outcome, after: found(discovery, id).await?, before })
}

// === impl Wishes ===

impl Wishes {
    fn patch(self) -> Patch {
        let texts = |texts: Vec<String>| texts.into_iter().map(Box::from).collect();
        Patch {
            weight: self.weight,
            version: self.version.map(Box::from),
            zone: self.zone.map(Box::from),
            tags: texts(self.tags),
            untag: texts(self.untags),
            meta: self.meta.into_iter().collect(),
            unmeta: texts(self.unmeta),
            path: self.health.map(Arc::from),
            interval: self.interval,
            timeout: self.timeout,
            forget_after: self.forget_after,
        }
    }
}
