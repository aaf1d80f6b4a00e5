//! What a visit found out, and how to say it.

use std::{borrow::Cow, fmt, io, sync::Arc, time::Duration};

use roundsman_protocol::{Check, check::Expect};

use crate::{observation::Class, target::NoAddress};

/// What a visit found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// `None`: the visit could not be made, for reasons of our own.
    pub(crate) class: Option<Class>,
    pub(crate) detail: Detail,
}

/// A finding in words, written out only when somebody wants to read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Detail {
    Connected,
    Code(u16),
    NoAnswer(Duration),
    Text(Cow<'static, str>),
}

// === impl Finding ===

impl Finding {
    pub(crate) fn new(class: Class, text: impl Into<Cow<'static, str>>) -> Self {
        Self { class: Some(class), detail: Detail::Text(text.into()) }
    }

    /// An answer with this HTTP status.
    pub(crate) fn code(code: u16) -> Self {
        let class = if (200..300).contains(&code) { Class::Passed } else { Class::Status };
        Self { class: Some(class), detail: Detail::Code(code) }
    }

    /// Nothing came in time.
    pub(crate) fn no_answer(timeout: Duration) -> Self {
        Self { class: Some(Class::Silence), detail: Detail::NoAnswer(timeout) }
    }

    /// A 2xx, but not from the instance: it lacks what the check expects.
    pub(crate) fn stranger(expect: &Expect) -> Self {
        let missing = match (expect, expect.as_header()) {
            (Expect::Header(_), Some((name, value))) => format!("no header {name}: {value}"),
            (Expect::Header(text), None) => format!("no header {text}"),
            (Expect::Body(text), _) => format!("no {text:?} in the body"),
        };
        Self::new(Class::Stranger, format!("another service answers here: {missing}"))
    }

    /// What the operating system said.
    pub(crate) fn io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        if out_of_resources(error) {
            let text = format!("could not be visited, because this server is out of resources: {error}");
            return Self { class: None, detail: Detail::Text(text.into()) };
        }
        match error.kind() {
            Kind::ConnectionRefused => Self::new(Class::Refused, "connection refused"),
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => {
                Self::new(Class::Reset, "connection reset")
            }
            Kind::UnexpectedEof => Self::new(Class::Reset, "connection closed without an answer"),
            // No route, no permission by a packet filter, a timeout of the kernel's own: the way there is not well.
            _ => Self::new(Class::Silence, describe(error)),
        }
    }
}

impl From<NoAddress> for Finding {
    fn from(error: NoAddress) -> Self {
        match error {
            NoAddress::Forbidden(why) => Self::new(Class::Forbidden, why),
            NoAddress::Unresolved(why) => Self::new(Class::Unresolved, why),
            NoAddress::Busy(why) => Self { class: None, detail: Detail::Text(why.into()) },
        }
    }
}

/// What the operating system said, without its number.
fn describe(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Whether it is us who have no file descriptor, no memory or no local port left, which says nothing about the
/// instance.
fn out_of_resources(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const EADDRNOTAVAIL: i32 = 99;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | EADDRNOTAVAIL | ENOBUFS))
}

// === impl Detail ===

impl Detail {
    /// In words, after what was asked: `GET /health: 200 in 3 ms`.
    pub(crate) fn reason(&self, check: &Check, took: Duration) -> Arc<str> {
        let took = Took(took);
        let what = fmt::from_fn(|f| match check.path() {
            Some(path) => write!(f, "GET {path}"),
            None => write!(f, "{}", check.kind),
        });
        let reason = match self {
            Self::Connected => format!("{what}: connected in {took}"),
            Self::Code(code) => format!("{what}: {code} in {took}"),
            Self::NoAnswer(timeout) => {
                format!("{what}: no answer in {}", roundsman_protocol::time::display(*timeout))
            }
            Self::Text(text) => format!("{what}: {text}"),
        };
        Arc::from(reason)
    }
}

/// A time in milliseconds, as people read it.
struct Took(Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            0 => f.write_str("<1 ms"),
            millis => write!(f, "{millis} ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_like_sentences() {
        let http = Check::default();
        let took = Duration::from_millis(12);
        let reason = |detail: Detail, check: &Check| detail.reason(check, took).to_string();
        assert_eq!(reason(Detail::Code(503), &http), "GET /health: 503 in 12 ms");
        assert_eq!(reason(Detail::NoAnswer(Duration::from_secs(1)), &http), "GET /health: no answer in 1s");
        let refused = Finding::io(&io::ErrorKind::ConnectionRefused.into()).detail;
        assert_eq!(reason(refused, &Check::tcp()), "tcp: connection refused");
        assert_eq!(&*Detail::Connected.reason(&Check::tcp(), Duration::ZERO), "tcp: connected in <1 ms");
    }

    #[test]
    fn errors_of_the_system_are_told_apart() {
        let class = |number| Finding::io(&io::Error::from_raw_os_error(number)).class;
        assert_eq!(class(111), Some(Class::Refused), "ECONNREFUSED");
        assert_eq!(class(104), Some(Class::Reset), "ECONNRESET");
        assert_eq!(class(32), Some(Class::Reset), "EPIPE");
        assert_eq!(class(113), Some(Class::Silence), "EHOSTUNREACH");
        assert_eq!(class(101), Some(Class::Silence), "ENETUNREACH");
        assert_eq!(class(1), Some(Class::Silence), "EPERM: a packet filter");
        assert_eq!(class(13), Some(Class::Silence), "EACCES: a packet filter");
        assert_eq!(class(24), None, "EMFILE: our own fault");
        assert_eq!(class(99), None, "EADDRNOTAVAIL: no free local port");
        let unreachable = Finding::io(&io::Error::from_raw_os_error(113)).detail;
        assert_eq!(unreachable, Detail::Text("no route to host".into()));
    }
}
