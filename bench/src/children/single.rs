//! One instance in a process of its own, which somebody else registers.

use std::{net::SocketAddr, rc::Rc};

use tokio::{net::TcpListener, task::LocalSet};

use super::{health, serve_parent};
use crate::error::{Context, Result};

/// Asked `503` it answers visits with that from then on, asked anything else it is well again.
pub(super) async fn run(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await.context(format!("listening on {address}"))?;
    let asked = Rc::new(health::Asked::default());
    let local = LocalSet::new();
    local.spawn_local(health::serve(listener, Rc::clone(&asked)));
    let obey = |question: &str| {
        asked.failing.set(question == "503");
        question.to_owned()
    };
    local.run_until(serve_parent("ready", obey)).await
}
