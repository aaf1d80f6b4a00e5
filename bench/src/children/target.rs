//! One instance, to be killed, or frozen.

use std::{net::SocketAddr, rc::Rc};

use roundsman::{Discovery, NewInstance};
use tokio::{net::TcpListener, task::LocalSet};

use super::{health, serve_parent};
use crate::{
    error::{Context, Result},
    rows::kills::SERVICE,
};

pub(super) async fn run(id: &str, server: Option<SocketAddr>) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    let address = listener.local_addr().context("listening")?;
    let local = LocalSet::new();
    let asked = Rc::new(health::Asked::default());
    local.spawn_local(health::serve(listener, Rc::clone(&asked)));
    local
        .run_until(async {
            // Held to the end: it keeps the instance registered.
            let _registration = match server {
                Some(server) => Some(register(id, address, server).await?),
                None => None,
            };
            // Asked for the highest number that it was asked for.
            serve_parent(&address.to_string(), |_| asked.number.get().to_string()).await
        })
        .await
}

async fn register(id: &str, address: SocketAddr, server: SocketAddr) -> Result<roundsman::Registration> {
    let discovery = Discovery::connect(server.to_string()).await.context("connecting to the server")?;
    let instance = NewInstance::new(SERVICE, address).and_then(|instance| instance.id(id)).context("an instance")?;
    discovery.register(instance).await.context("registering")
}
