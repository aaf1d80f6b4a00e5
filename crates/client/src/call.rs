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
    link::{Connection, Line, Link},
};

/// Longest that a time limit is taken for: a moment that is later may not be one.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Whoever waited for so long on a connection on which nothing was answered gives it up. Who was in more of a hurry only has
/// the server asked whether it is there: others can wait.
const SILENCE: Duration = Duration::from_secs(2);

/// What became of one try.
enum Try<T> {
    Done(Result<T, Error>),
    /// The connection is of no use any more; try the next one.
    Broken,
}

/// A call on its way.
struct Sent<'a> {
    connection: &'a Connection,
    at: Instant,
    /// How many answers the connection had brought by then.
    answers: u64,
    /// How long the caller waits, in all.
    timeout: Duration,
}

/// Sends a call, again on each new connection, until it is answered or `timeout` has passed.
///
/// Only for calls that may be repeated, which all of the protocol's are.
pub(crate) async fn call<T, F, R>(link: &watch::Receiver<Link>, timeout: Duration, send: F) -> Result<T, Error>
where
    F: Fn(Arc<Connection>, Context) -> R,
    R: Future<Output = Result<Result<T, DiscoveryError>, RpcError>>,
{
    call_in(Line::Work, link, timeout, send).await
}

/// The same for a call that waits for its turn in this line.
pub(crate) async fn call_in<T, F, R>(
    line: Line,
    link: &watch::Receiver<Link>,
    timeout: Duration,
    send: F,
) -> Result<T, Error>
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
        let sent = Sent::now(&connection, timeout);
        let answered = async {
            // It is never closed.
            let _turn = connection.line(line).acquire().await;
            send(Arc::clone(&connection), context).await
        };
        let Ok(answer) = timeout_at(deadline, answered).await else {
            return Err(sent.late());
        };
        match sent.judge(answer) {
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
    let sent = Sent::now(connection, timeout);
    let answered = async {
        let _turn = connection.line(Line::Work).acquire().await;
        send(connection.client.clone(), context).await
    };
    let Ok(answer) = timeout_at(deadline, answered).await else {
        return Err(sent.late());
    };
    match sent.judge(answer) {
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

// === impl Sent ===

impl<'a> Sent<'a> {
    fn now(connection: &'a Connection, timeout: Duration) -> Self {
        Self { connection, at: Instant::now(), answers: connection.answers(), timeout }
    }

    fn judge<T>(&self, answer: Result<Result<T, DiscoveryError>, RpcError>) -> Try<T> {
        let connection = self.connection;
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
            Err(RpcError::DeadlineExceeded) => Try::Done(Err(self.late())),
            // Too large a frame, or something that this server's version cannot express: only this call is concerned.
            Err(RpcError::Send(error)) => Try::Done(Err(unsent(&*error).into())),
            Err(RpcError::Server(error)) => {
                connection.heard();
                Try::Done(Err(refused(connection, error)))
            }
        }
    }

    /// The deadline passed. A server that answered nobody else meanwhile may be frozen.
    fn late(&self) -> Error {
        if self.connection.answers() == self.answers {
            if self.at.elapsed() >= SILENCE {
                self.connection.abandoned.cancel();
            } else {
                self.connection.doubted.notify_one();
            }
        }
        Error::Deadline { server: Arc::clone(&self.connection.server), after: self.timeout }
    }
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
