//! SQLite rows that cannot be read: left out, kept in a file beside the database, and nothing else is lost.

use std::{fs, path::PathBuf};

use roundsman_registry::Record;
use rusqlite::{Connection, types::Value as Sql};
use serde_json::Value;

use crate::{
    records::{assert_holds, loaded, put, record, remove},
    sqlite::Folder,
};

/// The columns that a record is restored from, and those for people.
const COLUMNS: [&str; 19] = [
    "name",
    "address",
    "health",
    "id",
    "namespace",
    "status",
    "reason",
    "since",
    "registered_at",
    "check",
    "tags",
    "meta",
    "zone",
    "version",
    "weight",
    "draining",
    "observed",
    "history",
    "evicted_until",
];

fn aside(folder: &Folder) -> PathBuf {
    PathBuf::from(format!("{}.damaged", folder.file.display()))
}

fn lines(folder: &Folder) -> Vec<Value> {
    let text = fs::read_to_string(aside(folder)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn stored(records: u32) -> (Folder, Vec<Record>) {
    let folder = Folder::new();
    let all: Vec<_> = (1..=records).map(|n| record("product", n)).collect();
    folder.store().commit(&all.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
    (folder, all)
}

fn sql(folder: &Folder, sql: &str) {
    Connection::open(&folder.file).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_damaged_row_is_moved_into_a_file_and_the_others_are_served() {
    let (folder, all) = stored(3).await;
    sql(&folder, "UPDATE instances SET meta = CAST(x'ff00' AS TEXT) WHERE id = 'product-2'");
    let store = folder.store();
    let snapshot = store.load().await.unwrap();
    assert_eq!(snapshot.damaged.len(), 1);
    let damage = &snapshot.damaged[0];
    assert!(damage.what == "row 2" && damage.reason.contains("`meta`"), "{damage:?}");
    assert_holds(snapshot.records, &[&all[0], &all[2]]);
    assert!(!aside(&folder).exists(), "loading changes nothing");
    // Not moved yet: it is found again.
    assert_eq!(store.load().await.unwrap().damaged.len(), 1);

    let moved = store.set_aside().await.unwrap();
    assert_eq!((moved.moved, moved.left), (1, None));
    assert_eq!(moved.place, aside(&folder).display().to_string());
    let line = &lines(&folder)[0];
    assert_eq!((&line["row"], &line["columns"]["id"]), (&2.into(), &"product-2".into()));
    assert_eq!(line["columns"]["meta"]["hex"], "ff00");
    assert_eq!((&line["columns"]["weight"], &line["columns"]["evicted_until"]), (&1.into(), &Value::Null));
    assert!(line["reason"].as_str().unwrap().contains("meta") && line["at"].is_string());

    // It may register again, and a second one goes into the same file.
    store.commit(&[put(&all[1])], &[]).await.unwrap();
    drop(store);
    sql(&folder, "UPDATE instances SET address = 'nowhere' WHERE id = 'product-1'");
    let store = folder.store();
    assert_holds(loaded(&store).await, &[&all[1], &all[2]]);
    assert_eq!(store.set_aside().await.unwrap().moved, 1);
    assert_eq!(lines(&folder).len(), 2);
    assert_eq!(store.load().await.unwrap().damaged, []);
}

#[tokio::test]
async fn without_a_safe_copy_a_damaged_row_stays_where_it_is() {
    let (folder, all) = stored(2).await;
    sql(&folder, "UPDATE instances SET observed = 'odd' WHERE id = 'product-2'");
    fs::create_dir(aside(&folder)).unwrap();
    let store = folder.store();
    assert_holds(loaded(&store).await, &[&all[0]]);
    let left = store.set_aside().await.unwrap();
    assert!(left.moved == 0 && left.left.unwrap().contains("cannot be written"));
    // Whoever has its id registers beside it, and what is damaged is still there.
    store.commit(&[put(&all[1])], &[]).await.unwrap();
    drop(store);
    let store = folder.store();
    let snapshot = store.load().await.unwrap();
    assert_holds(snapshot.records, &[&all[0], &all[1]]);
    assert_eq!(snapshot.damaged.len(), 1);
    // A line that a crash cut off does not swallow the next one.
    fs::remove_dir(aside(&folder)).unwrap();
    fs::write(aside(&folder), "{\"at\": \"20").unwrap();
    assert_eq!(store.set_aside().await.unwrap().moved, 1);
    let text = fs::read_to_string(aside(&folder)).unwrap();
    assert!(text.lines().nth(1).is_some_and(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    assert_eq!(store.load().await.unwrap().damaged, []);
}

/// A row that was copied by hand would stay behind when the other one is removed, and bring the instance back.
#[tokio::test]
async fn of_two_rows_with_the_same_id_one_is_set_aside() {
    let (folder, all) = stored(2).await;
    let columns = COLUMNS.map(|column| format!("\"{column}\"")).join(", ");
    sql(&folder, &format!("INSERT INTO instances ({columns}) SELECT {columns} FROM instances WHERE id = 'product-1'"));
    let store = folder.store();
    let snapshot = store.load().await.unwrap();
    assert!(snapshot.damaged[0].reason.contains("row 1 has the same"), "{:?}", snapshot.damaged);
    assert_eq!(store.set_aside().await.unwrap().moved, 1);
    store.commit(&[remove(&all[0])], &[]).await.unwrap();
    drop(store);
    assert_holds(loaded(&folder.store()).await, &[&all[1]]);
}

#[tokio::test]
async fn columns_that_are_not_ours_do_no_harm() {
    let (folder, all) = stored(2).await;
    sql(&folder, "ALTER TABLE instances ADD COLUMN remark TEXT");
    let store = folder.store();
    assert_holds(loaded(&store).await, &[&all[0], &all[1]]);
    store.commit(&[remove(&all[0])], &[]).await.unwrap();
    assert_holds(loaded(&store).await, &[&all[1]]);
}

#[tokio::test]
async fn whoever_is_not_evicted_is_not_dropped_for_what_its_probation_says() {
    let (folder, all) = stored(1).await;
    sql(&folder, "UPDATE instances SET evicted_until = '1970-01-01T00:00:00.000Z'");
    assert_holds(loaded(&folder.store()).await, &[&all[0]]);
}

/// A value that somebody else wrote, or a disk.
fn mutated(before: Sql, random: &mut fastrand::Rng) -> Sql {
    let bytes = match before {
        Sql::Text(text) => text.into_bytes(),
        Sql::Integer(number) => number.to_string().into_bytes(),
        _ => b"x".to_vec(),
    };
    let flipped = |random: &mut fastrand::Rng| {
        let mut bytes = bytes.clone();
        if !bytes.is_empty() {
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u32(..8);
        }
        bytes
    };
    match random.u8(..9) {
        0 => Sql::Null,
        1 => Sql::Integer(random.i64(..)),
        2 => Sql::Real(random.f64()),
        3 => Sql::Blob(bytes),
        4 => Sql::Text(String::new()),
        5 => Sql::Text("x".repeat(2_000_000)),
        6 => Sql::Text("[".repeat(100_000)),
        7 => Sql::Text(format!("\0{}", String::from_utf8_lossy(&bytes))),
        // Marked as text further down, whether it is or not.
        _ => Sql::Blob(flipped(random)),
    }
}

fn mutate(folder: &Folder, random: &mut fastrand::Rng) {
    let person = Connection::open(&folder.file).unwrap();
    for n in (1..=40).step_by(2) {
        let (id, column) = (format!("product-{n}"), COLUMNS[random.usize(..COLUMNS.len())]);
        let select = format!("SELECT \"{column}\" FROM instances WHERE id = ?1");
        let before: Sql = person.query_row(&select, [&id], |row| row.get(0)).unwrap();
        let as_text = if random.bool() { "CAST(?1 AS TEXT)" } else { "?1" };
        let update = format!("UPDATE instances SET \"{column}\" = {as_text} WHERE id = ?2");
        person.execute(&update, (mutated(before, random), &id)).unwrap();
    }
}

#[tokio::test]
async fn whatever_others_write_into_rows_the_good_ones_are_served() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (folder, all) = stored(40).await;
        sql(
            &folder,
            "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(replace(sql, ' STRICT', ''), \
             ' NOT NULL', '') WHERE name = 'instances'",
        );
        mutate(&folder, &mut random);
        let store = folder.store();
        let snapshot = store.load().await.unwrap();
        for good in all.iter().skip(1).step_by(2) {
            assert!(snapshot.records.contains(good), "seed {seed}: {} was lost", good.instance.id);
        }
        assert_eq!(snapshot.records.len() + snapshot.damaged.len(), 40, "seed {seed}");
        let moved = store.set_aside().await.unwrap();
        assert_eq!((moved.moved, lines(&folder).len()), (snapshot.damaged.len(), snapshot.damaged.len()));
        store.commit(&snapshot.records.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
        drop(store);
        let again = folder.store().load().await.unwrap();
        assert_eq!(again.damaged, [], "seed {seed}");
        assert_holds(again.records, &snapshot.records.iter().collect::<Vec<_>>());
    }
}

/// Bits that a disk flips anywhere: the file is refused as a whole, or read without what is damaged. Never a panic.
#[tokio::test]
async fn flipped_bits_anywhere_in_the_file_end_in_a_sentence_or_in_records() {
    let (folder, _) = stored(20).await;
    let whole = fs::read(&folder.file).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..150 {
        let mut bytes = whole.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u32(..8);
        }
        fs::write(&folder.file, bytes).unwrap();
        let store = folder.store();
        match store.load().await {
            Ok(snapshot) => assert!(snapshot.records.len() + snapshot.damaged.len() <= 20),
            Err(error) => assert!(!error.to_string().contains("panic"), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_row_with_the_last_number_of_all_leaves_numbers_for_others() {
    let (folder, mut all) = stored(2).await;
    sql(&folder, &format!("UPDATE instances SET place = {} WHERE id = 'product-2'", i64::MAX));
    // Two starts: what the first one wrote must not lie where the second one writes.
    for n in [3, 4] {
        let store = folder.store();
        assert_holds(loaded(&store).await, &all.iter().collect::<Vec<_>>());
        all.push(record("product", n));
        store.commit(&[put(all.last().unwrap())], &[]).await.unwrap();
    }
    // Without a load before it the places are read for themselves.
    all.push(record("product", 5));
    folder.store().commit(&[put(all.last().unwrap())], &[]).await.unwrap();
    assert_holds(loaded(&folder.store()).await, &all.iter().collect::<Vec<_>>());
}
