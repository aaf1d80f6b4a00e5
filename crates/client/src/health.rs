//! The ready-made answer to `/health`: checks of one's own, run together, with what came of each.

#[cfg(feature = "axum")]
mod door;
mod report;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use roundsman_protocol::{InstanceId, time};
use tokio::{
    sync::watch,
    task::{self, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use self::report::{CheckReport, HealthReport, HealthStatus};
use crate::{call::LONGEST, registration::Registration, wish::Wish};

/// How long a check may take unless told otherwise; less than the second that a server's visit waits.
pub const CHECK_TIMEOUT: Duration = Duration::from_millis(800);

/// The response header in which `/health` names the instances that answer there, see [`Health::follow`].
pub const INSTANCE_HEADER: &str = "roundsman-instance";

/// What a service knows of its own health. Cheap to clone; clones share the checks.
///
/// Each check is an async closure that ends with `Ok(())` or with a reason. All run at the same time, each no longer than
/// [`CHECK_TIMEOUT`]; one that takes longer, or panics, has failed. A service is passing when all its checks are.
///
/// Check what this instance alone can be blamed for. A database that is down fails the check of every instance at once, and
/// then nobody is handed out any more: sometimes that is right, often an honest error from each is better.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use roundsman::{Health, HealthStatus};
///
/// let health = Health::new()
///     .check("cache", async || Ok::<(), String>(()))
///     .check("database", async || Err("connection refused"));
///
/// let report = health.report().await;
/// assert_eq!(report.status, HealthStatus::Failing);
/// assert_eq!(report.http_status(), 503);
/// assert_eq!(report.checks["database"].error.as_deref(), Some("connection refused"));
/// # }
/// ```
///
/// With the feature `axum`, `health.router()` serves it under `/health`, and a [`HealthReport`] is a response:
///
/// ```json
/// {"status":"failing","checks":{"cache":{"status":"passing","took":"1ms"},
///  "database":{"status":"failing","took":"3ms","error":"connection refused"}}}
/// ```
#[derive(Clone)]
pub struct Health {
    shared: Arc<Mutex<Shared>>,
}

type Running = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

struct Shared {
    checks: BTreeMap<Arc<str>, Arc<dyn Fn() -> Running + Send + Sync>>,
    timeout: Duration,
    followed: Vec<Followed>,
}

/// A registration whose instance answers here.
struct Followed {
    id: InstanceId,
    wish: watch::Receiver<Wish>,
    /// Its instance has left.
    left: CancellationToken,
}

// === impl Health ===

impl Health {
    /// Healthy, for want of checks.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared { checks: BTreeMap::new(), timeout: CHECK_TIMEOUT, followed: Vec::new() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Adds a check; the same as [`Health::add`], to be written in a row.
    #[must_use]
    pub fn check<C, F, E>(self, name: impl Into<Arc<str>>, check: C) -> Self
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.add(name, check);
        self
    }

    /// Adds a check, in the place of an earlier one of the same name.
    pub fn add<C, F, E>(&self, name: impl Into<Arc<str>>, check: C)
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let check = move || -> Running {
            let check = check();
            Box::pin(async move { check.await.map_err(|error| error.to_string()) })
        };
        self.lock().checks.insert(name.into(), Arc::new(check));
    }

    /// Gives each check so long, instead of [`CHECK_TIMEOUT`].
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.lock().timeout = timeout.min(LONGEST);
        self
    }

    /// Answers for this registration, as for each other one that is followed.
    ///
    /// Its id stands in the header [`INSTANCE_HEADER`] of each answer from now on. A registration that is
    /// [`identified`](crate::NewInstance::identified) is visited for that, so that another program which takes over its
    /// address, once this one is gone, is not mistaken for it. Follow a registration as soon as there is one: a visit
    /// that comes sooner counts as failed, and is repeated.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
    /// use roundsman::{Health, NewInstance};
    ///
    /// let health = Health::new();
    /// // … serve it: health.router() …
    /// let me = discovery.register_in_background(NewInstance::new("order", "10.0.0.8:6060")?.identified())?;
    /// health.follow(&me);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It also shows when all that is followed is draining. A draining instance answers 200 whatever its checks say: it
    /// is not handed out anyway, and must not be evicted while it finishes. A registration that was
    /// [closed](Registration::close), alone or with its client, is followed no longer; one whose handles were merely dropped is.
    pub fn follow(&self, registration: &Registration) {
        let (id, wish, left) = (registration.id().clone(), registration.wishes(), registration.left().clone());
        let mut shared = self.lock();
        shared.forget_who_left();
        shared.followed.push(Followed { id, wish, left });
    }

    /// Runs all checks, and says what came of them.
    pub async fn report(&self) -> HealthReport {
        let (checks, limit, draining, instances) = {
            let mut shared = self.lock();
            shared.forget_who_left();
            (shared.checks.clone(), shared.timeout, shared.is_draining(), shared.instances())
        };
        let (began, mut names, mut running) = (Instant::now(), HashMap::new(), JoinSet::new());
        for (name, check) in checks {
            // A task each: one that blocks, or panics, is alone with it.
            let handle = running.spawn(async move {
                let result = check().await;
                (result, began.elapsed())
            });
            names.insert(handle.id(), name);
        }
        let mut reports = BTreeMap::new();
        while let Ok(Some(ended)) = timeout_at(began + limit, running.join_next_with_id()).await {
            let (id, report) = match ended {
                Ok((id, (result, took))) => (id, CheckReport::new(result, took)),
                Err(error) => (error.id(), CheckReport::new(Err("the check panicked".to_owned()), began.elapsed())),
            };
            reports.extend(names.remove(&id).map(|name| (name, report)));
        }
        reports.extend(late(names, limit));
        HealthReport::new(reports, draining, instances)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing leaves it half changed.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The checks that did not end in time.
fn late(names: HashMap<task::Id, Arc<str>>, limit: Duration) -> impl Iterator<Item = (Arc<str>, CheckReport)> {
    names.into_values().map(move |name| {
        let error = format!("not done within {}", time::display(limit));
        (name, CheckReport::new(Err(error), limit))
    })
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.lock();
        let checks: Vec<_> = shared.checks.keys().collect();
        f.debug_struct("Health").field("checks", &checks).field("timeout", &shared.timeout).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    /// Nobody who was closed is asked for here any more.
    fn forget_who_left(&mut self) {
        self.followed.retain(|followed| !followed.left.is_cancelled());
    }

    /// Whether everything that is followed is draining.
    fn is_draining(&self) -> bool {
        !self.followed.is_empty() && self.followed.iter().all(|followed| followed.wish.borrow().draining)
    }

    /// Who answers here, the latest first.
    fn instances(&self) -> Vec<InstanceId> {
        self.followed.iter().rev().map(|followed| followed.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_check_that_panics_or_hangs_has_failed_and_hides_no_other() {
        let health = Health::new()
            .check("cache", async || Ok::<(), String>(()))
            .check("bug", async || -> Result<(), String> { panic!("on purpose") })
            .check("disk", async || {
                tokio::time::sleep(Duration::from_millis(3)).await;
                Err("full")
            })
            .check("queue", async || std::future::pending::<Result<(), String>>().await);
        let report = health.report().await;
        assert_eq!((report.status, report.http_status()), (HealthStatus::Failing, 503));
        let said: Vec<_> = report.checks.iter().map(|(name, check)| (&**name, check.error.as_deref())).collect();
        let expected = [
            ("bug", Some("the check panicked")),
            ("cache", None),
            ("disk", Some("full")),
            ("queue", Some("not done within 800ms")),
        ];
        assert_eq!(said, expected);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["checks"]["disk"], serde_json::json!({ "status": "failing", "took": "3ms", "error": "full" }));
        assert_eq!(json["checks"]["queue"]["took"], "800ms");
    }

    #[tokio::test(start_paused = true)]
    async fn checks_run_at_the_same_time_and_leave_nothing_behind() {
        let mut health = Health::new().timeout(Duration::from_secs(2));
        for n in 0..50 {
            health = health.check(format!("{n}"), async || {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<(), String>(())
            });
        }
        health.add("slow", async || {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok::<(), String>(())
        });
        let began = Instant::now();
        let report = health.report().await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        assert_eq!(report.checks.values().filter(|check| check.error.is_none()).count(), 50);
        task::yield_now().await;
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    }

    #[tokio::test]
    async fn without_checks_it_is_passing_and_a_name_stands_for_one_check() {
        let health = Health::default();
        assert_eq!(serde_json::to_string(&health.report().await).unwrap(), r#"{"status":"passing","checks":{}}"#);
        let health = health.check("disk", async || Err("full"));
        health.add("disk", async || Ok::<(), String>(()));
        let report = health.report().await;
        assert_eq!((report.status, report.checks.len()), (HealthStatus::Passing, 1));
    }
}
