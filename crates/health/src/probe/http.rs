//! The `http` check: our own HTTP/1.1 client, which keeps one connection per instance and nothing else between visits.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use roundsman_protocol::{Address, Host, check::Expect};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout_at,
};

use super::{BODY_LIMIT, Finding, Room, Ticket, VISITS_PER_CONNECTION, Visit, connect, identity, named};
use crate::observation::Class;

mod body;
mod head;

use body::End;
use head::{Body, Head};

/// Room for an answer as health endpoints give it; more is made where it is needed.
const FIRST_BUFFER: usize = 512;
/// No more than this is read in search of the text that tells whose answer it is, what frames the chunks included.
const IDENTITY_LIMIT: usize = 2 * BODY_LIMIT;

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

/// An answer that was read to its end, or as far as we care.
struct Answer {
    finding: Finding,
    /// The connection, when it can be used again.
    stream: Option<TcpStream>,
}

/// What came over a connection.
struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What became of a body.
struct Read {
    /// The connection can be used again.
    keeps: bool,
    /// It has the text that it was to have, if it was to have any.
    known: bool,
}

/// There is no such answer.
enum Broken {
    /// The connection ended before a single byte of it came.
    Unanswered(io::Error),
    /// It broke off, or is none.
    Midway(Finding),
}

/// What is asked, and how the answer shows that it is the instance's own.
#[derive(Debug)]
struct Question {
    request: Box<[u8]>,
    expect: Option<Arc<Expect>>,
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

    pub(crate) async fn closed(&mut self) {
        let Some(kept) = &self.kept else { return std::future::pending().await };
        loop {
            let ready = kept.stream.readable().await;
            match ready.and_then(|()| kept.stream.try_read(&mut [0])) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The end, an error, or something that nobody asked for: of no further use.
                _ => break,
            }
        }
        self.kept = None;
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

// === impl Question ===

impl Question {
    /// The header field that the answer is to have.
    fn field(&self) -> Option<(&str, &str)> {
        self.expect.as_deref().and_then(Expect::as_header)
    }

    /// Whether a body of which `bytes` is the beginning has the text that it is to have. A bad answer needs none.
    fn is_answered_by(&self, head: &Head, bytes: &[u8]) -> bool {
        match self.expect.as_deref() {
            Some(Expect::Body(text)) if head.passes() => {
                identity::in_body(text.as_bytes(), &body::content(head.body, bytes))
            }
            _ => true,
        }
    }

    fn stranger(&self) -> Finding {
        let stranger = || Finding::new(Class::Stranger, "another service answers here");
        self.expect.as_deref().map_or_else(stranger, Finding::stranger)
    }
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

impl From<Broken> for Finding {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Unanswered(error) => Self::io(&error),
            Broken::Midway(finding) => finding,
        }
    }
}

/// Asks, and reads the answer. Notes its status in `seen` as soon as that is known.
async fn exchange(stream: TcpStream, question: &Question, seen: &mut Option<u16>) -> Result<Answer, Broken> {
    let mut reader = Reader { stream, buffer: Vec::with_capacity(FIRST_BUFFER) };
    reader.stream.write_all(&question.request).await.map_err(Broken::Unanswered)?;
    let head = reader.head(question).await?;
    *seen = Some(head.code);
    if head.passes() && !head.known {
        return Ok(Answer { finding: question.stranger(), stream: None });
    }
    match reader.body(&head, question).await {
        Ok(Read { known: false, .. }) => Ok(Answer { finding: question.stranger(), stream: None }),
        Ok(read) => Ok(Answer { finding: Finding::code(head.code), stream: read.keeps.then_some(reader.stream) }),
        // A bad answer is a bad answer, however it ends.
        Err(_) if !head.passes() => Ok(Answer { finding: Finding::code(head.code), stream: None }),
        Err(finding) => Err(Broken::Midway(finding)),
    }
}

// === impl Reader ===

impl Reader {
    /// Reads up to the end of the final head; what is left in the buffer belongs to the body.
    async fn head(&mut self, question: &Question) -> Result<Head, Broken> {
        let mut answered = false;
        loop {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if !answered => return Err(Broken::Unanswered(io::ErrorKind::UnexpectedEof.into())),
                Ok(0) => return Err(Broken::Midway(Finding::new(Class::Reset, "connection closed amid the answer"))),
                Ok(_) => answered = true,
                Err(error) if answered => return Err(Broken::Midway(Finding::io(&error))),
                Err(error) => return Err(Broken::Unanswered(error)),
            }
            while let Some((head, length)) = head::parse(&self.buffer, question.field()).map_err(garbage)? {
                self.buffer.drain(..length);
                if !head.is_interim() {
                    return Ok(head);
                }
            }
        }
    }

    /// Reads the body to its end, if that is near; or until it shows whose it is.
    async fn body(&mut self, head: &Head, question: &Question) -> Result<Read, Finding> {
        loop {
            let known = question.is_answered_by(head, &self.buffer);
            match body::end(head.body, &self.buffer) {
                End::At(length) => return Ok(Read { keeps: head.keeps && length == self.buffer.len(), known }),
                End::Far if known || self.buffer.len() >= IDENTITY_LIMIT => return Ok(Read { keeps: false, known }),
                End::Bad(what) => return Err(Finding::new(Class::Garbage, what)),
                End::Far | End::Further => {}
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if head.body == Body::UntilClose => return Ok(Read { keeps: false, known }),
                Ok(0) => return Err(Finding::new(Class::Reset, "connection closed amid the answer")),
                Ok(_) => {}
                Err(error) => return Err(Finding::io(&error)),
            }
        }
    }
}

fn garbage(what: &'static str) -> Broken {
    Broken::Midway(Finding::new(Class::Garbage, what))
}
