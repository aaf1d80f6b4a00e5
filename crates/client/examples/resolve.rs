//! Finds the instances of a service and picks some, from memory.
//!
//! ```sh
//! cargo run -p roundsman --example resolve -- 127.0.0.1:5555
//! ```
#![allow(clippy::print_stdout, reason = "it is there to be watched")]

use std::error::Error;

use roundsman::{DEFAULT_SERVER, Discovery, Policy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let discovery = Discovery::connect(server).await?;
    run(&discovery).await?;
    discovery.close().await;
    Ok(())
}

pub(crate) async fn run(discovery: &Discovery) -> Result<(), Box<dyn Error>> {
    // The list is followed from here on; what comes after asks nobody.
    let products = discovery.resolver("product").policy(Policy::PeakEwma).await?;
    for instance in products.instances().iter() {
        println!("{} at {}, {}", instance.id, instance.address, instance.status);
    }
    for _ in 0..3 {
        let Some(pick) = products.pick() else {
            println!("nobody sells at the moment");
            break;
        };
        println!("this call would go to {}", pick.address);
        // Say how the call went: who fails is passed over.
        pick.succeeded();
    }
    Ok(())
}
