//! Times and durations as they travel: RFC 3339 and `5s` for people, milliseconds for machines.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, in milliseconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Where wall-clock time comes from. A parameter, so that tests can hold it still.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

// === impl Timestamp ===

impl Timestamp {
    /// The last moment that RFC 3339 can express, 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// A timestamp from milliseconds since 1970; later than [`Self::MAX`] is cut to it.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min(Self::MAX.0))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// The time that passed since `earlier`; zero when clocks ran backwards.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This moment and `duration` more.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(millis(duration)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::from_millis(time.duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0);
        fmt::Display::fmt(&humantime::format_rfc3339_millis(time), f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = humantime::TimestampError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_rfc3339(text).map(Self::from)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self::from_millis)
        }
    }
}

// === impl Clock ===

impl Clock {
    /// The operating system's clock.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place where wall-clock time enters")]
    pub fn system() -> Self {
        Self(Arc::new(|| Timestamp::from(SystemTime::now())))
    }

    /// A clock of the caller's own.
    #[must_use]
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// A duration as people write it, in the largest unit that divides it: `5s`, `200ms`, `2m`, `90s`.
#[must_use]
pub fn display(duration: Duration) -> String {
    let millis = millis(duration);
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let fitting = units.iter().find(|(_, unit)| millis > 0 && millis % *unit == 0);
    fitting.map_or_else(|| format!("{millis}ms"), |(name, unit)| format!("{}{name}", millis / unit))
}

/// Reads a duration such as `5s`, `200ms` or `1h 30m`.
///
/// # Errors
/// When the text is no duration; the message says what was expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write a duration such as 5s, 200ms or 2m"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Serde for a [`Duration`]: `"5s"` in JSON, milliseconds in postcard.
pub mod duration {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

    /// Writes a duration.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&super::display(*value))
        } else {
            super::millis(*value).serialize(serializer)
        }
    }

    /// Reads a duration.
    ///
    /// # Errors
    /// When it is not one.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            super::parse(&text).map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Duration::from_millis)
        }
    }

    /// The same for a duration that may be absent.
    pub mod option {
        use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

        #[derive(Serialize, Deserialize)]
        struct Wrapped(#[serde(with = "super")] Duration);

        /// Writes a duration or nothing.
        ///
        /// # Errors
        /// Those of the serializer.
        #[allow(clippy::ref_option, reason = "the signature that serde calls")]
        pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            value.map(Wrapped).serialize(serializer)
        }

        /// Reads a duration or nothing.
        ///
        /// # Errors
        /// When it is not one.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_they_are_written() {
        for (text, millis) in
            [("5s", 5_000), ("200ms", 200), ("2m", 120_000), ("90s", 90_000), ("24h", 86_400_000), ("0ms", 0)]
        {
            let duration = Duration::from_millis(millis);
            assert_eq!(display(duration), text);
            assert_eq!(parse(text).unwrap(), duration);
        }
        assert!(parse("five").unwrap_err().contains("such as 5s"));
    }

    #[test]
    fn timestamps_survive_both_formats_and_absurd_values() {
        let time = Timestamp::from_millis(1_795_225_800_123);
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(json, "\"2026-11-21T01:50:00.123Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
        let bytes = postcard::to_allocvec(&u64::MAX).unwrap();
        let last: Timestamp = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(last, Timestamp::MAX);
        assert_eq!(last.plus(Duration::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
