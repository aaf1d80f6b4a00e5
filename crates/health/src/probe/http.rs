//! The `http` check: our own HTTP/1.1 client, which keeps one connection per instance and nothing else between visits.

use std::{io, time::Duration};

use roundsman_protocol::Address;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout_at,
};

use super::{Finding, Room, Ticket, VISITS_PER_CONNECTION, Visit, connect::connect};
use crate::observation::Class;

mod body;
mod head;

use body::End;
use head::Head;

/// Room for an answer as health endpoints give it; more is made where it is needed.
const FIRST_BUFFER: usize = 512;

/// Asks an instance for its health, over a connection that it keeps where the instance lets it.
#[derive(Debug)]
pub(crate) struct HttpProbe {
    request: Box<[u8]>,
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
    code: u16,
    /// The connection, when it can be used again.
    stream: Option<TcpStream>,
}

/// There is no such answer.
enum Broken {
    /// The connection ended before a single byte of it came.
    Unanswered(io::Error),
    /// It broke off, or is none.
    Midway(Finding),
}

// === impl HttpProbe ===

impl HttpProbe {
    pub(crate) fn new(address: &Address, path: &str, user_agent: &str) -> Self {
        let agent: String = user_agent.chars().filter(|c| !c.is_control()).collect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\r\n");
        Self { request: request.into_bytes().into_boxed_slice(), kept: None }
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
        if let Some(Kept { stream, visits, _ticket: ticket }) = self.kept.take()
            && visits < VISITS_PER_CONNECTION
            && visit.room.is_some()
        {
            match exchange(stream, &self.request, seen).await {
                Ok(Answer { code, stream }) => {
                    self.kept = stream.map(|stream| Kept { stream, visits: visits + 1, _ticket: ticket });
                    return Finding::code(code);
                }
                // It closed while we asked, as idle connections do. That says nothing; a new connection will.
                Err(Broken::Unanswered(_)) => {}
                Err(Broken::Midway(finding)) => return finding,
            }
        }
        let stream = match connect(visit).await {
            Ok(stream) => stream,
            Err(finding) => return finding,
        };
        match exchange(stream, &self.request, seen).await {
            Ok(Answer { code, stream }) => {
                let ticket = stream.and_then(|stream| Some((stream, visit.room.and_then(Room::ticket)?)));
                self.kept = ticket.map(|(stream, ticket)| Kept { stream, visits: 1, _ticket: ticket });
                Finding::code(code)
            }
            Err(Broken::Unanswered(error)) => Finding::io(&error),
            Err(Broken::Midway(finding)) => finding,
        }
    }
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

/// Asks, and reads the answer. Notes its status in `seen` as soon as that is known.
async fn exchange(mut stream: TcpStream, request: &[u8], seen: &mut Option<u16>) -> Result<Answer, Broken> {
    stream.write_all(request).await.map_err(Broken::Unanswered)?;
    let mut buffer = Vec::with_capacity(FIRST_BUFFER);
    let head = read_head(&mut stream, &mut buffer).await?;
    let code = head.code;
    *seen = Some(code);
    let keeps = read_body(&mut stream, &mut buffer, &head).await;
    // A bad answer is a bad answer, however it ends.
    match keeps {
        Ok(keeps) => Ok(Answer { code, stream: keeps.then_some(stream) }),
        Err(_) if !(200..300).contains(&code) => Ok(Answer { code, stream: None }),
        Err(finding) => Err(Broken::Midway(finding)),
    }
}

/// Reads up to the end of the final head; what is left in `buffer` belongs to the body.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Head, Broken> {
    let mut answered = false;
    loop {
        match stream.read_buf(buffer).await {
            Ok(0) if !answered => return Err(Broken::Unanswered(io::ErrorKind::UnexpectedEof.into())),
            Ok(0) => return Err(Broken::Midway(Finding::new(Class::Reset, "connection closed amid the answer"))),
            Ok(_) => answered = true,
            Err(error) if answered => return Err(Broken::Midway(Finding::io(&error))),
            Err(error) => return Err(Broken::Unanswered(error)),
        }
        while let Some((head, length)) = head::parse(buffer).map_err(|what| garbage(what.into()))? {
            buffer.drain(..length);
            if !head.is_interim() {
                return Ok(head);
            }
        }
    }
}

/// Reads the body to its end, if that is near. Says whether the connection can be used again.
async fn read_body(stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &Head) -> Result<bool, Finding> {
    loop {
        match body::end(head.body, buffer) {
            End::At(length) => return Ok(head.keeps && length == buffer.len()),
            End::Far => return Ok(false),
            End::Bad(what) => return Err(Finding::new(Class::Garbage, what)),
            End::Further => {}
        }
        match stream.read_buf(buffer).await {
            Ok(0) => return Err(Finding::new(Class::Reset, "connection closed amid the answer")),
            Ok(_) => {}
            Err(error) => return Err(Finding::io(&error)),
        }
    }
}

fn garbage(what: std::borrow::Cow<'static, str>) -> Broken {
    Broken::Midway(Finding::new(Class::Garbage, what))
}
