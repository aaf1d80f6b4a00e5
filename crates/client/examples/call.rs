//! Calls a service over HTTP by its name.
//!
//! ```sh
//! cargo run -p roundsman --example call -- 127.0.0.1:5555
//! ```
#![allow(clippy::print_stdout, reason = "it is there to be watched")]

use std::{error::Error, time::Duration};

use roundsman::{DEFAULT_SERVER, Discovery};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let discovery = Discovery::connect(server).await?;
    run(&discovery).await?;
    discovery.close().await;
    Ok(())
}

pub(crate) async fn run(discovery: &Discovery) -> Result<(), Box<dyn Error>> {
    let products = discovery.http("product").timeout(Duration::from_secs(2));
    match products.get("/product/aaa").send().await {
        Ok(answer) => {
            println!("{} from {} on try {}", answer.status(), answer.instance().id, answer.tries());
            println!("{}", answer.text());
        }
        Err(error) if error.is_not_found() => println!("nobody sells at the moment: {error}"),
        Err(error) if error.maybe_sent() => println!("somebody may have received it: {error}"),
        Err(error) => println!("nothing has happened: {error}"),
    }
    Ok(())
}
