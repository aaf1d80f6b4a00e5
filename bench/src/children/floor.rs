//! The floor: what a framed lookup costs when nothing but the lookup is done, and a plain echo.
//!
//! It reads the very frames that the server gets and answers with as many bytes. No ids, no deadlines, no
//! decoding; frames are cut by hand and answers written in batches.

use std::{collections::HashMap, rc::Rc};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinSet, LocalSet},
};

use super::serve_parent;
use crate::{
    error::{Context, Failure, Result},
    population,
};

/// What is answered, by service.
type Table = HashMap<Box<[u8]>, Bytes>;

pub(super) async fn run(services: u32, answer: usize) -> Result<()> {
    let table = Rc::new(table(services, answer)?);
    let (lookups, lookup_address) = listen().await?;
    let (echoes, echo_address) = listen().await?;
    let local = LocalSet::new();
    local.spawn_local(accept(lookups, move |stream| look_up(stream, Rc::clone(&table))));
    local.spawn_local(accept(echoes, echo));
    local.run_until(serve_parent(&format!("{lookup_address} {echo_address}"), |_| String::new())).await
}

fn table(services: u32, answer: usize) -> Result<Table> {
    let length = u32::try_from(answer).context("an answer's length")?;
    (0..services)
        .map(|number| {
            let name = population::service(number)?;
            // Each answer in memory of its own, as a server would have it.
            let bytes = [&length.to_be_bytes()[..], &vec![b'x'; answer]].concat();
            Ok((Box::from(name.as_str().as_bytes()), Bytes::from(bytes)))
        })
        .collect()
}

async fn listen() -> Result<(TcpListener, std::net::SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    let address = listener.local_addr().context("listening")?;
    Ok((listener, address))
}

async fn accept<R: Future<Output = Result<()>> + 'static>(listener: TcpListener, serve: impl Fn(TcpStream) -> R) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn_local(serve(stream));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn look_up(mut stream: TcpStream, table: Rc<Table>) -> Result<()> {
    stream.set_nodelay(true).context("setting nodelay")?;
    let (mut requests, mut answers) = (BytesMut::with_capacity(16_384), BytesMut::with_capacity(65_536));
    while stream.read_buf(&mut requests).await.context("reading")? > 0 {
        while let Some(request) = take_frame(&mut requests) {
            // The name is the last field of the frame.
            let name = request.len().checked_sub(population::NAME_LEN).and_then(|at| request.get(at..));
            let answer = name.and_then(|name| table.get(name));
            let answer = answer.ok_or_else(|| Failure::new("looking up", "no such service"))?;
            answers.extend_from_slice(answer);
        }
        stream.write_all(&answers).await.context("writing")?;
        answers.clear();
    }
    Ok(())
}

fn take_frame(buffer: &mut BytesMut) -> Option<BytesMut> {
    let (head, _) = buffer.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*head)).ok()?;
    if buffer.len() < 4 + length {
        return None;
    }
    buffer.advance(4);
    Some(buffer.split_to(length))
}

async fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true).context("setting nodelay")?;
    let mut bytes = BytesMut::with_capacity(4_096);
    while stream.read_buf(&mut bytes).await.context("reading")? > 0 {
        stream.write_all(&bytes).await.context("writing")?;
        bytes.clear();
    }
    Ok(())
}
