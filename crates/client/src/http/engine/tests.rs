//! Calls in simulated time, over wires that are none: what is asked of whom, when, and how often.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex, atomic::AtomicBool},
};

use futures::future::join_all;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::RETRY_AFTER};
use roundsman_protocol::{Instance, Query, Trouble};

use tokio::{sync::watch, time::sleep};

use super::*;
use crate::{
    balance::{Peers, Policy, peers},
    cache::{Feed, tests::instance},
    http::{Body, budget::Budget, choice::Choice, settings::Limits},
    link::Link,
    snapshot::Snapshot,
};

mod breaking;
mod hedging;
mod splitting;
mod trials;
mod waiting;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// What an instance does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answers(u16, Duration),
    Resets,
    Refuses,
    Hangs,
    /// We have no descriptor left to connect to it.
    Lacks,
}

/// A request that came to an instance.
#[derive(Clone, Copy, Debug)]
struct Came {
    to: usize,
    at: Instant,
}

type Manners = Box<dyn Fn(usize, &Method) -> Does + Send + Sync>;

/// Instances of `product`, `i0`, `i1`, … at ports of these numbers, and a client that calls them.
struct World {
    callee: Callee,
    peers: Arc<Peers>,
    manners: Manners,
    came: Mutex<Vec<Came>>,
    /// From this moment on the first of them hangs.
    frozen: AtomicBool,
}

// === impl World ===

impl World {
    fn new(count: usize, manners: impl Fn(usize, &Method) -> Does + Send + Sync + 'static) -> Self {
        Self::of((0..count).map(|_| instance("product", "any")).collect(), manners)
    }

    fn of(instances: Vec<Instance>, manners: impl Fn(usize, &Method) -> Does + Send + Sync + 'static) -> Self {
        let numbered = instances.into_iter().enumerate().map(|(n, instance)| {
            let (id, address) = (format!("i{n}").parse().unwrap(), format!("10.0.0.7:{}", n + 1).parse().unwrap());
            Arc::new(Instance { id, address, ..instance })
        });
        let service = "product".parse().unwrap();
        let feed = Arc::new(Feed::fixed(Query::service("product".parse().unwrap()), numbered.collect()));
        let (came, frozen) = (Mutex::default(), AtomicBool::new(false));
        let callee = Callee::new(service, feed, Arc::new(Budget::new()), watch::channel(Link::Closed).1);
        Self { callee, peers: Arc::new(peers()), manners: Box::new(manners), came, frozen }
    }

    async fn call(&self, method: Method) -> Result<Answered<(usize, StatusCode)>, Error> {
        self.call_as(&Choice::default(), &Plan::new(Limits::default(), &method), method).await
    }

    async fn call_as(
        &self,
        choice: &Choice,
        plan: &Plan,
        method: Method,
    ) -> Result<Answered<(usize, StatusCode)>, Error> {
        let balancer = self.callee.balancer(choice, plan.key.as_deref(), &self.peers);
        let deadline = Instant::now() + plan.limits.timeout;
        let course = Course { callee: &self.callee, balancer: &balancer, plan, deadline };
        let request = http::Request::builder().method(method).uri("/").body(Body::default()).unwrap();
        course.run(request, self).await
    }

    /// So many calls, one each so often; what became of each, and how long it took.
    async fn calls(
        &self,
        count: u32,
        every: Duration,
        method: &Method,
    ) -> Vec<(Result<Answered<(usize, StatusCode)>, Error>, Duration)> {
        let one = |n| async move {
            sleep(every * n).await;
            let began = Instant::now();
            let answered = self.call(method.clone()).await;
            (answered, began.elapsed())
        };
        join_all((0..count).map(one)).await
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// How many requests came to each.
    fn counts(&self) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        self.came().iter().for_each(|came| *counts.entry(came.to).or_default() += 1);
        counts
    }

    /// The list has these of them from now on.
    fn show(&self, instances: &[Arc<Instance>]) {
        self.callee.feed().show(Snapshot::known(instances.to_vec(), None));
    }

    fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }
}

/// Leaves nothing for second tries; for how many there was enough.
fn spend_all(world: &World) -> usize {
    std::iter::from_fn(|| world.callee.pay().map(Payment::spend)).count()
}

impl Sender for World {
    type Request = http::Request<Body>;
    type Answer = (usize, StatusCode);

    fn headers(answer: &Self::Answer) -> &HeaderMap {
        static LATER: LazyLock<HeaderMap> =
            LazyLock::new(|| [(RETRY_AFTER, HeaderValue::from_static("3"))].into_iter().collect());
        static NONE: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
        if answer.1 == StatusCode::SERVICE_UNAVAILABLE { &LATER } else { &NONE }
    }

    async fn send(&self, request: Self::Request) -> Result<Self::Answer, Failure> {
        let to = usize::from(request.uri().port_u16().unwrap()) - 1;
        self.came.lock().unwrap().push(Came { to, at: Instant::now() });
        let failed = |trouble: Trouble, maybe_sent| {
            let detail = trouble.to_string();
            Failure { trouble, detail, maybe_sent, kind: Kind::Instance }
        };
        let does = if to == 0 && self.frozen.load(Ordering::Relaxed) {
            Does::Hangs
        } else {
            (self.manners)(to, request.method())
        };
        match does {
            Does::Answers(status, after) => {
                sleep(after).await;
                if to == 0 && self.frozen.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                Ok((to, StatusCode::from_u16(status).unwrap()))
            }
            Does::Resets => Err(failed(Trouble::Reset, true)),
            Does::Refuses => Err(failed(Trouble::Refused, false)),
            Does::Lacks => Err(Failure { kind: Kind::Ours, ..failed(Trouble::Timeout, false) }),
            Does::Hangs => std::future::pending().await,
        }
    }

    fn status(answer: &Self::Answer) -> StatusCode {
        answer.1
    }
}
