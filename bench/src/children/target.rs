//! One instance, to be called, killed, or frozen.

use std::{net::SocketAddr, rc::Rc};

use roundsman::{Discovery, NewInstance};
use tokio::{net::TcpListener, task::LocalSet};

use super::{health, serve_parent};
use crate::{
    args::Manner,
    error::{Context, Result},
    rows::kills::SERVICE,
};

pub(super) async fn run(id: &str, server: Option<SocketAddr>, manner: &Manner) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    let address = listener.local_addr().context("listening")?;
    let local = LocalSet::new();
    let asked = Rc::new(health::Asked { manner: manner.clone(), ..health::Asked::default() });
    local.spawn_local(health::serve(listener, Rc::clone(&asked)));
    local
        .run_until(async {
            // Held to the end: it keeps the instance registered.
            let _registration = match server {
                Some(server) => Some(register(id, address, server, manner).await?),
                None => None,
            };
            // Asked for the number of calls, or for the highest number that it was asked for.
            let answer = |question: &str| if question == "calls" { asked.calls.get() } else { asked.number.get() };
            serve_parent(&address.to_string(), |question| answer(question).to_string()).await
        })
        .await
}

async fn register(
    id: &str,
    address: SocketAddr,
    server: SocketAddr,
    manner: &Manner,
) -> Result<roundsman::Registration> {
    let discovery = Discovery::connect(server.to_string()).await.context("connecting to the server")?;
    let mut instance =
        NewInstance::new(SERVICE, address).and_then(|instance| instance.id(id)).context("an instance")?;
    if let Some(zone) = &manner.zone {
        instance = instance.zone(zone.as_str());
    }
    if let Some(weight) = manner.weight {
        instance = instance.weight(weight);
    }
    discovery.register(instance).await.context("registering")
}
