//! The binary `product`.

use std::{convert::Infallible, process::ExitCode, sync::Arc};

use roundsman::service::{App, Start};
use roundsman_product::{routes::routes, stock::Stock};

/// The flags of its own.
#[derive(clap::Args)]
struct Flags {
    /// How many there are of each product at the start [default: 10 apples and 7 bananas]
    #[arg(long, value_name = "N")]
    stock: Option<u32>,
}

#[tokio::main]
async fn main() -> ExitCode {
    App::new("product", 7070)
        .about("Example service: product details and stock")
        .version(env!("CARGO_PKG_VERSION"))
        .flags::<Flags>()
        .run(async |start: Start<Flags>| {
            let stock = start.flags.stock.map_or_else(Stock::initial, Stock::of_each);
            Ok::<_, Infallible>(routes(Arc::new(stock)))
        })
        .await
}
