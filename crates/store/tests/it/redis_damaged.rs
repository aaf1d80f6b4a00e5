//! Redis hashes that cannot be read: left out, kept under keys of their own, and nothing else is lost.

use redis::{AsyncTypedCommands, aio::MultiplexedConnection};
use roundsman_registry::Record;

use crate::{
    records::{assert_holds, loaded, put, record},
    redis_server::RedisServer,
};

const FIELDS: [&str; 18] = [
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
];

fn key(n: usize) -> String {
    format!("roundsman:{{default}}:instance:product:product-{n}")
}

fn damaged(n: usize) -> String {
    format!("roundsman:{{default}}:damaged:instance:product:product-{n}")
}

#[tokio::test]
async fn damaged_records_are_left_out_and_kept_under_a_key_of_their_own() {
    let redis = RedisServer::start().await;
    let (store, mut cli) = (redis.store(), redis.cli().await);
    let all: Vec<_> = (0..6).map(|n| record("product", n)).collect();
    store.commit(&all.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
    cli.hset(key(1), "address", "nowhere").await.unwrap();
    cli.hset(key(2), "meta", [0xff_u8, 0xfe].as_slice()).await.unwrap();
    cli.del(key(3)).await.unwrap();
    cli.set(key(3), "something else").await.unwrap();
    // An entry of the index that leads to the record of another one, which is fine.
    cli.hset("roundsman:{default}:instances", "product-9", "instance:product:product-4").await.unwrap();
    cli.hset("roundsman:{default}:instances", [0xff_u8].as_slice(), "generation").await.unwrap();
    cli.sadd("roundsman:namespaces", [0xff_u8].as_slice()).await.unwrap();

    let snapshot = store.load().await.unwrap();
    assert_holds(snapshot.records, &[&all[0], &all[4], &all[5]]);
    let mut what: Vec<_> = snapshot.damaged.iter().map(|damage| damage.what.clone()).collect();
    what.sort();
    let generation = "roundsman:{default}:generation".to_owned();
    assert_eq!(what, [generation.clone(), key(1), key(2), key(3), key(4)]);
    let aside = store.set_aside().await.unwrap();
    assert_eq!((aside.moved, aside.left), (5, None));

    assert_eq!(cli.hget(damaged(1), "address").await.unwrap().as_deref(), Some("nowhere"));
    assert!(cli.exists(damaged(2)).await.unwrap() && !cli.exists(key(2)).await.unwrap());
    assert_eq!(cli.get(damaged(3)).await.unwrap().as_deref(), Some("something else"));
    assert!(cli.exists(key(4)).await.unwrap() && cli.exists(generation).await.unwrap());
    assert_eq!(cli.hlen("roundsman:{default}:damaged:index").await.unwrap(), 2);
    let snapshot = store.load().await.unwrap();
    assert_eq!(snapshot.damaged, []);
    assert_holds(snapshot.records, &[&all[0], &all[4], &all[5]]);

    // They register again; what is kept is not touched, not even by a second one of the same name.
    store.commit(&[put(&all[1])], &[]).await.unwrap();
    cli.hset(key(1), "weight", "0").await.unwrap();
    assert_holds(loaded(&store).await, &[&all[0], &all[4], &all[5]]);
    store.set_aside().await.unwrap();
    assert_eq!(cli.hget(damaged(1), "address").await.unwrap().as_deref(), Some("nowhere"));
    assert_eq!(cli.hget(format!("{}:2", damaged(1)), "weight").await.unwrap().as_deref(), Some("0"));
}

async fn mutate(cli: &mut MultiplexedConnection, n: usize, random: &mut fastrand::Rng) {
    let (key, field) = (key(n), FIELDS[random.usize(..FIELDS.len())]);
    match random.u8(..8) {
        0 => drop(cli.hdel(&key, field).await.unwrap()),
        1 => drop(cli.hset(&key, field, random.i64(..)).await.unwrap()),
        2 => drop(cli.hset(&key, field, "").await.unwrap()),
        3 => drop(cli.hset(&key, field, "x".repeat(2_000_000)).await.unwrap()),
        4 => drop(cli.hset(&key, "remark", "not ours").await.unwrap()),
        5 => {
            cli.del(&key).await.unwrap();
            cli.lpush(&key, "a list").await.unwrap();
        }
        _ => {
            let ask = redis::cmd("HGET").arg(&key).arg(field).query_async::<Vec<u8>>(cli).await;
            let mut bytes = ask.unwrap();
            if !bytes.is_empty() {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u32(..8);
            }
            cli.hset(&key, field, bytes.as_slice()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn whatever_others_write_into_hashes_the_good_ones_are_served() {
    let redis = RedisServer::start().await;
    let mut cli = redis.cli().await;
    for seed in 0..12 {
        redis.flush().await;
        let (store, mut random) = (redis.store(), fastrand::Rng::with_seed(seed));
        let all: Vec<_> = (0..40).map(|n| record("product", n)).collect();
        store.commit(&all.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
        for n in (1..40).step_by(2) {
            mutate(&mut cli, n, &mut random).await;
        }
        let store = redis.store();
        let snapshot = store.load().await.unwrap();
        for good in all.iter().step_by(2) {
            assert!(snapshot.records.contains(good), "seed {seed}: {} was lost", good.instance.id);
        }
        assert_eq!(snapshot.records.len() + snapshot.damaged.len(), 40, "seed {seed}");
        let aside = store.set_aside().await.unwrap();
        assert_eq!((aside.moved, aside.left), (snapshot.damaged.len(), None));
        let kept = cli.keys("roundsman:{default}:damaged:instance:*").await.unwrap().len();
        assert_eq!(kept, snapshot.damaged.len(), "seed {seed}");
        store.commit(&snapshot.records.iter().map(put).collect::<Vec<_>>(), &[]).await.unwrap();
        let again = store.load().await.unwrap();
        assert_eq!(again.damaged, [], "seed {seed}");
        assert_holds(again.records, &snapshot.records.iter().collect::<Vec<&Record>>());
    }
}
