//! `roundsman deregister ID [--block 1h]`

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use roundsman::{
    InstanceId, Timestamp,
    protocol::{Dismissed, Who, time},
};
use serde::Serialize;

use crate::{
    args::{ClientArgs, Shape},
    commands::{connect, note},
    complete,
    exit::Failure,
    output::{Screen, moment},
};

#[derive(Args, Debug)]
pub(crate) struct DeregisterArgs {
    /// The instance's id, the first column of `roundsman list NAME`
    #[arg(value_parser = InstanceId::try_new, add = ArgValueCompleter::new(complete::ids))]
    id: InstanceId,
    /// Keep the id out for so long, such as 1h, whoever registers under it; 0s lets it in again
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    block: Option<Duration>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    deregistered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_by: Option<&'a Who>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_until: Option<Timestamp>,
}

pub(crate) async fn run(args: DeregisterArgs) -> Result<(), Failure> {
    let (id, discovery) = (&args.id, connect(&args.client).await?);
    let Dismissed { kept_by, blocked_until } = discovery.dismiss(id, args.block).await?;
    let mut screen = Screen::stdout();
    if let Some(data) = args.client.output().data() {
        let (id, kept_by) = (id.as_str(), kept_by.as_ref());
        return screen.data(data, &Answer { id, deregistered: true, kept_by, blocked_until });
    }
    match blocked_until {
        Some(until) => screen.line(&format!(
            "{id} is deregistered, and kept out until {}; `roundsman deregister {id} --block 0s` lets it in again",
            moment(until)
        ))?,
        None if args.block.is_some() => screen.line(&format!("{id} is deregistered, and may register again"))?,
        None => screen.line(&format!("{id} is deregistered"))?,
    }
    if let Some(keeper) = kept_by.filter(|_| blocked_until.is_none()) {
        note(&format!(
            "{} keeps it registered, and will register it again within seconds; once it is back, `roundsman drain {id}` \
             has it no longer handed out and `roundsman deregister {id} --block 1h` keeps it out",
            who(&keeper)
        ));
    }
    Ok(())
}

/// The program that keeps an instance registered, as far as it is known.
fn who(keeper: &Who) -> String {
    match (&keeper.service, &keeper.address) {
        (Some(service), Some(address)) => format!("{service} at {address}"),
        (None, Some(address)) => format!("a program at {address}"),
        (Some(service), None) => service.to_string(),
        (None, None) => "a program".to_owned(),
    }
}
