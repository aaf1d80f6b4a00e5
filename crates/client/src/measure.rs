//! Where calls are counted. Without the feature `metrics` nothing is.

use roundsman_protocol::ServiceName;
#[cfg(feature = "http")]
use roundsman_protocol::Trouble;

#[cfg(feature = "metrics")]
use crate::metrics;
#[cfg(feature = "http")]
pub(crate) use call::Measured;

/// Says what is counted.
pub(crate) fn describe() {
    #[cfg(feature = "metrics")]
    metrics::describe();
}

/// An instance is passed over from now on.
pub(crate) fn ejected(service: &ServiceName) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!(metrics::EJECTIONS, "service" => service.to_string()).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = service;
}

/// A request goes out.
#[cfg(feature = "http")]
pub(crate) fn tried(service: &ServiceName) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!(metrics::TRIES, "service" => service.to_string()).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = service;
}

/// It does so beside another one.
#[cfg(feature = "http")]
pub(crate) fn hedged(service: &ServiceName) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!(metrics::HEDGES, "service" => service.to_string()).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = service;
}

/// It failed.
#[cfg(feature = "http")]
pub(crate) fn failed(service: &ServiceName, trouble: &Trouble) {
    let trouble = match trouble {
        Trouble::Refused => "refused",
        Trouble::Reset => "reset",
        Trouble::Timeout => "timeout",
        Trouble::Status(_) => "status",
        Trouble::Failing => "failing",
    };
    #[cfg(feature = "metrics")]
    ::metrics::counter!(metrics::FAILURES, "service" => service.to_string(), "trouble" => trouble).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = (service, trouble);
}

#[cfg(feature = "http")]
mod call {
    use std::time::Duration;

    use roundsman_protocol::ServiceName;
    use tokio::time::Instant;

    use crate::http::Error;

    /// A call under way. Counted when it ends, in whichever way.
    #[derive(Debug)]
    pub(crate) struct Measured {
        /// Missing as long as nobody knows of such a service.
        service: Option<ServiceName>,
        began: Instant,
        outcome: &'static str,
    }

    // === impl Measured ===

    impl Measured {
        pub(crate) fn new(began: Instant) -> Self {
            Self { service: None, began, outcome: "abandoned" }
        }

        /// There is such a service, and its list was confirmed so long ago.
        pub(crate) fn exists(&mut self, service: &ServiceName, list_age: Option<Duration>) {
            self.service = Some(service.clone());
            #[cfg(feature = "metrics")]
            ::metrics::gauge!(crate::metrics::LIST_AGE, "service" => service.to_string())
                .set(list_age.unwrap_or_default().as_secs_f64());
            #[cfg(not(feature = "metrics"))]
            let _ = list_age;
        }

        /// It was answered, with something better than trouble or not.
        pub(crate) fn answered(&mut self, troubled: bool) {
            self.outcome = if troubled { "troubled" } else { "answered" };
        }

        /// It was not.
        pub(crate) fn failed(&mut self, error: &Error) {
            self.outcome = match error {
                Error::Deadline { .. } => "deadline",
                Error::Failed { .. } => "failed",
                error if error.is_not_found() => "nobody",
                _ => "other",
            };
        }
    }

    impl Drop for Measured {
        fn drop(&mut self) {
            #[cfg(feature = "metrics")]
            {
                let service = self.service.as_ref().map(ToString::to_string).unwrap_or_default();
                let took = self.began.elapsed().as_secs_f64();
                ::metrics::counter!(crate::metrics::CALLS, "service" => service.clone(), "outcome" => self.outcome)
                    .increment(1);
                ::metrics::histogram!(crate::metrics::CALL_DURATION, "service" => service).record(took);
            }
            #[cfg(not(feature = "metrics"))]
            let _ = (&self.service, self.began, self.outcome);
        }
    }
}
