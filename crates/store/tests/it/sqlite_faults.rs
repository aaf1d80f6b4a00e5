//! SQLite when the file is not what it should be, or the disk is not.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use roundsman_registry::Change;
use roundsman_store::{StoreError, StoreUrl};

use crate::{
    disk::SmallDisk,
    records::{
        again, asked, assert_holds, eventually, loaded, now, open, put, record, remove, shared, unavailable, unusable,
    },
    sqlite::Folder,
};

/// Every file of a folder, with its contents.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.display().to_string(), fs::read(&path).unwrap_or_default())).collect()
}

/// Loads a store from this file, which must be refused and left alone.
async fn refused(folder: &Folder) -> String {
    let before = contents(folder.dir.path());
    let store = folder.store();
    let message = unusable(store.load().await);
    unusable(store.commit(&[put(&record("product", 1))], &[]).await);
    drop(store);
    assert_eq!(contents(folder.dir.path()), before, "{message}");
    assert!(message.contains(&folder.file.display().to_string()) && !message.contains('\n'), "{message}");
    message
}

/// A file of ours with some records, closed in good order.
async fn stored(records: u32) -> Folder {
    let folder = Folder::new();
    let batch: Vec<_> = (1..=records).map(|n| put(&record("product", n))).collect();
    folder.store().commit(&batch, &[]).await.unwrap();
    assert_eq!(contents(folder.dir.path()).len(), 2, "closing leaves the file and the reserve");
    folder
}

fn overwrite(file: &Path, at: usize, with: &[u8]) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at..at + with.len()].copy_from_slice(with);
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn what_is_no_sqlite_file_is_left_alone() {
    let folder = Folder::new();
    for text in ["x", "[server]\nlisten = \"127.0.0.1:80\"\n", &"SQLite format 2\0".repeat(100)] {
        fs::write(&folder.file, text).unwrap();
        assert!(refused(&folder).await.contains("no SQLite file"));
    }
}

#[tokio::test]
async fn files_of_other_programs_are_left_alone() {
    for setup in [
        "CREATE TABLE instances (name)",
        "PRAGMA application_id = 7; VACUUM",
        "PRAGMA journal_mode = wal; CREATE TABLE t (a)",
    ] {
        let folder = Folder::new();
        let theirs = rusqlite::Connection::open(&folder.file).unwrap();
        theirs.execute_batch(setup).unwrap();
        drop(theirs);
        assert!(refused(&folder).await.contains("another program"), "{setup}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_left_alone_and_both_versions_are_named() {
    let folder = stored(1).await;
    let newer = rusqlite::Connection::open(&folder.file).unwrap();
    newer.execute_batch("PRAGMA user_version = 23").unwrap();
    drop(newer);
    let message = refused(&folder).await;
    assert!(message.contains("schema is 23") && message.contains("knows 4"), "{message}");
}

#[tokio::test]
async fn damaged_pages_are_noticed() {
    let folder = stored(500).await;
    // Beyond the first pages, which are the history's.
    overwrite(&folder.file, 20 * 4_096, &[0xa5; 2 * 4_096]);
    assert!(refused(&folder).await.contains("damaged"));
}

#[tokio::test]
async fn a_truncated_file_is_noticed() {
    let folder = stored(500).await;
    let bytes = fs::read(&folder.file).unwrap();
    for len in [bytes.len() / 2, 4_096, 512, 99] {
        fs::write(&folder.file, &bytes[..len]).unwrap();
        let message = refused(&folder).await;
        assert!(message.contains("damaged") || message.contains("no SQLite file"), "{len}: {message}");
    }
}

#[tokio::test]
async fn a_file_without_our_table_or_one_of_its_columns_is_noticed() {
    for sql in ["DROP TABLE instances", "ALTER TABLE instances DROP COLUMN meta"] {
        let folder = stored(1).await;
        let somebody = rusqlite::Connection::open(&folder.file).unwrap();
        somebody.execute_batch(sql).unwrap();
        drop(somebody);
        assert!(refused(&folder).await.contains("damaged"), "{sql}");
    }
}

#[tokio::test]
async fn folders_and_missing_folders_are_named() {
    let folder = Folder::new();
    fs::create_dir(&folder.file).unwrap();
    assert!(refused(&folder).await.contains("is not a file"));

    let missing: StoreUrl = format!("sqlite:{}/no/such/r.db", folder.dir.path().display()).parse().unwrap();
    let message = unusable(open(&missing).load().await);
    assert!(message.contains("no/such does not exist"), "{message}");

    let through: StoreUrl = "sqlite:/proc/version/r.db".parse().unwrap();
    unusable(open(&through).load().await);
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_refused() {
    let folder = Folder::new();
    let (first, second) = (folder.store(), folder.store());
    first.load().await.unwrap();
    let message = unusable(second.load().await);
    assert!(message.ends_with("is in use by another server"), "{message}");
    let record = record("product", 1);
    first.commit(&[put(&record)], &[]).await.unwrap();
    drop(first);
    assert_holds(loaded(&second).await, &[&record]);
}

#[tokio::test]
async fn a_file_that_is_deleted_under_a_running_server_is_a_loss_and_is_refilled() {
    let folder = Folder::new();
    let store = folder.store();
    let (a, b) = (record("product", 1), record("product", 2));
    store.commit(&[put(&a)], &[]).await.unwrap();
    for beside in contents(folder.dir.path()).keys() {
        fs::remove_file(beside).unwrap();
    }
    assert!(matches!(store.probe().await, Err(StoreError::GenerationLost)));
    assert!(matches!(store.commit(&[put(&b)], &[]).await, Err(StoreError::GenerationLost)));
    assert!(matches!(store.load().await, Err(StoreError::GenerationLost)));
    assert!(!folder.file.exists());
    store.refill(&shared(&[a.clone(), b.clone()]), &[]).await.unwrap();
    store.probe().await.unwrap();
    drop(store);
    assert_holds(loaded(&folder.store()).await, &[&a, &b]);
}

#[tokio::test]
async fn a_refill_that_fails_leaves_the_store_lost() {
    let folder = Folder::new();
    let file = folder.dir.path().join("sub/r.db");
    fs::create_dir(folder.dir.path().join("sub")).unwrap();
    let store = open(&StoreUrl::sqlite(&file));
    let a = record("product", 1);
    store.commit(&[put(&a)], &[]).await.unwrap();
    fs::remove_dir_all(folder.dir.path().join("sub")).unwrap();
    unusable(store.refill(&shared(std::slice::from_ref(&a)), &[]).await);
    assert!(matches!(store.probe().await, Err(StoreError::GenerationLost)));
    fs::create_dir(folder.dir.path().join("sub")).unwrap();
    if let Some(disk) = SmallDisk::mount_on(&folder.dir.path().join("sub")) {
        disk.fill();
        assert_eq!(unavailable(store.refill(&shared(std::slice::from_ref(&a)), &[]).await), "the disk is full");
        assert!(matches!(store.probe().await, Err(StoreError::GenerationLost)));
        disk.make_room();
        store.refill(&shared(std::slice::from_ref(&a)), &[]).await.unwrap();
        assert_holds(loaded(&store).await, &[&a]);
    } else {
        store.refill(&shared(std::slice::from_ref(&a)), &[]).await.unwrap();
        assert_holds(loaded(&store).await, &[&a]);
    }
}

#[tokio::test]
async fn a_lock_held_by_another_program_is_waited_for_and_then_told() {
    let folder = Folder::new();
    let store = folder.store();
    store.load().await.unwrap();
    let person = rusqlite::Connection::open(&folder.file).unwrap();
    person.execute_batch("BEGIN IMMEDIATE").unwrap();
    let reason = unavailable(store.commit(&[put(&record("product", 1))], &[]).await);
    assert_eq!(reason, "the file is locked by another program");
    person.execute_batch("COMMIT").unwrap();
    store.commit(&[put(&record("product", 1))], &[]).await.unwrap();
}

fn many() -> Vec<Change> {
    (2..2_000).map(|n| put(&record("product", n))).collect()
}

#[tokio::test]
async fn a_disk_that_fills_up_loses_nothing_and_heals() {
    let Some(disk) = SmallDisk::mount() else { return };
    let url = StoreUrl::sqlite(disk.path().join("r.db"));
    let store = open(&url);
    let kept = record("product", 1);
    store.commit(&[put(&kept)], &[]).await.unwrap();
    disk.fill();
    for _ in 0..3 {
        assert_eq!(unavailable(store.commit(&many(), &[]).await), "the disk is full");
    }
    assert_holds(loaded(&store).await, &[&kept]);
    disk.make_room();
    let after = record("order", 1);
    store.commit(&[put(&after)], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&kept, &after]);
    // Also for a server that starts on the full disk.
    drop(store);
    disk.fill();
    let store = open(&url);
    match store.load().await {
        Ok(snapshot) => assert_holds(snapshot.records, &[&kept, &after]),
        error => assert_eq!(unavailable(error), "the disk is full"),
    }
    disk.make_room();
    assert_holds(loaded(&store).await, &[&kept, &after]);
}

/// Registrations wait for room, removals do not: also for a server that starts anew on the full disk.
#[tokio::test]
async fn a_full_disk_takes_removals_and_drains() {
    let Some(disk) = SmallDisk::mount() else { return };
    let url = StoreUrl::sqlite(disk.path().join("r.db"));
    let all: Vec<_> = (1..=300).map(|n| record("product", n)).collect();
    let store = open(&url);
    store.commit(&all.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
    assert!(disk.path().join("r.db.reserve").exists());
    disk.fill();
    let (gone, kept) = all.split_at(200);
    for (n, record) in gone.iter().enumerate() {
        if n == 100 {
            assert_eq!(unavailable(store.commit(&many(), &[]).await), "the disk is full");
        }
        store.commit_from_reserve(&[remove(record)], &[]).await.unwrap();
    }
    let drained = kept[0].drained(true, kept[0].asked.version + 1, now());
    store.commit_from_reserve(&[asked(&drained, &kept[0])], &[]).await.unwrap();
    let mut expected = vec![&drained];
    expected.extend(&kept[1..]);
    assert_holds(loaded(&store).await, &expected);
    drop(store);
    disk.fill_up();
    let store = open(&url);
    assert_holds(loaded(&store).await, &expected);
    store.commit_from_reserve(&[remove(expected.pop().unwrap())], &[]).await.unwrap();
    disk.make_room();
    let back = again(&gone[0]);
    eventually("there is room for registrations", async || store.commit(&[put(&back)], &[]).await.ok()).await;
    expected.push(&back);
    assert_holds(loaded(&store).await, &expected);
    assert!(fs::metadata(disk.path().join("r.db.reserve")).unwrap().len() >= 256 << 10, "made again");
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_heals() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = open(&StoreUrl::sqlite(disk.path().join("r.db")));
    // Before anything is open for writing, or the kernel would not remount it.
    disk.remount("ro");
    assert!(unavailable(store.load().await).contains("read-only"));
    disk.remount("rw");
    store.commit(&[put(&record("product", 1))], &[]).await.unwrap();
    drop(store);
    disk.remount("ro");
    let store = open(&StoreUrl::sqlite(disk.path().join("r.db")));
    assert!(unavailable(store.load().await).contains("read-only"));
    disk.remount("rw");
    assert_eq!(loaded(&store).await.len(), 1);
}

/// For root permissions mean nothing, for everybody else the disk above cannot be mounted: one of both runs.
#[tokio::test]
async fn a_file_without_permission_to_write_is_told() {
    let folder = stored(1).await;
    fs::set_permissions(&folder.file, fs::Permissions::from_mode(0o444)).unwrap();
    let writable = fs::OpenOptions::new().write(true).open(&folder.file).is_ok();
    let result = folder.store().load().await;
    if writable {
        assert_eq!(result.unwrap().records.len(), 1);
    } else {
        assert!(unavailable(result).contains("read-only"));
    }
}
