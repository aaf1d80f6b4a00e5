//! Who asked, as the log tells it.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use super::*;

/// A log that can be read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the log says of three changes.
async fn changed() -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
    let subscriber = subscriber.with_writer(move || writer.clone()).with_ansi(false).finish();
    // Everything of this test is on this thread.
    let _logging = tracing::subscriber::set_default(subscriber);
    let inside = Inside::new(Config::default());
    let (order, operator) = (inside.api(Some("order")), inside.api(None));
    order.register(registration(1)).await.unwrap();
    operator.drain("db-1".parse().unwrap(), true).await.unwrap();
    operator.deregister("db-1".parse().unwrap()).await.unwrap();
    inside.stop().await;
    log.lines().into_iter().filter(|line| line.contains("changed")).collect()
}

#[tokio::test]
async fn the_log_names_who_asked_for_a_change() {
    let by = ["by=order at 10.0.0.9:4711, rpc session ", "by=10.0.0.9:4711, rpc ", "by=10.0.0.9:4711, rpc "];
    let mut lines = changed().await;
    // Whether anybody listens is remembered for the whole process: a test beside this one, which logs the same for the first
    // time at this moment, may have it remembered that nobody does.
    for _ in 0..3 {
        if lines.len() == by.len() {
            break;
        }
        tracing::callsite::rebuild_interest_cache();
        lines = changed().await;
    }
    assert_eq!(lines.len(), by.len(), "{lines:#?}");
    assert!(lines.iter().zip(by).all(|(line, by)| line.contains(by)), "{lines:#?}");
}
