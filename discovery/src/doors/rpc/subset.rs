//! How lists and watches of a subset are answered: with few instances, for one client each.

use futures::future::FutureExt;
use roundsman_protocol::{Bookmark, Cursor, DiscoveryResponse, Known, Query, rpc::Wait};

use super::{
    answer::{Answered, Desk, Scribe, answer, now, work},
    calls::{Kind, Later},
    frame::Outgoing,
};

/// Answers with more instances are written where nobody else waits for it.
const FEW: usize = 64;

/// What a watch says besides its query.
pub(super) struct Asked {
    pub(super) after: Option<Cursor>,
    pub(super) wait: Wait,
    pub(super) known: Option<Known>,
    pub(super) page: Option<Bookmark>,
}

// === impl Desk ===

impl Desk {
    pub(super) fn list_subset(&mut self, id: u64, query: Query, after: Option<Bookmark>) -> Answered {
        let listed = match self.api.list_subset(query, after) {
            Ok(listed) => listed,
            Err(error) => return now(id, DiscoveryResponse::List(Err(error))),
        };
        let scribe = self.scribe();
        work(async move {
            let page = listed.await;
            let many = page.as_ref().is_ok_and(|page| page.instances.len() > FEW);
            scribe.written(id, many, DiscoveryResponse::List(page)).await
        })
    }

    pub(super) fn watch_subset(&mut self, id: u64, query: Query, asked: Asked) -> Answered {
        let Asked { after, wait, known, page } = asked;
        let following = match self.api.watch_subset(query, after, wait, known, page) {
            Ok(following) => following,
            Err(error) => return now(id, DiscoveryResponse::Watch(Err(error))),
        };
        let scribe = self.scribe();
        let call = Box::new(move |stop| {
            let told = async move {
                let update = following.run(stop).await;
                let many = update.as_ref().is_ok_and(|update| update.instances.len() > FEW);
                scribe.written(id, many, DiscoveryResponse::Watch(update)).await
            };
            told.boxed()
        });
        Answered::Later(Later { kind: Kind::Watch, call })
    }
}

// === impl Scribe ===

impl Scribe {
    async fn written(&self, id: u64, many: bool, response: DiscoveryResponse) -> Outgoing {
        if many { self.aside(id, response).await } else { answer(id, response) }
    }
}
