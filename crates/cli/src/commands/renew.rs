//! `roundsman renew ID`: "I am alive", for an instance with a ttl check whose program is a script.

use clap::Args;
use clap_complete::ArgValueCompleter;
use roundsman::InstanceId;
use serde::Serialize;

use crate::{
    args::{ClientArgs, Shape},
    commands::connect,
    complete,
    exit::Failure,
    output::Screen,
};

#[derive(Args, Debug)]
pub(crate) struct RenewArgs {
    /// The instance's id, the first column of `roundsman list NAME`
    #[arg(value_parser = InstanceId::try_new, add = ArgValueCompleter::new(complete::ids))]
    id: InstanceId,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    renewed: bool,
}

pub(crate) async fn run(args: RenewArgs) -> Result<(), Failure> {
    connect(&args.client).await?.renew(&args.id).await?;
    let mut screen = Screen::stdout();
    match args.client.output().data() {
        Some(data) => screen.data(data, &Answer { id: args.id.as_str(), renewed: true }),
        None => screen.line(&format!("{} is renewed", args.id)),
    }
}
