//! One question and its answer, on a connection that is open.

use std::{io, sync::Arc};

use roundsman_protocol::check::Expect;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    body::{self, End},
    head::{self, Body, Head},
};
use crate::{
    observation::Class,
    probe::{BODY_LIMIT, Finding, identity},
};

/// Room for an answer as health endpoints give it; more is made where it is needed.
const FIRST_BUFFER: usize = 512;
/// No more than this is read in search of the text that tells whose answer it is, what frames the chunks included.
const IDENTITY_LIMIT: usize = 2 * BODY_LIMIT;

/// What is asked, and how the answer shows that it is the instance's own.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) request: Box<[u8]>,
    pub(super) expect: Option<Arc<Expect>>,
}

/// An answer that was read to its end, or as far as we care.
pub(super) struct Answer {
    pub(super) finding: Finding,
    /// The connection, when it can be used again.
    pub(super) stream: Option<TcpStream>,
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
pub(super) enum Broken {
    /// The connection ended before a single byte of it came.
    Unanswered(io::Error),
    /// It broke off, or is none.
    Midway(Finding),
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

/// Asks, and reads the answer. Notes its status in `seen` as soon as that is known.
pub(super) async fn exchange(stream: TcpStream, question: &Question, seen: &mut Option<u16>) -> Result<Answer, Broken> {
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

// === impl Broken ===

impl From<Broken> for Finding {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Unanswered(error) => Self::io(&error),
            Broken::Midway(finding) => finding,
        }
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
