//! Values of settings, from text.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use roundsman_protocol::{Invalid, time};

use super::settings::LogFormat;
use crate::{breaker::CircuitBreaker, new_instance::NewInstance, servers::Servers};

/// Longest time that anything may be set to.
const LONGEST: Duration = Duration::from_secs(3_600);

/// The rules of the circuit breaker that hold unless told otherwise, as they are written.
pub(super) const BREAKER: &str = "failures=5,ratio=0.5,calls=20,window=10s,ejection=1s,longest=1m,slow-start=10s";

/// The rule of a mistake, without the field: who gave the value names it in their own words.
pub(super) fn rule(invalid: Invalid) -> String {
    invalid.rule
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be IP:PORT such as 0.0.0.0:8080".to_owned())
}

/// What has its rules from the protocol.
pub(super) fn fitting<T: FromStr<Err = Invalid>>(text: &str) -> Result<T, String> {
    text.parse().map_err(rule)
}

pub(super) fn servers(text: &str) -> Result<String, String> {
    Servers::from(text).checked().map(|_| text.to_owned()).map_err(rule)
}

/// A time, which may be nothing.
pub(super) fn grace(text: &str) -> Result<Duration, String> {
    let duration = time::parse(text)?;
    if duration > LONGEST {
        return Err(format!("must be at most {}", time::display(LONGEST)));
    }
    Ok(duration)
}

/// A time that is not nothing.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = grace(text)?;
    if duration.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(duration) }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be human or json".to_owned()),
    }
}

/// A metadata entry.
pub(super) fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE such as shelf=3")?;
    sound(|instance| Ok(instance.meta(key, value)))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Whether an instance may be described so.
pub(super) fn sound(describe: impl FnOnce(NewInstance) -> Result<NewInstance, Invalid>) -> Result<(), String> {
    let any = NewInstance::new("any", "127.0.0.1:1").and_then(describe);
    any.and_then(NewInstance::into_registration).map(|_| ()).map_err(rule)
}

/// The rules of the circuit breaker: `off`, or some of those in [`BREAKER`], which stand in for all that are not named.
pub(super) fn breaker(text: &str) -> Result<CircuitBreaker, String> {
    if text == "off" {
        return Ok(CircuitBreaker::never());
    }
    let mut named = Vec::new();
    for part in text.split(',').map(str::trim) {
        let known =
            |key: &&str| BREAKER.split(',').any(|rule| rule.split_once('=').is_some_and(|(name, _)| name == *key));
        let (key, value) = part
            .split_once('=')
            .filter(|(key, _)| known(key))
            .ok_or_else(|| format!("must be off, or rules such as {BREAKER}; {part:?} is none of them"))?;
        named.push((key, value));
    }
    let defaults: Vec<_> = BREAKER.split(',').filter_map(|rule| rule.split_once('=')).collect();
    let value = |key: &str| {
        let last = named.iter().rev().chain(&defaults).find(|(name, _)| *name == key);
        last.map_or("", |(_, value)| *value)
    };
    let time = |key: &str| grace(value(key)).map_err(|rule| format!("{key}: {rule}"));
    let rules = CircuitBreaker::default()
        .consecutive_failures(number(value("failures"), "failures")?)
        .failure_ratio(number(value("ratio"), "ratio")?, number(value("calls"), "calls")?, time("window")?)
        .ejection(time("ejection")?, time("longest")?)
        .slow_start(time("slow-start")?);
    rules.validate().map_err(rule)?;
    Ok(rules)
}

fn number<T: FromStr>(text: &str, key: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error| format!("{key}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_is_written_as_it_is() {
        assert_eq!(breaker(BREAKER), Ok(CircuitBreaker::default()));
        assert_eq!(breaker("off"), Ok(CircuitBreaker::never()));
        assert_eq!(breaker("failures=2"), Ok(CircuitBreaker::default().consecutive_failures(2)));
        let two = CircuitBreaker::default().ejection(Duration::from_secs(5), Duration::from_secs(300));
        assert_eq!(breaker("ejection=5s, longest=5m"), Ok(two.slow_start(Duration::from_secs(10))));
        for (text, says) in [
            ("on", "\"on\" is none of them"),
            ("", "must be off, or rules"),
            ("failures=many", "failures: invalid digit"),
            ("failures=0", "at least one failure"),
            ("window=often", "window: "),
            ("ratio=2", "must be above 0 and at most 1"),
            ("ejection=2m", "no longer than the longest"),
        ] {
            let said = breaker(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn times_have_bounds() {
        assert_eq!(grace("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("0s").is_err() && grace("2h").is_err() && grace("soon").is_err() && grace("-1s").is_err());
    }
}
