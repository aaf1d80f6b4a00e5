//! `roundsman deregister ID`

use serde::Serialize;

use crate::{
    args::{DeregisterArgs, Output},
    commands::connect,
    exit::Failure,
    output::Screen,
};

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    deregistered: bool,
}

pub(crate) async fn run(args: DeregisterArgs) -> Result<(), Failure> {
    connect(&args.client).await?.deregister(&args.id).await?;
    let mut screen = Screen::stdout();
    match args.client.output {
        Output::Table => screen.line(&format!("{} is deregistered", args.id)),
        Output::Json => screen.json(&Answer { id: args.id.as_str(), deregistered: true }),
    }
}
