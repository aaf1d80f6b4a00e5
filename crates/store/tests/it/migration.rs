//! Files that earlier releases wrote. The ones here came from their binaries, not from today's code.

use std::{fs, path::Path};

use roundsman_protocol::{Expect, InstanceStatus};
use roundsman_registry::{Health, Record};
use roundsman_store::StoreUrl;

use crate::{
    disk::SmallDisk,
    records::{loaded, now, open, put, record, unavailable},
    sqlite::Folder,
};

/// What each release left behind: the first 0.1, and the last one whose schema is 1, in which checks may expect an
/// identity.
const FILES: [&str; 2] = ["sqlite-0.1.db", "sqlite-0.1-late.db"];

/// Puts the file there as if it had been written a moment ago: in the meantime, probations would be over.
fn put_file(name: &str, place: &Path) {
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name), place).unwrap();
    let file = rusqlite::Connection::open(place).unwrap();
    let until = now().plus(std::time::Duration::from_secs(3_600)).to_string();
    let sql = "UPDATE instances SET evicted_until = ?1 WHERE evicted_until IS NOT NULL";
    assert_eq!(file.execute(sql, [until]).unwrap(), 2, "{name}");
}

fn find<'a>(records: &'a [Record], id: &str) -> &'a Record {
    let in_default = |record: &&Record| record.instance.namespace.as_str() == "default";
    let mut found = records.iter().filter(in_default).filter(|record| record.instance.id.as_str() == id);
    found.next().unwrap_or_else(|| panic!("{id} is missing"))
}

#[tokio::test]
async fn files_of_earlier_releases_are_served_with_everything_in_them() {
    for name in FILES {
        let folder = Folder::new();
        put_file(name, &folder.file);
        let store = folder.store();
        let snapshot = store.load().await.unwrap();
        assert!(snapshot.damaged.is_empty(), "{name}: {:?}", snapshot.damaged);
        let records = snapshot.records;
        assert_eq!(records.len(), if name.contains("late") { 8 } else { 7 }, "{name}");

        let full = &find(&records, "product-1").instance;
        assert_eq!(full.address.to_string(), "127.0.0.1:17070");
        assert_eq!(full.tags.iter().map(|tag| &**tag).collect::<Vec<_>>(), ["blue", "grün"]);
        assert_eq!((full.meta.get("region"), full.meta.get("owner")), (Some("eu"), Some("team \"a\"")));
        assert_eq!((full.zone.as_deref(), full.version.as_deref(), full.weight), (Some("zurich"), Some("1.2.3"), 7));
        assert_eq!((full.check.path(), full.status), (Some("/alive"), InstanceStatus::Passing));
        assert_eq!(find(&records, "product-1").flips().len(), 2, "{name}");

        let drained = find(&records, "product-3");
        assert!(drained.asked.draining && &*drained.instance.reason == "drained by request", "{name}: {drained:?}");
        for evicted in ["product-2", "order-1"] {
            assert_eq!(find(&records, evicted).observed.health, Health::Evicted, "{name}: {evicted}");
        }
        assert_eq!(find(&records, "gone-1").observed.health, Health::Starting);
        assert!(find(&records, "ttl-1").instance.check.ttl.is_some());
        let shop = records.iter().find(|record| record.instance.namespace.as_str() == "shop").unwrap();
        assert_eq!(shop.instance.address.to_string(), "[::1]:17070");
        if name.contains("late") {
            let expected = find(&records, "expecting-1").instance.check.expect.as_deref().cloned();
            assert_eq!(expected, Some(Expect::body("ok")));
        }

        // It is an ordinary file now, and was copied once.
        store.commit(&[put(&record("product", 9))], &[]).await.unwrap();
        drop(store);
        assert_eq!(loaded(&folder.store()).await.len(), records.len() + 1);
        let names = fs::read_dir(folder.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let copies: Vec<_> = names.filter(|path| path.display().to_string().contains(".before-")).collect();
        assert_eq!(copies.len(), 1, "{copies:?}");
        let copy = rusqlite::Connection::open(&copies[0]).unwrap();
        let sql = "SELECT count(*), (SELECT user_version FROM pragma_user_version) FROM instances";
        let found = copy.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(found, (i64::try_from(records.len()).unwrap(), 1), "the copy is as the file was");
    }
}

#[tokio::test]
async fn a_disk_without_room_for_the_copy_leaves_the_file_as_it_was() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.path().join("r.db");
    put_file(FILES[0], &path);
    // Too large for what room SQLite gets below.
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute(
        "UPDATE instances SET meta = ?1 WHERE id = 'gone-1'",
        [format!("{{\"k\":\"{}\"}}", "x".repeat(300_000))],
    )
    .unwrap();
    drop(file);
    disk.fill();
    let before = fs::read(&path).unwrap();
    let store = open(&StoreUrl::sqlite(&path));
    for room in [0, 128 << 10] {
        disk.make_some_room(room);
        let reason = unavailable(store.load().await);
        assert!(reason.starts_with("the disk is full"), "{reason}");
        assert!(room == 0 || reason.contains("r.db.before-4"), "there was room for all but the copy: {reason}");
        let names: Vec<_> = fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains("before")), "{names:?}");
    }
    assert!(fs::read(&path).unwrap() == before, "the file is as it was, byte for byte");
    disk.make_room();
    assert_eq!(loaded(&store).await.len(), 7);
}
