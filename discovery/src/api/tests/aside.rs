//! What takes longer than a moment is done where nobody else waits for it.

use std::{
    pin::Pin,
    sync::{Condvar, Mutex},
    thread,
};

use futures::FutureExt;

use super::*;

/// Holds up threads until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

type Call = Pin<Box<dyn Future<Output = Result<(), DiscoveryError>>>>;

fn thread_name() -> Option<String> {
    thread::current().name().map(str::to_owned)
}

#[tokio::test]
async fn status_graph_and_services_are_put_together_on_threads_of_their_own() {
    let inside = Inside::new(Config::default());
    let api = inside.api(None);
    let names = [
        api.status(Sight::Server, |_| thread_name()).await.unwrap(),
        api.graph(|_| thread_name()).await.unwrap(),
        api.services(|_| thread_name()).await.unwrap(),
    ];
    assert!(names.iter().all(|name| name.as_deref() == Some("answers")), "{names:?}");
    inside.stop().await;
}

#[tokio::test]
async fn when_too_much_waits_already_the_status_is_refused_and_lookups_go_on() {
    let inside = Inside::new(Config::default());
    let mut api = inside.api(None);
    api.register(registration(1)).await.unwrap();
    let (offload, gate) = (inside.context.offload.clone(), Arc::new(Gate::default()));
    let mut waiting: Vec<Call> = Vec::new();
    // The threads take some of them; the first that is refused says that the queue is full.
    let full = loop {
        let (offload, gate) = (offload.clone(), Arc::clone(&gate));
        let mut job = async move { offload.run(move || gate.pass()).await }.boxed_local();
        match (&mut job).now_or_never() {
            Some(refused) => break refused.unwrap_err(),
            None => waiting.push(job),
        }
    };
    assert_eq!(api.get(&name("db")).unwrap().instance.id.as_str(), "db-1");
    // A thread may have taken a job meanwhile; its place is taken again.
    let refusal = loop {
        let mut status = inside.api(None).status(Sight::Server, drop).boxed_local();
        match (&mut status).now_or_never() {
            Some(refused) => break refused.unwrap_err(),
            None => waiting.push(status),
        }
    };
    assert_eq!(refusal, full);
    gate.open();
    for job in waiting {
        job.await.unwrap();
    }
    assert!(api.status(Sight::Server, |status| status.ready).await.is_ok());
    inside.stop().await;
}
