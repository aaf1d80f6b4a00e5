//! How an instance is visited.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};

use crate::{error::Invalid, limits, name::quoted, time};

/// How the server finds out whether an instance is alive.
///
/// One flat struct instead of an enum with fields: in JSON it reads as `{"kind":"http","path":"/health"}`,
/// and postcard, which knows no optional fields, carries it as well. [`Check::validate`] refuses
/// fields that do not belong to the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Check {
    /// What kind of visit.
    pub kind: CheckKind,
    /// The path to ask for (`http` and `https`), by default [`Check::DEFAULT_PATH`].
    pub path: Option<Arc<str>>,
    /// Time between visits; the server's `--interval` when absent.
    #[serde(with = "time::duration::option")]
    pub interval: Option<Duration>,
    /// Time that a visit may take; the server's `--timeout` when absent.
    #[serde(with = "time::duration::option")]
    pub timeout: Option<Duration>,
    /// Longest silence of a `ttl` instance.
    #[serde(with = "time::duration::option")]
    pub ttl: Option<Duration>,
    /// What a 2xx must carry besides (`http` and `https`), so that another program that took over the address does not
    /// pass for this instance.
    pub expect: Option<Arc<Expect>>,
}

/// What tells an instance's own answer from that of another program at its address. Append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// A header field, written `name: value`: the name in any case, the value exactly, alone or as one of several
    /// that are separated by commas.
    Header(Box<str>),
    /// A text that stands somewhere in the first 4 KiB of the body.
    Body(Box<str>),
}

/// The kinds of check. Append only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// `GET path`, answered with a 2xx.
    #[default]
    Http,
    /// The same over TLS.
    Https,
    /// A TCP connection is accepted.
    Tcp,
    /// The instance calls `renew` within its ttl.
    Ttl,
    /// Never visited, always passing.
    None,
}

// === impl Check ===

impl Check {
    /// The path that is visited when none is named.
    pub const DEFAULT_PATH: &str = "/health";

    /// An HTTP check on `path`.
    #[must_use]
    pub fn http(path: &str) -> Self {
        Self { path: Some(Arc::from(path)), ..Self::default() }
    }

    /// A check over TLS on `path`.
    #[must_use]
    pub fn https(path: &str) -> Self {
        Self { kind: CheckKind::Https, ..Self::http(path) }
    }

    /// A check that connects and no more.
    #[must_use]
    pub fn tcp() -> Self {
        Self { kind: CheckKind::Tcp, ..Self::default() }
    }

    /// A check in which the instance calls in at least once per `ttl`.
    #[must_use]
    pub fn ttl(ttl: Duration) -> Self {
        Self { kind: CheckKind::Ttl, ttl: Some(ttl), ..Self::default() }
    }

    /// No check: always passing.
    #[must_use]
    pub fn none() -> Self {
        Self { kind: CheckKind::None, ..Self::default() }
    }

    /// The path, when the check has one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self.kind {
            CheckKind::Http | CheckKind::Https => Some(self.path.as_deref().unwrap_or(Self::DEFAULT_PATH)),
            CheckKind::Tcp | CheckKind::Ttl | CheckKind::None => None,
        }
    }

    /// Checks every field against its rule and against the kind.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        let visited = matches!(self.kind, CheckKind::Http | CheckKind::Https | CheckKind::Tcp);
        if let Some(path) = self.path.as_deref() {
            if self.path().is_none() {
                return Err(self.misplaced("check.path", "http and https"));
            }
            validate_path(path)?;
        }
        for (field, value, range) in
            [("check.interval", self.interval, limits::INTERVAL), ("check.timeout", self.timeout, limits::TIMEOUT)]
        {
            let Some(value) = value else { continue };
            if !visited {
                return Err(self.misplaced(field, "http, https and tcp"));
            }
            within(field, value, &range)?;
        }
        if let Some(expect) = &self.expect {
            if self.path().is_none() {
                return Err(self.misplaced("check.expect", "http and https"));
            }
            expect.validate()?;
        }
        if let (Some(interval), Some(timeout)) = (self.interval, self.timeout) {
            fits(timeout, interval)?;
        }
        match (self.kind, self.ttl) {
            (CheckKind::Ttl, Some(ttl)) => within("check.ttl", ttl, &limits::TTL),
            (CheckKind::Ttl, None) => Err(Invalid::new("check.ttl", "a ttl check needs a ttl, such as 30s")),
            (_, Some(_)) => Err(self.misplaced("check.ttl", "ttl")),
            (_, None) => Ok(()),
        }
    }

    /// What only checks of other kinds have.
    fn misplaced(&self, field: &str, kinds: &str) -> Invalid {
        let kind = self.kind;
        let rule = format!("is for checks of kind {kinds}, and this one is `{kind}`; leave it out, or change the kind");
        Invalid::new(field, rule)
    }

    /// Fills in what the registration left open, so that everyone sees how the instance is visited. A default never
    /// makes a visit longer than the interval; a timeout that the instance named itself must fit.
    ///
    /// # Errors
    /// When the timeout that it names is longer than the interval that it gets.
    pub fn or_defaults(mut self, interval: Duration, timeout: Duration) -> Result<Self, Invalid> {
        if matches!(self.kind, CheckKind::Http | CheckKind::Https | CheckKind::Tcp) {
            let interval = *self.interval.get_or_insert(interval);
            fits(*self.timeout.get_or_insert(timeout.min(interval)), interval)?;
        }
        if self.path.is_none() {
            self.path = self.path().map(Arc::from);
        }
        Ok(self)
    }
}

/// A visit that may last longer than the interval would still be under way when the next one is due.
fn fits(timeout: Duration, interval: Duration) -> Result<(), Invalid> {
    if timeout <= interval {
        return Ok(());
    }
    let (timeout, interval) = (time::display(timeout), time::display(interval));
    Err(Invalid::new("check.timeout", format!("must not be longer than the interval ({interval}), got {timeout}")))
}

impl Serialize for Check {
    /// In JSON, what was added later is left out where there is none: stores and callers of earlier releases refuse
    /// fields that they do not know. postcard, which has no names, writes all of them.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Span(#[serde(with = "time::duration::option")] Option<Duration>);
        let expects = self.expect.is_some() || !serializer.is_human_readable();
        let mut fields = serializer.serialize_struct("Check", 5 + usize::from(expects))?;
        fields.serialize_field("kind", &self.kind)?;
        fields.serialize_field("path", &self.path)?;
        fields.serialize_field("interval", &Span(self.interval))?;
        fields.serialize_field("timeout", &Span(self.timeout))?;
        fields.serialize_field("ttl", &Span(self.ttl))?;
        if expects {
            fields.serialize_field("expect", &self.expect)?;
        }
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Expect {
    /// In JSON, one of two fields, so that a mistake is answered with what was expected. In postcard, which has no names, the
    /// variant and its text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Named {
            header: Option<Box<str>>,
            body: Option<Box<str>>,
        }
        #[derive(Deserialize)]
        enum Numbered {
            Header(Box<str>),
            Body(Box<str>),
        }
        if !deserializer.is_human_readable() {
            return Ok(match Numbered::deserialize(deserializer)? {
                Numbered::Header(field) => Self::Header(field),
                Numbered::Body(text) => Self::Body(text),
            });
        }
        match Named::deserialize(deserializer)? {
            Named { header: Some(field), body: None } => Ok(Self::Header(field)),
            Named { header: None, body: Some(text) } => Ok(Self::Body(text)),
            _ => Err(de::Error::custom("check.expect: must have either `header` or `body`")),
        }
    }
}

fn validate_path(path: &str) -> Result<(), Invalid> {
    let printable = path.bytes().all(|b| b.is_ascii_graphic());
    if path.starts_with('/') && printable && path.len() <= limits::MAX_PATH_LEN {
        return Ok(());
    }
    Err(Invalid::new(
        "check.path",
        format!(
            "must begin with / and be at most {} printable ASCII characters without spaces, got {}",
            limits::MAX_PATH_LEN,
            quoted(path)
        ),
    ))
}

fn within(field: &str, value: Duration, range: &RangeInclusive<Duration>) -> Result<(), Invalid> {
    if range.contains(&value) {
        return Ok(());
    }
    let (low, high) = (time::display(*range.start()), time::display(*range.end()));
    Err(Invalid::new(field, format!("must be between {low} and {high}, got {}", time::display(value))))
}

// === impl Expect ===

impl Expect {
    /// A header field that the answer must carry.
    #[must_use]
    pub fn header(name: &str, value: &str) -> Self {
        Self::Header(format!("{name}: {value}").into())
    }

    /// A text that the answer's body must have.
    #[must_use]
    pub fn body(text: &str) -> Self {
        Self::Body(text.into())
    }

    /// Name and value of the header field, when it is one.
    #[must_use]
    pub fn as_header(&self) -> Option<(&str, &str)> {
        match self {
            Self::Header(field) => field.split_once(':').map(|(name, value)| (name.trim(), value.trim())),
            Self::Body(_) => None,
        }
    }

    fn validate(&self) -> Result<(), Invalid> {
        let text = match self {
            Self::Header(text) | Self::Body(text) => text,
        };
        if text.is_empty() || text.len() > limits::MAX_EXPECT_LEN || text.chars().any(char::is_control) {
            let rule = format!("must be 1 to {} bytes without control characters", limits::MAX_EXPECT_LEN);
            return Err(Invalid::new("check.expect", rule));
        }
        let token = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match (self, self.as_header()) {
            (Self::Body(_), _) => Ok(()),
            (Self::Header(_), Some((name, value))) if token(name) && !value.is_empty() && !value.contains(',') => {
                Ok(())
            }
            (Self::Header(text), _) => {
                let rule = format!("a header must be written `name: value`, without commas, got {}", quoted(text));
                Err(Invalid::new("check.expect", rule))
            }
        }
    }
}

// === impl CheckKind ===

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Ttl => "ttl",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_must_fit_the_kind_and_their_range() {
        let with = |check: Check, field: &str| assert_eq!(check.validate().unwrap_err().field, field);
        with(Check::http("health"), "check.path");
        with(Check::http("/a b"), "check.path");
        with(Check::http("/\r\nHost: x"), "check.path");
        with(Check::http(&format!("/{}", "x".repeat(limits::MAX_PATH_LEN))), "check.path");
        with(Check { path: Some("/x".into()), ..Check::tcp() }, "check.path");
        with(Check::ttl(Duration::from_millis(999)), "check.ttl");
        with(Check::ttl(Duration::from_secs(86_401)), "check.ttl");
        with(Check { ttl: None, ..Check::ttl(Duration::from_secs(1)) }, "check.ttl");
        with(Check { interval: Some(Duration::ZERO), ..Check::tcp() }, "check.interval");
        with(Check { timeout: Some(Duration::from_secs(61)), ..Check::tcp() }, "check.timeout");
        with(Check { interval: Some(Duration::from_secs(5)), ..Check::none() }, "check.interval");
        let slow =
            Check { interval: Some(Duration::from_secs(1)), timeout: Some(Duration::from_secs(2)), ..Check::tcp() };
        with(slow, "check.timeout");
        let expecting = |expect, check| Check { expect: Some(Arc::new(expect)), ..check };
        with(expecting(Expect::body("x"), Check::tcp()), "check.expect");
        for bad in ["", "no-colon", ": value", "name:", "a b: c", "name: a, b", "name: a\r\nb: c"] {
            with(expecting(Expect::Header(bad.into()), Check::default()), "check.expect");
        }
        expecting(Expect::header("X-Instance", "product-1"), Check::default()).validate().unwrap();
        for good in
            [Check::default(), Check::https("/"), Check::tcp(), Check::none(), Check::ttl(Duration::from_secs(86_400))]
        {
            good.validate().unwrap();
        }
    }

    #[test]
    fn what_belongs_to_another_kind_is_told_with_what_to_do() {
        let misplaced = Check { ttl: Some(Duration::from_secs(5)), ..Check::default() }.validate().unwrap_err();
        assert_eq!(
            misplaced.to_string(),
            "check.ttl: is for checks of kind ttl, and this one is `http`; leave it out, or change the kind"
        );
    }

    #[test]
    fn an_identity_is_a_header_or_a_body_and_neither_both_nor_none() {
        let read = serde_json::from_str::<Expect>;
        assert_eq!(read(r#"{"header":"a: b"}"#).unwrap(), Expect::header("a", "b"));
        assert_eq!(read(r#"{"body":"b"}"#).unwrap(), Expect::body("b"));
        for wrong in [r#"{"header":"a: b","body":"b"}"#, "{}"] {
            let said = read(wrong).unwrap_err().to_string();
            assert!(said.starts_with("check.expect: must have either `header` or `body`"), "{said}");
        }
        let unknown = read(r#"{"heading":"a: b"}"#).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `heading`, expected `header` or `body`"), "{unknown}");
        let bytes = postcard::to_allocvec(&[Expect::header("a", "b"), Expect::body("b")]).unwrap();
        assert_eq!(bytes, b"\0\x04a: b\x01\x01b");
        assert_eq!(postcard::from_bytes::<[Expect; 2]>(&bytes).unwrap(), [Expect::header("a", "b"), Expect::body("b")]);
    }

    #[test]
    fn defaults_never_make_a_visit_longer_than_the_interval() {
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(1));
        let hasty = Check { interval: Some(Duration::from_millis(300)), ..Check::default() };
        assert_eq!(hasty.or_defaults(interval, timeout).unwrap().timeout, Some(Duration::from_millis(300)));
        let patient = Check { timeout: Some(Duration::from_secs(6)), ..Check::default() };
        assert_eq!(patient.or_defaults(interval, timeout).unwrap_err().field, "check.timeout");
    }

    #[test]
    fn json_of_a_check_without_identity_is_that_of_earlier_releases() {
        let plain = Check { interval: Some(Duration::from_secs(5)), ..Check::http("/alive") };
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(text, r#"{"kind":"http","path":"/alive","interval":"5s","timeout":null,"ttl":null}"#);
        let identified = Check { expect: Some(Arc::new(Expect::body("shop"))), ..plain.clone() };
        for check in [plain, identified] {
            let json = serde_json::to_string(&check).unwrap();
            assert_eq!(serde_json::from_str::<Check>(&json).unwrap(), check);
            let bytes = postcard::to_allocvec(&check).unwrap();
            assert_eq!(postcard::from_bytes::<Check>(&bytes).unwrap(), check);
        }
    }

    #[test]
    fn reads_from_json_as_people_write_it() {
        let check: Check = serde_json::from_str(r#"{"expect":{"header":"x-instance: product-1"}}"#).unwrap();
        assert_eq!(check.expect.unwrap().as_header(), Some(("x-instance", "product-1")));
        let check: Check = serde_json::from_str(r#"{"kind":"ttl","ttl":"30s"}"#).unwrap();
        assert_eq!(check, Check::ttl(Duration::from_secs(30)));
        let check: Check = serde_json::from_str("{}").unwrap();
        assert_eq!(check.path(), Some("/health"));
        assert!(serde_json::from_str::<Check>(r#"{"intervall":"5s"}"#).unwrap_err().to_string().contains("intervall"));
    }
}
