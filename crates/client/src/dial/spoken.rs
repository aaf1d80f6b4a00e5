//! What servers spoke when they were met last.

use std::{collections::HashMap, sync::Arc, time::Duration};

use roundsman_protocol::Version;
use tokio::time::Instant;

/// For so long it counts that a server let in only those who said an older version first. One that was upgraded
/// meanwhile picks the newest all the same, unless it is one of those itself.
pub(super) const FRESH: Duration = Duration::from_secs(600);

/// Which version to say first to servers that know of no range: they let in only who says theirs.
#[derive(Debug, Default)]
pub(crate) struct Spoken(HashMap<Arc<str>, (Version, Instant)>);

// === impl Spoken ===

impl Spoken {
    /// The versions to say, the one that is most likely right first.
    pub(crate) fn order(&self, server: &str) -> Vec<Version> {
        let known = self.0.get(server).filter(|(_, since)| since.elapsed() < FRESH).map(|(version, _)| *version);
        let others = Version::ALL.into_iter().filter(|version| Some(*version) != known);
        known.into_iter().chain(others).collect()
    }

    /// This server let us in when we said this version.
    pub(crate) fn note(&mut self, server: &Arc<str>, version: Version) {
        if version == Version::CURRENT {
            self.0.remove(server);
        } else if self.order(server).first() != Some(&version) {
            self.0.insert(Arc::clone(server), (version, Instant::now()));
        }
    }
}
