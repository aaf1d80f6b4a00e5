//! One call: over the connection there is, or the next one, until it is answered or its deadline passes.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{DiscoveryClient, DiscoveryError, Invalid};
use tarpc::{
    ServerError,
    client::RpcError,
    context::{self, Context},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    error::{Attempt, Error},
    link::{Connection, Link},
};

/// What became of one try.
enum Try<T> {
    Done(Result<T, Error>),
    /// The connection is of no use any more; try the next one.
    Broken,
}

/// Sends a call, again on each new connection, until it is answered or `timeout` has passed.
///
/// Only for calls that may be repeated, which all of the protocol's are.
pub(crate) async fn call<T, F, R>(link: &watch::Receiver<Link>, timeout: Duration, send: F) -> Result<T, Error>
where
    F: Fn(Arc<Connection>, Context) -> R,
    R: Future<Output = Result<Result<T, DiscoveryError>, RpcError>>,
{
    let deadline = Instant::now() + timeout;
    let mut context = context::current();
    context.deadline = deadline.into_std();
    let mut broken = None;
    loop {
        let connection = connection(link, broken, deadline).await?;
        let answers = connection.answers();
        let sent = send(Arc::clone(&connection), context);
        let Ok(answer) = timeout_at(deadline, sent).await else {
            return Err(late(&connection, answers, timeout));
        };
        match judge(&connection, answers, timeout, answer) {
            Try::Done(result) => return result,
            Try::Broken => broken = Some(connection.generation),
        }
    }
}

/// Sends a call on this one connection, once.
///
/// # Errors
/// Those of every call; [`Error::Unreachable`] when the connection is gone.
pub(crate) async fn once<T, F, R>(connection: &Connection, timeout: Duration, send: F) -> Result<T, Error>
where
    F: FnOnce(DiscoveryClient, Context) -> R,
    R: Future<Output = Result<Result<T, DiscoveryError>, RpcError>>,
{
    let deadline = Instant::now() + timeout;
    let mut context = context::current();
    context.deadline = deadline.into_std();
    let answers = connection.answers();
    let Ok(answer) = timeout_at(deadline, send(connection.client.clone(), context)).await else {
        return Err(late(connection, answers, timeout));
    };
    match judge(connection, answers, timeout, answer) {
        Try::Done(result) => result,
        Try::Broken => {
            let (server, reason) = (Arc::clone(&connection.server), "the connection broke".to_owned());
            Err(Error::away([Attempt { server, reason, refused: false }].into_iter().collect()))
        }
    }
}

/// The connection, or, when that one is broken, the next.
async fn connection(
    link: &watch::Receiver<Link>,
    broken: Option<u64>,
    deadline: Instant,
) -> Result<Arc<Connection>, Error> {
    let usable = |link: &Link| match link {
        Link::Up(connection) => Some(connection.generation) != broken,
        Link::Away { .. } => false,
        Link::Closed => true,
    };
    if let Link::Up(connection) = &*link.borrow()
        && Some(connection.generation) != broken
    {
        return Ok(Arc::clone(connection));
    }
    let mut waiting = link.clone();
    // An if-let would hold the channel's lock across the other branch.
    let found = match timeout_at(deadline, waiting.wait_for(usable)).await {
        Ok(Ok(link)) => Some(link.clone()),
        Ok(Err(_)) => Some(Link::Closed),
        Err(_) => None,
    };
    match found.unwrap_or_else(|| link.borrow().clone()) {
        Link::Up(connection) => Ok(connection),
        Link::Away { tried, .. } => Err(Error::away(tried)),
        Link::Closed => Err(Error::Closed),
    }
}

fn judge<T>(
    connection: &Connection,
    answers: u64,
    timeout: Duration,
    answer: Result<Result<T, DiscoveryError>, RpcError>,
) -> Try<T> {
    match answer {
        Ok(Err(DiscoveryError::ShuttingDown)) => {
            connection.abandoned.cancel();
            Try::Broken
        }
        Ok(result) => {
            connection.heard();
            Try::Done(result.map_err(Error::from))
        }
        Err(RpcError::Shutdown | RpcError::Channel(_)) => Try::Broken,
        Err(RpcError::DeadlineExceeded) => Try::Done(Err(late(connection, answers, timeout))),
        // Too large a frame, or something that this server's version cannot express: only this call is concerned.
        Err(RpcError::Send(error)) => Try::Done(Err(unsent(&*error).into())),
        Err(RpcError::Server(error)) => {
            connection.heard();
            Try::Done(Err(refused(connection, error)))
        }
    }
}

/// The deadline passed. A server that answered nobody else meanwhile is given up: it may be frozen.
fn late(connection: &Connection, answers: u64, after: Duration) -> Error {
    if connection.answers() == answers {
        connection.abandoned.cancel();
    }
    Error::Deadline { server: Arc::clone(&connection.server), after }
}

/// Why a call could not be sent.
fn unsent(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Invalid {
    // The transport puts an error of its own around ours.
    let mut inner = error;
    while let Some(wrapped) = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        inner = wrapped;
    }
    let unnamed = || Invalid::new("request", error.source().map_or_else(|| error.to_string(), ToString::to_string));
    inner.downcast_ref::<Invalid>().cloned().unwrap_or_else(unnamed)
}

/// An answer outside the protocol's own errors: the server could not read the request, or failed over it.
fn refused(connection: &Connection, error: ServerError) -> Error {
    if error.kind == std::io::ErrorKind::InvalidInput {
        return Invalid::new("request", error.detail).into();
    }
    Error::Failed { server: Arc::clone(&connection.server), detail: error.to_string() }
}
