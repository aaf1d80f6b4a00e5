//! The lists that a template asks for, followed from the first time on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt, stream::SelectAll};
use roundsman::{Changes, Discovery, Instance, Query, Resolver, ServiceName};

use crate::{commands::note, exit::Failure};

/// What a template can ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Service(ServiceName),
    Everything,
}

/// What is known of it.
pub(super) type Known = BTreeMap<Asked, Vec<Arc<Instance>>>;

#[derive(Debug)]
pub(super) struct Lists {
    discovery: Discovery,
    /// Resolvers, and not watches: they keep the last list while no server is there, and who is missing when one comes back
    /// that has lost its memory.
    followed: BTreeMap<Asked, Resolver>,
    changes: SelectAll<Changes>,
}

// === impl Lists ===

impl Lists {
    pub(super) fn new(discovery: Discovery) -> Self {
        Self { discovery, followed: BTreeMap::new(), changes: SelectAll::new() }
    }

    pub(super) fn discovery(&self) -> Discovery {
        self.discovery.clone()
    }

    pub(super) fn known(&self) -> Known {
        self.followed.iter().map(|(asked, resolver)| (asked.clone(), resolver.instances().to_vec())).collect()
    }

    /// Follows these as well, once their first lists are there; tells whether that was news.
    pub(super) async fn follow(&mut self, asked: BTreeSet<Asked>) -> Result<bool, Failure> {
        let mut news = false;
        let mut empty = Vec::new();
        for asked in asked {
            if self.followed.contains_key(&asked) {
                continue;
            }
            let query = match &asked {
                Asked::Service(name) => Query::service(name.clone()),
                Asked::Everything => Query::default(),
            };
            let resolver = self.discovery.resolver_for(query).even_if_unknown().keep_missing().await?;
            if let Asked::Service(name) = &asked
                && resolver.instances().is_empty()
            {
                empty.push(name.clone());
            }
            self.changes.push(resolver.changes());
            self.followed.insert(asked, resolver);
            news = true;
        }
        self.tell_of_strangers(&empty).await;
        Ok(news)
    }

    /// Says of these which are no names of services at all, once for each. Those may be typing errors.
    async fn tell_of_strangers(&self, empty: &[ServiceName]) {
        if empty.is_empty() {
            return;
        }
        // Without an answer nobody knows, and the list is as good as it was.
        let Ok(services) = self.discovery.services().await else { return };
        for name in empty.iter().filter(|name| !services.iter().any(|service| service.name == **name)) {
            note(&format!(
                "nobody has the name `{name}`, for which the template asks: its list is empty until somebody has (see `roundsman \
                 list` for the names that there are)"
            ));
        }
    }

    /// Returns when one of them has changed. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            // Nothing is followed: a template may ask for nobody.
            std::future::pending::<()>().await;
        }
    }
}
