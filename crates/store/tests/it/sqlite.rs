//! SQLite when all is well.

use std::{path::PathBuf, sync::Arc};

use futures::{FutureExt, StreamExt};
use roundsman_registry::Health;
use roundsman_store::{Position, Store, StoreUrl};
use tempfile::TempDir;

use crate::records::{assert_holds, flipped, loaded, now, open, put, record};

/// A folder for a file.
pub(crate) struct Folder {
    pub(crate) dir: TempDir,
    pub(crate) file: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A name with what means something in a URI.
        let file = dir.path().join("round%20s?man #1.db");
        Self { dir, file }
    }

    pub(crate) fn url(&self) -> StoreUrl {
        format!("sqlite:{}", self.file.display()).parse().unwrap()
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        open(&self.url())
    }
}

crate::contract::contract!(Folder::new());

#[tokio::test]
async fn nothing_happens_on_the_disk_before_it_is_loaded() {
    let folder = Folder::new();
    let store = folder.store();
    assert_eq!(store.describe().kind, "sqlite");
    assert!(!folder.file.exists());
    store.load().await.unwrap();
    assert!(folder.file.exists());
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let folder = Folder::new();
    let live = record("product", 1);
    let evicted = flipped(&record("product", 2), Health::Evicted, "503 in 12 ms", now());
    let store = folder.store();
    store.commit(&[put(&live), put(&evicted)], &[]).await.unwrap();
    drop(store);
    assert_holds(loaded(&folder.store()).await, &[&live, &evicted]);
}

/// What a process that was killed leaves: the file and the log as they were after the last acknowledged commit.
#[tokio::test]
async fn everything_acknowledged_is_there_after_a_crash() {
    let (folder, crashed) = (Folder::new(), Folder::new());
    let store = folder.store();
    let all: Vec<_> = (1..=200).map(|n| record("product", n)).collect();
    for record in &all {
        store.commit(&[put(record)], &[]).await.unwrap();
    }
    for suffix in ["", "-wal"] {
        let name = |file: &PathBuf| format!("{}{suffix}", file.display());
        std::fs::copy(name(&folder.file), name(&crashed.file)).unwrap();
    }
    assert_holds(loaded(&crashed.store()).await, &all.iter().collect::<Vec<_>>());
    assert_holds(loaded(&store).await, &all.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_person_reads_it_while_the_server_runs() {
    let folder = Folder::new();
    let store = folder.store();
    store.commit(&[put(&flipped(&record("product", 1), Health::Passing, "", now()))], &[]).await.unwrap();
    let person = rusqlite::Connection::open(&folder.file).unwrap();
    let row = person
        .query_row("SELECT name, address, health, status, weight + 1 FROM instances", [], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, String>(3)?,
                row.get::<_, u32>(4)?,
            ))
        })
        .unwrap();
    assert_eq!(row, ("product".into(), "10.0.0.1:7070".into(), "/health".into(), "passing".into(), 2));
    store.commit(&[put(&record("product", 2))], &[]).await.unwrap();
}

#[tokio::test]
async fn nobody_else_changes_it() {
    let store = Folder::new().store();
    assert!(store.changes(Position::default()).next().now_or_never().is_none());
}

#[tokio::test]
async fn many_records_are_handed_over_while_the_file_is_read() {
    let folder = Folder::new();
    let store = folder.store();
    let all: Vec<_> = (1..=20_000).map(|n| record("product", n)).collect();
    store.commit(&all.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
    let (parts, mut received) = tokio::sync::mpsc::channel(1);
    let taking = async {
        let mut taken = Vec::new();
        while let Some(part) = received.recv().await {
            taken.extend(part);
        }
        taken
    };
    let (snapshot, mut taken) = tokio::join!(store.load_in_parts(parts), taking);
    assert!(!taken.is_empty());
    taken.extend(snapshot.unwrap().records);
    assert_holds(taken, &all.iter().collect::<Vec<_>>());
    // What nobody takes stays in the snapshot.
    let (parts, received) = tokio::sync::mpsc::channel(1);
    drop(received);
    assert_eq!(store.load_in_parts(parts).await.unwrap().records.len(), all.len());
}
