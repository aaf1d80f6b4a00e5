//! Loading the store: for as long as it takes, unless waiting cannot help.

use std::{sync::Arc, time::Duration};

use roundsman_registry::{Loaded as Taken, Loading, Record, Registry, Tombstone};
use roundsman_store::{Aside, Damage, Durable, Position, Snapshot, StoreError};
use tokio::{sync::mpsc, time::sleep};

use crate::{error::ServeError, store_state::StoreState};

/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many parts of the records may wait while those before are taken in.
const PARTS: usize = 4;

/// What was loaded: the records as the registry has them, and where to listen for what comes after.
pub(crate) struct Loaded {
    pub(crate) records: Vec<Arc<Record>>,
    /// Records that lie in the store, and whose address belongs to another one.
    pub(crate) ghosts: Vec<Arc<Record>>,
    /// What was removed lately, before this server started.
    pub(crate) removed: Vec<Tombstone>,
    pub(crate) position: Position,
}

/// Has the registry take in everything that the store holds, while it is read.
///
/// # Errors
/// When the store is not ours, damaged as a whole or from a newer version; when `strict`, also for single records that
/// cannot be read, which are set aside otherwise. One that does not answer is asked again.
pub(crate) async fn load(
    store: &dyn Durable,
    registry: &Registry,
    state: &StoreState,
    strict: bool,
) -> Result<Loaded, ServeError> {
    let (mut pause, mut loading) = (FIRST_PAUSE, registry.loading());
    loop {
        match load_once(store, &mut loading).await {
            Ok(snapshot) => {
                state.answered();
                if let Some(first) = snapshot.damaged.first() {
                    if strict {
                        return Err(refused(store, snapshot.damaged.len(), first));
                    }
                    let aside = store.set_aside().await.unwrap_or_else(|error| not_moved(&error));
                    state.damaged(&snapshot.damaged, &aside);
                }
                let Taken { records, ghosts } = loading.finish();
                return Ok(Loaded { records, ghosts, removed: snapshot.removed, position: snapshot.position });
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

/// One try. What it took in before it failed is there once more with the next one, which makes no difference.
async fn load_once(store: &dyn Durable, loading: &mut Loading<'_>) -> Result<Snapshot, StoreError> {
    let (parts, mut received) = mpsc::channel(PARTS);
    let reading = store.load_in_parts(parts);
    let taking_in = async {
        while let Some(part) = received.recv().await {
            loading.add(part);
        }
    };
    let (snapshot, ()) = tokio::join!(reading, taking_in);
    let mut snapshot = snapshot?;
    loading.add(std::mem::take(&mut snapshot.records));
    Ok(snapshot)
}

fn refused(store: &dyn Durable, count: usize, first: &Damage) -> ServeError {
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
