//! `roundsman get NAME`

use crate::{
    args::{GetArgs, Output},
    commands::connect,
    exit::Failure,
    output::Screen,
};

pub(crate) async fn run(args: GetArgs) -> Result<(), Failure> {
    let discovery = connect(&args.client).await?;
    let instance = discovery.get(args.name).await?;
    let mut screen = Screen::stdout();
    match args.client.output {
        Output::Table => screen.line(&instance.address.to_string()),
        Output::Json => screen.json(&instance),
    }
}
