//! What is said once for many calls, however they are made: which instances they go to, how long and how often.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{Host, Invalid, Query, ServiceName};

use super::{
    DEFAULT_BODY_LIMIT, DEFAULT_HEDGE_AFTER, DEFAULT_TIMEOUT, DEFAULT_TRIES, DEFAULT_WAIT_FOR_INSTANCE, Error,
    choice::{Choice, Split},
};

/// What was said, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) choice: Choice,
    pub(crate) limits: Limits,
    /// The first mistake, told by the next call.
    pub(crate) invalid: Option<Error>,
}

/// How long and how often.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) timeout: Duration,
    /// Beginnings of paths, and how long calls to those may take.
    pub(crate) routes: Vec<(Box<str>, Duration)>,
    /// `None`: as long as the call.
    pub(crate) try_timeout: Option<Duration>,
    pub(crate) hedge_after: Duration,
    pub(crate) wait_for_instance: Duration,
    pub(crate) tries: u32,
    pub(crate) body: usize,
}

/// The methods of whatever has `settings`, and a `name` if it is about one service.
macro_rules! settings {
    () => {
        /// How instances are chosen. By default by [`Policy::PeakEwma`](crate::Policy::PeakEwma): around the slow and the
        /// failing.
        pub fn policy(mut self, policy: $crate::Policy) -> Self {
            self.settings.choice.policy = policy;
            self
        }

        /// Prefers instances in this zone, as far as they are well: all calls stay there while three in four of them are,
        /// seven in ten while half of them are, and none when none is. The rest goes to the other zones.
        pub fn prefer_zone(mut self, zone: impl Into<Box<str>>) -> Self {
            self.settings.choice.zone = Some(zone.into());
            self
        }

        /// Calls only instances whose address is on this host, an IP address or a name as the instances register it.
        pub fn same_host(mut self, host: &str) -> Self {
            self.settings.same_host(host);
            self
        }

        /// Calls only instances that a query matches: by version, tag, zone, metadata or
        /// [subset](crate::Query::subset). It names no service, or the one that is called. Calls wait for such an instance, and
        /// go to no other.
        ///
        /// ```no_run
        /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
        /// use roundsman::Query;
        ///
        /// let new = discovery.http("product").select(Query::default().version("2").tag("fruit"));
        /// let answer = new.get("/product/aaa").send().await?;
        /// # Ok(())
        /// # }
        /// ```
        pub fn select(mut self, query: $crate::Query) -> Self {
            let name = self.name().cloned();
            self.settings.select(query, name.as_ref());
            self
        }

        /// Gives versions a share of the calls, from 0 to 1; what is left goes to instances of all other versions. Calls with
        /// the same [key](crate::http::Key) go to the same part. A version without any instance that is well has no calls:
        /// they go to the others.
        ///
        /// ```no_run
        /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
        /// // One user in twenty sees the new version, at each visit.
        /// let product = discovery.http("product").split([("v2", 0.05)]);
        /// let answer = product.get("/product/aaa").key("user-7").send().await?;
        /// # Ok(())
        /// # }
        /// ```
        pub fn split<V: Into<Box<str>>>(mut self, shares: impl IntoIterator<Item = (V, f64)>) -> Self {
            self.settings.split(shares);
            self
        }

        /// Calls only so many of the instances, chosen by the servers; see [`Resolve::subset`](crate::Resolve::subset). Calls
        /// under way on one that leaves the subset go on to their end.
        pub fn subset(mut self, size: u32) -> Self {
            self.settings.choice.share = Some($crate::share::Share::new(None, size));
            self
        }

        /// The same under a name of one's own; see [`Resolve::subset_as`](crate::Resolve::subset_as).
        pub fn subset_as(mut self, client: impl Into<Box<str>>, size: u32) -> Self {
            self.settings.choice.share = Some($crate::share::Share::new(Some(client.into()), size));
            self
        }

        /// How long one try may take; see [`Request::try_timeout`](crate::http::Request::try_timeout).
        pub fn try_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.limits.try_timeout = Some(timeout);
            self
        }

        /// How long a call waits for an instance when nobody is there; see
        /// [`Request::wait_for_instance`](crate::http::Request::wait_for_instance).
        pub fn wait_for_instance(mut self, time: std::time::Duration) -> Self {
            self.settings.limits.wait_for_instance = time;
            self
        }

        /// How many tries a call has, the first included. By default [`DEFAULT_TRIES`](crate::http::DEFAULT_TRIES).
        pub fn tries(mut self, tries: u32) -> Self {
            self.settings.limits.tries = tries;
            self
        }
    };
}

/// The same of whatever calls paths and may ask a second instance.
macro_rules! path_settings {
    () => {
        /// How long a call may take to paths that begin so, in place of the general time. Where several do, the longest of
        /// them counts.
        ///
        /// ```no_run
        /// # use std::time::Duration;
        /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
        /// let product = discovery.http("product").timeout_for("/reports/", Duration::from_secs(60));
        /// let answer = product.get("/reports/2026").send().await?;
        /// # Ok(())
        /// # }
        /// ```
        pub fn timeout_for(mut self, path: impl Into<Box<str>>, timeout: std::time::Duration) -> Self {
            self.settings.limits.routes.push((path.into(), timeout));
            self
        }

        /// How long an answer is waited for before another instance is asked as well; see
        /// [`Request::hedge_after`](crate::http::Request::hedge_after).
        pub fn hedge_after(mut self, time: std::time::Duration) -> Self {
            self.settings.limits.hedge_after = time;
            self
        }
    };
}

pub(crate) use {path_settings, settings};

// === impl Settings ===

impl Settings {
    pub(crate) fn same_host(&mut self, host: &str) {
        let host = host.parse::<Host>().map(|host| self.choice.host = Some(host));
        self.check(host);
    }

    pub(crate) fn select(&mut self, query: Query, service: Option<&ServiceName>) {
        let selected = self.choice.select(query, service);
        self.check(selected);
    }

    pub(crate) fn split<V: Into<Box<str>>>(&mut self, shares: impl IntoIterator<Item = (V, f64)>) {
        let split = Split::try_new(shares).map(|split| self.choice.split = Some(Arc::new(split)));
        self.check(split);
    }

    fn check(&mut self, said: Result<(), Invalid>) {
        if let Err(invalid) = said {
            self.invalid.get_or_insert(crate::Error::from(invalid).into());
        }
    }
}

// === impl Limits ===

impl Limits {
    /// Takes the time that was said for this path, if any was.
    pub(crate) fn on_route(&mut self, path: &str) {
        let routes = self.routes.iter().filter(|(route, _)| path.starts_with(&**route));
        if let Some((_, timeout)) = routes.max_by_key(|(route, _)| route.len()) {
            self.timeout = *timeout;
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: DEFAULT_TIMEOUT,
            routes: Vec::new(),
            try_timeout: None,
            hedge_after: DEFAULT_HEDGE_AFTER,
            wait_for_instance: DEFAULT_WAIT_FOR_INSTANCE,
            tries: DEFAULT_TRIES,
            body: DEFAULT_BODY_LIMIT,
        }
    }
}
