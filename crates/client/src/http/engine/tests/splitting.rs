//! Versions with a share of their own.

use super::*;
use crate::http::choice::Split;

fn world(manners: impl Fn(usize, &Method) -> Does + Send + Sync + 'static) -> (World, Choice) {
    let versions = ["v2", "v1", "v1", "v1"]
        .map(|version| Instance { version: Some(version.into()), ..instance("product", "any") });
    let split = Some(Arc::new(Split::try_new([("v2", 0.05)]).unwrap()));
    (World::of(versions.into(), manners), Choice { split, ..Choice::default() })
}

fn get(key: Option<u32>) -> Plan {
    let key = key.map(|key| key.to_be_bytes().into());
    Plan { key, ..Plan::new(Limits::default(), &Method::GET) }
}

#[tokio::test(start_paused = true)]
async fn a_canary_has_its_share_of_the_calls_whatever_its_share_of_the_instances() {
    let (world, choice) = world(|_, _| Does::Answers(200, MILLI));
    for _ in 0..4_000 {
        world.call_as(&choice, &get(None), Method::GET).await.unwrap();
    }
    let counts = world.counts();
    assert!(counts[&0].abs_diff(200) <= 60, "{counts:?}");
    assert!((1..4).all(|stable| counts[&stable].abs_diff(1_267) <= 100), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_same_key_finds_the_same_version() {
    let (world, choice) = world(|_, _| Does::Answers(200, MILLI));
    let mut canaries = 0;
    for key in 0..400 {
        let mut homes = Vec::new();
        for _ in 0..3 {
            homes.push(world.call_as(&choice, &get(Some(key)), Method::GET).await.unwrap().answer.0);
        }
        homes.dedup();
        assert_eq!(homes.len(), 1, "{key}");
        canaries += usize::from(homes[0] == 0);
    }
    assert!((5..=45).contains(&canaries), "{canaries} of 400");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_fails_leaves_its_calls_to_the_others() {
    let (world, choice) = world(|to, _| if to == 0 { Does::Answers(500, MILLI) } else { Does::Answers(200, MILLI) });
    for _ in 0..1_000 {
        let answered = world.call_as(&choice, &get(None), Method::GET).await.unwrap();
        assert_eq!(answered.answer.1, StatusCode::OK);
    }
    assert!(world.counts()[&0] <= 10, "{:?}", world.counts());
    // Nor does one that is not there stop anybody.
    let stable = world.callee.feed().current().instances()[1..].to_vec();
    world.show(&stable);
    for key in 0..100 {
        world.call_as(&choice, &get(Some(key)), Method::GET).await.unwrap();
    }
}
