//! The tasks that ask, and how they are waited for.

use std::sync::{Arc, atomic::Ordering};

use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{
    FIRST_QUESTION, Inner, QUESTION,
    cache::{Answer, Stage},
    source,
};

/// Asks one question, when it is its turn.
pub(super) async fn ask(inner: Arc<Inner>, name: Arc<str>, again: bool, stage: watch::Sender<bool>) {
    let (questions, patience) = match again {
        false => (&inner.questions, FIRST_QUESTION),
        true => (&inner.repeated, QUESTION),
    };
    let asked = async {
        let _turn = questions.turns.acquire().await;
        stage.send_replace(true);
        inner.asked.fetch_add(1, Ordering::Relaxed);
        timeout(patience, inner.source.ask(&name)).await.unwrap_or_else(|_| source::nobody())
    };
    let answer = tokio::select! {
        () = inner.stop.cancelled() => return,
        answer = asked => answer,
    };
    if let Answer::Silence(why) = &answer {
        inner.unanswered.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%name, %why, "a host name is not resolved");
    }
    inner.cache().settle(&name, answer, Instant::now());
    // Only now, so that those who wait for it find the answer.
    drop(stage);
}

/// Waits until a question has ended, or until it is too late: then it is given back.
pub(super) async fn answered(mut stage: Stage, deadline: Instant) -> Option<Stage> {
    let ended = async { while stage.changed().await.is_ok() {} };
    match timeout_at(deadline, ended).await {
        Ok(()) => None,
        Err(_) => Some(stage),
    }
}
