//! How an instance is visited.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{error::Invalid, limits, name::quoted, time};

/// How the server finds out whether an instance is alive.
///
/// One flat struct instead of an enum with fields: in JSON it reads as `{"kind":"http","path":"/health"}`,
/// and postcard, which knows no optional fields, carries it as well. [`Check::validate`] refuses
/// fields that do not belong to the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
                return Err(Invalid::new("check.path", format!("a {} check has no path", self.kind)));
            }
            validate_path(path)?;
        }
        for (field, value, range) in
            [("check.interval", self.interval, limits::INTERVAL), ("check.timeout", self.timeout, limits::TIMEOUT)]
        {
            let Some(value) = value else { continue };
            if !visited {
                return Err(Invalid::new(field, format!("a {} check is not visited", self.kind)));
            }
            within(field, value, &range)?;
        }
        match (self.kind, self.ttl) {
            (CheckKind::Ttl, Some(ttl)) => within("check.ttl", ttl, &limits::TTL),
            (CheckKind::Ttl, None) => Err(Invalid::new("check.ttl", "a ttl check needs a ttl, such as 30s")),
            (_, Some(_)) => Err(Invalid::new("check.ttl", format!("a {} check has no ttl", self.kind))),
            (_, None) => Ok(()),
        }
    }

    /// Fills in what the registration left open, so that everyone sees how the instance is visited.
    #[must_use]
    pub fn or_defaults(mut self, interval: Duration, timeout: Duration) -> Self {
        if matches!(self.kind, CheckKind::Http | CheckKind::Https | CheckKind::Tcp) {
            self.interval.get_or_insert(interval);
            self.timeout.get_or_insert(timeout);
        }
        if self.path.is_none() {
            self.path = self.path().map(Arc::from);
        }
        self
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
        for good in
            [Check::default(), Check::https("/"), Check::tcp(), Check::none(), Check::ttl(Duration::from_secs(86_400))]
        {
            good.validate().unwrap();
        }
    }

    #[test]
    fn reads_from_json_as_people_write_it() {
        let check: Check = serde_json::from_str(r#"{"kind":"ttl","ttl":"30s"}"#).unwrap();
        assert_eq!(check, Check::ttl(Duration::from_secs(30)));
        let check: Check = serde_json::from_str("{}").unwrap();
        assert_eq!(check.path(), Some("/health"));
        assert!(serde_json::from_str::<Check>(r#"{"intervall":"5s"}"#).unwrap_err().to_string().contains("intervall"));
    }
}
