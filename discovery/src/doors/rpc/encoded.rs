//! Long answers, page by page, encoded once for everybody who asks the same at a time.
//!
//! When a server comes back, thousands of watchers ask for the same snapshot at once. Encoding it for each of them
//! would take seconds and a gigabyte; here the first one has a page encoded, and all share the bytes.

mod answer;
mod shelf;
#[cfg(test)]
mod tests;
mod writing;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use roundsman_protocol::{Cursor, Dialect, DiscoveryError, Namespace, Query, Version, limits};
use tokio::time::Instant;

pub(super) use self::answer::Encoded;
use self::{shelf::Shelf, writing::Sheet};
use crate::{
    api::{Cut, Reading},
    memory::{Budget, Reservation},
    offload::Offload,
};

/// What an answer takes that is kept, besides its query and its bytes.
const SLOT: usize = 512;

/// What is told about the instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// The answer of `list`.
    List,
    /// The answer of `watch` with a snapshot.
    Watch,
}

/// An answer that is driven on by whoever waits for it: a connection that stands still holds up nobody else.
type Answer = Shared<BoxFuture<'static, Result<Arc<Encoded>, DiscoveryError>>>;

/// The long answers of this moment.
#[derive(Debug)]
pub(crate) struct Encodings {
    offload: Offload,
    budget: Arc<Budget>,
    /// How many bytes a page may have.
    page: usize,
    shelf: Arc<Mutex<Shelf>>,
}

/// What is asked, and how it is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    namespace: Namespace,
    query: Query,
    dialect: Dialect,
    form: Form,
    /// The moment that is shown.
    shown: Cursor,
    cut: Cut,
}

// === impl Question ===

impl Question {
    fn of(namespace: Namespace, dialect: Dialect, form: Form, reading: &Reading) -> Self {
        let Reading { moment, cut } = reading;
        Self { namespace, query: moment.query().clone(), dialect, form, shown: moment.cursor(), cut: cut.clone() }
    }
}

// === impl Encodings ===

impl Encodings {
    pub(crate) fn new(offload: Offload, budget: Arc<Budget>) -> Self {
        Self::with_pages(offload, budget, limits::PAGE_BYTES)
    }

    /// One with pages of so many bytes.
    pub(super) fn with_pages(offload: Offload, budget: Arc<Budget>, page: usize) -> Self {
        let shelf = Arc::new(Mutex::new(Shelf::new(budget.limit())));
        Self { offload, budget, page, shelf }
    }

    /// A page of an answer. Before version 3, all of it.
    ///
    /// # Errors
    /// When callers keep too much in memory already.
    pub(super) async fn answer(
        &self,
        namespace: Namespace,
        dialect: Dialect,
        form: Form,
        reading: Reading,
    ) -> Result<Arc<Encoded>, DiscoveryError> {
        self.slot(Question::of(namespace, dialect, form, &reading), reading).await
    }

    fn slot(&self, question: Question, reading: Reading) -> Answer {
        let found = self.shelf().get(&question, Instant::now());
        if let Some(answer) = found {
            return answer;
        }
        let room = self.room_beside(&question);
        let answer = self.encode(question.clone(), reading);
        match room {
            Some(room) => self.shelf().put(question, answer, room, Instant::now()),
            // It is made all the same, for this one caller.
            None => answer,
        }
    }

    /// Room for what an answer takes that is kept, besides its bytes.
    fn room_beside(&self, question: &Question) -> Option<Reservation> {
        room(&self.shelf, &self.budget, &question.namespace, SLOT + question.query.bytes())
    }

    fn encode(&self, question: Question, reading: Reading) -> Answer {
        let (offload, budget, shelf) = (self.offload.clone(), Arc::clone(&self.budget), Arc::clone(&self.shelf));
        let page = (question.dialect.version >= Version::V3).then_some(self.page);
        let work = move || {
            let encoded = make(&question, &reading, page, &shelf, &budget)?;
            lock(&shelf).made(&question, encoded.len());
            Ok(Arc::new(encoded))
        };
        async move { offload.run(work).await? }.boxed().shared()
    }

    /// Does other work that takes longer than a moment.
    pub(super) fn offload(&self) -> &Offload {
        &self.offload
    }

    /// Drops what nobody asked for lately.
    pub(crate) fn tidy(&self) {
        self.shelf().tidy(Instant::now());
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.shelf)
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // Nothing can panic between two related changes of it.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes an answer, or a page of so many bytes.
fn make(
    question: &Question,
    reading: &Reading,
    page: Option<usize>,
    shelf: &Mutex<Shelf>,
    budget: &Arc<Budget>,
) -> Result<Encoded, DiscoveryError> {
    let sheet = Sheet { dialect: question.dialect, form: question.form, cut: &reading.cut };
    let (written, room) = match page {
        Some(page) => {
            let room = reserve(shelf, budget, &question.namespace, page.min(reading.moment.snapshot().bytes()))?;
            (sheet.write(reading.instances(), page), room)
        }
        None => {
            let all: Vec<_> = reading.instances().collect();
            let estimate = all.iter().map(|instance| instance.bytes()).sum();
            let room = reserve(shelf, budget, &question.namespace, estimate)?;
            (sheet.write(all.into_iter(), usize::MAX), room)
        }
    };
    let chunks = written.map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        DiscoveryError::ShuttingDown
    })?;
    Ok(Encoded::new(question.form, chunks, room))
}

/// Takes room for an answer.
fn reserve(
    shelf: &Mutex<Shelf>,
    budget: &Arc<Budget>,
    namespace: &Namespace,
    bytes: usize,
) -> Result<Reservation, DiscoveryError> {
    // The second try is the one that counts as a refusal.
    room(shelf, budget, namespace, bytes).map_or_else(|| budget.reserve(namespace, bytes), Ok)
}

/// Takes room, if there is some. What is only kept for the next one who asks gives way.
fn room(shelf: &Mutex<Shelf>, budget: &Arc<Budget>, namespace: &Namespace, bytes: usize) -> Option<Reservation> {
    budget.try_reserve(namespace, bytes).or_else(|| {
        lock(shelf).clear(namespace);
        budget.try_reserve(namespace, bytes)
    })
}
