//! `roundsman drain ID [--undo]`

use serde::Serialize;

use crate::{
    args::{DrainArgs, Output},
    commands::connect,
    exit::Failure,
    output::Screen,
};

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    draining: bool,
}

pub(crate) async fn run(args: DrainArgs) -> Result<(), Failure> {
    connect(&args.client).await?.drain(&args.id, !args.undo).await?;
    let mut screen = Screen::stdout();
    match args.client.output {
        Output::Table if args.undo => screen.line(&format!("{} may be handed out again", args.id)),
        Output::Table => screen.line(&format!("{} is no longer handed out; --undo reverses this", args.id)),
        Output::Json => screen.json(&Answer { id: args.id.as_str(), draining: !args.undo }),
    }
}
