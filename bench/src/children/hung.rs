//! Very many instances in one process that hang: they accept connections and never answer.

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::{JoinSet, LocalSet},
};

use super::serve_parent;
use crate::{
    error::{Context, Result},
    rows::visits::address,
};

pub(super) async fn run(first: u32, count: u32, port: u16) -> Result<()> {
    LocalSet::new()
        .run_until(async {
            let mut listening = JoinSet::new();
            for number in first..first + count {
                let address = address(number, port);
                let listener = TcpListener::bind(address).await.context(format!("listening on {address}"))?;
                listening.spawn_local(accept(listener));
            }
            serve_parent("ready", |_| String::new()).await
        })
        .await
}

async fn accept(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn_local(say_nothing(stream));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Reads until the other side gives up, so that the file is closed then.
async fn say_nothing(mut stream: TcpStream) {
    let mut request = [0; 256];
    while let Ok(1..) = stream.read(&mut request).await {}
}
