//! Loading the store: for as long as it takes, unless waiting cannot help.

use std::time::Duration;

use roundsman_store::{Aside, Damage, Snapshot, Store, StoreError};
use tokio::time::sleep;

use crate::{error::ServeError, store_state::StoreState};

/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Everything that the store holds.
///
/// # Errors
/// When the store is not ours, damaged as a whole or from a newer version; when `strict`, also for single records that
/// cannot be read, which are set aside otherwise. One that does not answer is asked again.
pub(crate) async fn load(store: &dyn Store, state: &StoreState, strict: bool) -> Result<Snapshot, ServeError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match store.load().await {
            Ok(snapshot) => {
                state.answered();
                if let Some(first) = snapshot.damaged.first() {
                    if strict {
                        return Err(refused(store, snapshot.damaged.len(), first));
                    }
                    let aside = store.set_aside().await.unwrap_or_else(|error| not_moved(&error));
                    state.damaged(&snapshot.damaged, &aside);
                }
                return Ok(snapshot);
            }
            Err(error @ StoreError::Unusable(_)) => {
                return Err(ServeError::Store { location: store.describe().location, reason: error.to_string() });
            }
            Err(error) => state.failed(&error),
        }
        sleep(pause + pause.mul_f64(fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn refused(store: &dyn Store, count: usize, first: &Damage) -> ServeError {
    let Damage { what, reason } = first;
    let reason = format!(
        "{count} of its records cannot be read (the first is {what}: {reason}); mend or delete them, or start without \
         --strict, which moves them aside and goes on with the others"
    );
    ServeError::Store { location: store.describe().location, reason }
}

fn not_moved(error: &StoreError) -> Aside {
    Aside { left: Some(error.to_string()), ..Aside::default() }
}
