//! Values of flags that need reading.

use std::time::Duration;

use roundsman::{CheckKind, Timestamp, protocol::time};

/// A moment, as somebody who looks back says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long ago.
    Ago(Duration),
    /// At this time.
    At(Timestamp),
}

impl Moment {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        let mistake =
            || "write how long ago, such as 30m or 1h, or a time in UTC such as 2026-11-21T19:00:00Z".to_owned();
        time::parse(text).map(Self::Ago).map_err(|_| mistake())
    }

    pub(crate) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(ago) => {
                let millis = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
                Timestamp::from_millis(now.as_millis().saturating_sub(millis))
            }
            Self::At(at) => at,
        }
    }
}

pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn check_kind(text: &str) -> Result<CheckKind, String> {
    let kinds = [CheckKind::Http, CheckKind::Https, CheckKind::Tcp, CheckKind::Ttl, CheckKind::None];
    let found = kinds.into_iter().find(|kind| kind.to_string() == text);
    found.ok_or_else(|| "must be http, https, tcp, ttl or none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_ages_or_times() {
        let now: Timestamp = "2026-11-21T19:30:00Z".parse().unwrap();
        let before = |text| Moment::read(text).unwrap().before(now).to_string();
        assert_eq!(before("1h"), "2026-11-21T18:30:00.000Z");
        assert_eq!(before("2026-11-20T00:00:00Z"), "2026-11-20T00:00:00.000Z");
        assert_eq!(before("9999y"), "1970-01-01T00:00:00.000Z");
        assert!(Moment::read("yesterday").unwrap_err().contains("such as 30m"));
    }
}
