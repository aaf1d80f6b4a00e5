//! Very many instances in one process, each with an address of its own.

use std::rc::Rc;

use tokio::{
    net::TcpListener,
    task::{JoinSet, LocalSet},
};

use super::{health, serve_parent};
use crate::{
    error::{Context, Result},
    rows::visits::address,
};

pub(super) async fn run(first: u32, count: u32, port: u16) -> Result<()> {
    let asked = Rc::new(health::Asked::default());
    let local = LocalSet::new();
    local
        .run_until(async {
            let mut listening = JoinSet::new();
            for number in first..first + count {
                let address = address(number, port);
                let listener = TcpListener::bind(address).await.context(format!("listening on {address}"))?;
                listening.spawn_local(health::serve(listener, Rc::clone(&asked)));
            }
            serve_parent("ready", |_| asked.times.get().to_string()).await
        })
        .await
}
