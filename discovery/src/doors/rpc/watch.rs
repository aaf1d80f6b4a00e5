//! How a watch is answered: at once, shared with others, or later.

use futures::future::FutureExt;
use roundsman_protocol::{DiscoveryError, DiscoveryResponse};

use super::{
    answer::{Answered, Desk, Scribe, answer, now, work},
    calls::{Kind, Later},
    encoded::Form,
    frame::Outgoing,
};
use crate::api::{Listing, News, Watch};

/// Answers with more changes are written where nobody else waits for it.
const FEW: usize = 256;

// === impl Desk ===

impl Desk {
    pub(super) fn watch(&self, id: u64, watched: Result<Watch, DiscoveryError>) -> Answered {
        let scribe = self.scribe();
        match watched {
            Err(error) => now(id, DiscoveryResponse::Watch(Err(error))),
            Ok(Watch::Now(News::Update(update))) => now(id, DiscoveryResponse::Watch(Ok(update))),
            Ok(Watch::Now(News::Snapshot(listing))) if listing.is_small() => {
                now(id, DiscoveryResponse::Watch(listing.update()))
            }
            Ok(Watch::Now(news)) => work(async move { scribe.told(id, news).await }),
            Ok(Watch::Later(waiting)) => Answered::Later(Later {
                kind: Kind::Watch,
                call: Box::new(move |stop| {
                    let told = async move {
                        match waiting.run(stop).await {
                            Ok(news) => scribe.told(id, news).await,
                            Err(error) => answer(id, DiscoveryResponse::Watch(Err(error))),
                        }
                    };
                    told.boxed()
                }),
            }),
        }
    }
}

// === impl Scribe ===

impl Scribe {
    async fn told(&self, id: u64, news: News) -> Outgoing {
        match news {
            News::Update(update) if update.instances.len() > FEW => {
                self.aside(id, DiscoveryResponse::Watch(Ok(update))).await
            }
            News::Update(update) => answer(id, DiscoveryResponse::Watch(Ok(update))),
            News::Snapshot(listing) if listing.is_small() => {
                answer(id, DiscoveryResponse::Watch(Listing::update(listing)))
            }
            News::Snapshot(listing) => self.shared(id, Form::Watch, listing).await,
        }
    }
}
