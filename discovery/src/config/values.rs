//! How single settings are read from text, and what is said of those that cannot be.

use std::{
    fmt::{self, Display},
    net::SocketAddr,
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use roundsman_protocol::time;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Human => "human",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("must be human or json".to_owned()),
        }
    }
}

pub(super) fn socket_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be IP:PORT such as 127.0.0.1:5555; port 0 takes any free one".to_owned())
}

/// What a type of another crate makes of it.
pub(super) fn fitting<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

/// Any text is one.
#[allow(clippy::unnecessary_wraps, reason = "it is read like all other settings")]
pub(super) fn path(text: &str) -> Result<Option<PathBuf>, String> {
    Ok(Some(PathBuf::from(text)))
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    text.parse()
}

pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    text.split(',').map(|part| network(part.trim())).collect()
}

fn network(text: &str) -> Result<IpNet, String> {
    let net = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| IpNet::from(ip)));
    net.map_err(|_| "must be a network such as 10.0.0.0/8".to_owned())
}

pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| within(time::parse(text)?, &range, |duration| time::display(*duration))
}

pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    move |text| {
        let digits = text.replace('_', "");
        let number = digits.parse().map_err(|_| "must be a whole number".to_owned())?;
        within(number, &range, ToString::to_string)
    }
}

/// Bytes, with K, M or G for the powers of 1,024; at least as much as a server needs to be of use.
pub(super) fn size(text: &str) -> Result<Option<u64>, String> {
    const LEAST: u64 = 32 << 20;
    let text = text.trim().trim_end_matches("iB").trim_end_matches('B');
    let (digits, shift) = match text.chars().last() {
        Some('K' | 'k') => (text.get(..text.len() - 1), 10),
        Some('M' | 'm') => (text.get(..text.len() - 1), 20),
        Some('G' | 'g') => (text.get(..text.len() - 1), 30),
        _ => (Some(text), 0),
    };
    let rule = || "must be a number of bytes such as 512M or 2G".to_owned();
    let number: u64 = digits.unwrap_or_default().trim().replace('_', "").parse().map_err(|_| rule())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(rule)?;
    if bytes < LEAST { Err("must be at least 32M".to_owned()) } else { Ok(Some(bytes)) }
}

fn within<T: PartialOrd>(value: T, range: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("must be between {} and {}", show(range.start()), show(range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("512M", 512 << 20), ("2G", 2 << 30), ("64MiB", 64 << 20), ("100_000_000", 100_000_000)] {
            assert_eq!(size(text), Ok(Some(bytes)), "{text}");
        }
        for text in ["", "G", "1M", "-1G", "99999999999G", "half"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
