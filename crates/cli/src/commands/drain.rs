//! `roundsman drain ID [--undo]`

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
pub(crate) struct DrainArgs {
    /// The instance's id, the first column of `roundsman list NAME`
    #[arg(value_parser = InstanceId::try_new, add = ArgValueCompleter::new(complete::ids))]
    id: InstanceId,
    /// Hand it out again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    draining: bool,
}

pub(crate) async fn run(args: DrainArgs) -> Result<(), Failure> {
    connect(&args.client).await?.drain(&args.id, !args.undo).await?;
    let mut screen = Screen::stdout();
    if let Some(data) = args.client.output().data() {
        return screen.data(data, &Answer { id: args.id.as_str(), draining: !args.undo });
    }
    screen.line(&if args.undo {
        format!("{} may be handed out again", args.id)
    } else {
        format!("{} is no longer handed out; --undo reverses this", args.id)
    })
}
