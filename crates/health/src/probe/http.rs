//! The `http` check: our own HTTP/1.1 client, which keeps one connection per instance and nothing else between visits.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use roundsman_protocol::{Address, Host, check::Expect};
use tokio::{net::TcpStream, time::timeout_at};

use super::{Finding, Room, Ticket, VISITS_PER_CONNECTION, Visit, connect, named};
use crate::observation::Class;

mod body;
mod exchange;
mod head;

use exchange::{Answer, Broken, Question, exchange};

/// Asks an instance for its health, over a connection that it keeps where the instance lets it.
#[derive(Debug)]
pub(crate) struct HttpProbe {
    question: Box<Question>,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    stream: TcpStream,
    /// Visits that were made on it.
    visits: u8,
    _ticket: Ticket,
}

/// A visit on a new connection.
struct Asking<'a> {
    visit: &'a Visit<'a>,
    question: &'a Question,
    /// The status of the answer, as soon as it is known.
    seen: &'a mut Option<u16>,
}

// === impl HttpProbe ===

impl HttpProbe {
    pub(crate) fn new(address: &Address, path: &str, user_agent: &str, expect: Option<Arc<Expect>>) -> Self {
        let agent: String = user_agent.chars().filter(|c| !c.is_control()).collect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\r\n");
        let request = request.into_bytes().into_boxed_slice();
        Self { question: Box::new(Question { request, expect }), kept: None }
    }

    pub(crate) async fn visit(&mut self, visit: &Visit<'_>) -> Finding {
        let mut seen = None;
        match timeout_at(visit.deadline, self.ask(visit, &mut seen)).await {
            Ok(finding) => finding,
            Err(_) => late(seen, visit.timeout),
        }
    }

    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(kept) = &self.kept else { return Poll::Pending };
        loop {
            let ready = ready!(kept.stream.poll_read_ready(cx));
            match ready.and_then(|()| kept.stream.try_read(&mut [0])) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The end, an error, or something that nobody asked for: of no further use.
                _ => break,
            }
        }
        self.kept = None;
        Poll::Ready(())
    }

    pub(crate) fn let_go(&mut self) {
        self.kept = None;
    }

    async fn ask(&mut self, visit: &Visit<'_>, seen: &mut Option<u16>) -> Finding {
        let question = &*self.question;
        if let Some(Kept { stream, visits, _ticket: ticket }) = self.kept.take()
            && visits < VISITS_PER_CONNECTION
            && visit.room.is_some()
        {
            match exchange(stream, question, seen).await {
                Ok(Answer { finding, stream }) => {
                    self.kept = stream.map(|stream| Kept { stream, visits: visits + 1, _ticket: ticket });
                    return finding;
                }
                // It closed while we asked, as idle connections do. That says nothing; a new connection will.
                Err(Broken::Unanswered(_)) => {}
                Err(Broken::Midway(finding)) => return finding,
            }
        }
        // Boxed, because a new connection is the exception, and every visitor has room for the larger way.
        let answer = Box::pin(ask_anew(visit, question, seen)).await;
        match answer {
            Ok(Answer { finding, stream }) => {
                let ticket = stream.and_then(|stream| Some((stream, visit.room.and_then(Room::ticket)?)));
                self.kept = ticket.map(|(stream, ticket)| Kept { stream, visits: 1, _ticket: ticket });
                finding
            }
            Err(finding) => finding,
        }
    }
}

/// Asks on a new connection.
async fn ask_anew(visit: &Visit<'_>, question: &Question, seen: &mut Option<u16>) -> Result<Answer, Finding> {
    if let Host::Name(name) = visit.address.host() {
        return Box::pin(named::visit(visit, name, Asking { visit, question, seen })).await;
    }
    let stream = connect::open(visit.literal()?).await?;
    Ok(exchange(stream, question, seen).await?)
}

/// What to make of an answer that did not end in time, given its status where that was seen.
fn late(seen: Option<u16>, timeout: Duration) -> Finding {
    let Some(code) = seen else { return Finding::no_answer(timeout) };
    let finding = Finding::code(code);
    if finding.class != Some(Class::Passed) {
        return finding;
    }
    let timeout = roundsman_protocol::time::display(timeout);
    Finding::new(Class::Silence, format!("{code}, but the answer did not end in {timeout}"))
}

// === impl Asking ===

impl named::Attempt for Asking<'_> {
    type Done = Answer;

    async fn at(&mut self, addrs: &[SocketAddr], sure: bool) -> Result<Answer, Finding> {
        // The status of somebody who may be another one is no last word.
        let (mut unsure, seen) = (None, &mut *self.seen);
        let seen = if sure { seen } else { &mut unsure };
        let stream = connect::connect(self.visit, addrs).await?;
        let answer = exchange(stream, self.question, seen).await?;
        match answer.finding.class {
            Some(Class::Passed) => Ok(answer),
            _ if sure => Ok(answer),
            _ => Err(answer.finding),
        }
    }
}
