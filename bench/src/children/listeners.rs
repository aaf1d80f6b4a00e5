//! Very many instances in one process, each with an address of its own.

use std::{cell::Cell, rc::Rc};

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
    let answers = Rc::new(Cell::new(0));
    let local = LocalSet::new();
    local
        .run_until(async {
            let mut listening = JoinSet::new();
            for number in first..first + count {
                let address = address(number, port);
                let listener = TcpListener::bind(address).await.context(format!("listening on {address}"))?;
                listening.spawn_local(health::serve(listener, Rc::clone(&answers)));
            }
            serve_parent("ready", || answers.get().to_string()).await
        })
        .await
}
