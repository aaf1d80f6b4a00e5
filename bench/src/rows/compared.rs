//! What is measured on this release and, where one is named, on an older one: load and attacks, and what grows.
//!
//! All of load and attacks speaks JSON behind a handshake of version 1, which both understand.

mod attacks;
mod comeback;
mod eye;
mod frozen;
mod hanging;
mod listing;
mod queries;
mod restart;
mod steady;
mod victims;

use std::path::Path;

use futures::future::BoxFuture;

use super::{growth, start};
use crate::{
    error::Result,
    plan::Plan,
    report::{self, Row},
    server,
};

/// A measurement, made on the release at that path, or on the one beside this program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Hanging,
    Restart,
    Listing,
    Queries,
    Attacks,
    Comeback,
    Frozen,
    Start,
    Change,
    Namespaces,
    Busy,
    Wide,
    Snapshots,
    Digests,
}

// === impl Part ===

impl Part {
    /// Now and, side by side with it, before.
    pub(super) async fn measure(self, plan: &Plan) -> Result<Vec<Row>> {
        let before = match server::compared_with() {
            Some(program) => {
                report::say(&format!("  with {} …", program.display()));
                self.on(plan, Some(program)).await.map_err(|error| error.to_string())
            }
            None => Ok(Vec::new()),
        };
        let now = self.on(plan, None).await?;
        Ok(now.into_iter().map(|row| row.compare(&before)).collect())
    }

    fn on<'a>(self, plan: &'a Plan, program: Option<&'a Path>) -> BoxFuture<'a, Result<Vec<Row>>> {
        match self {
            Self::Hanging => Box::pin(hanging::measure(plan, program)),
            Self::Restart => Box::pin(restart::measure(plan, program)),
            Self::Listing => Box::pin(listing::measure(plan, program)),
            Self::Queries => Box::pin(queries::measure(plan, program)),
            Self::Attacks => Box::pin(attacks::measure(plan, program)),
            Self::Comeback => Box::pin(comeback::measure(plan, program)),
            Self::Frozen => Box::pin(frozen::measure(plan, program)),
            Self::Start => Box::pin(start::measure(plan, program)),
            Self::Change => Box::pin(growth::change::measure(plan, program)),
            Self::Namespaces => Box::pin(growth::namespaces::measure(plan, program)),
            Self::Busy => Box::pin(growth::busy::measure(plan, program)),
            Self::Wide => Box::pin(growth::wide::measure(plan, program)),
            Self::Snapshots => Box::pin(growth::snapshots::measure(plan, program)),
            Self::Digests => Box::pin(growth::digests::measure(plan, program)),
        }
    }
}
