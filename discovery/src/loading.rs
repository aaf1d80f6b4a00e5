//! Loading the store: for as long as it takes, unless waiting cannot help.

use std::time::Duration;

use roundsman_store::{Snapshot, Store, StoreError};
use tokio::time::sleep;

use crate::{error::ServeError, store_state::StoreState};

/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Everything that the store holds.
///
/// # Errors
/// When the store is not ours, damaged or from a newer version. One that does not answer is asked again.
pub(crate) async fn load(store: &dyn Store, state: &StoreState) -> Result<Snapshot, ServeError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match store.load().await {
            Ok(snapshot) => {
                state.answered();
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
