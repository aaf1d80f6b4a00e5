//! The cache against a clock that is a parameter.

use roundsman_protocol::limits;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A cache that was asked for `name` at `now`, and told.
fn told(cache: &mut Cache, name: &str, answer: Answer, now: Instant) {
    cache.asked(&Arc::from(name), watch::channel(false).1, now);
    cache.settle(name, answer, now);
}

fn addresses(texts: &[&str], seconds: u64) -> Answer {
    Answer::Addresses(ips(texts), Duration::from_secs(seconds))
}

#[test]
fn answers_are_believed_for_their_ttl_within_limits() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    for (ttl, believed) in [(0, 1), (7, 7), (30, 30), (86_400, 30)] {
        told(&mut cache, "a", addresses(&["10.0.0.7"], ttl), start);
        assert!(cache.look("a", start + believed * SECOND - Duration::from_millis(1)).fresh, "{ttl}");
        let after = cache.look("a", start + believed * SECOND);
        assert!(!after.fresh, "{ttl}");
        assert_eq!(*after.addrs, ips(&["10.0.0.7"]), "still the last known address");
    }
    for (ttl, believed) in [(None, 1), (Some(3 * SECOND), 3), (Some(3_600 * SECOND), 5)] {
        told(&mut cache, "a", Answer::Denied("no such name".into(), ttl), start);
        assert!(cache.look("a", start + believed * SECOND - Duration::from_millis(1)).fresh);
        assert!(!cache.look("a", start + believed * SECOND).fresh);
    }
}

#[test]
fn silence_keeps_the_last_address_and_a_denial_forgets_it() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    told(&mut cache, "a", addresses(&["10.0.0.7"], 1), start);
    let mut now = start;
    for pause in [1, 2, 4, 5, 5] {
        now += 10 * SECOND;
        told(&mut cache, "a", Answer::Silence("nothing".into()), now);
        let view = cache.look("a", now + pause * SECOND - Duration::from_millis(1));
        assert!(view.fresh && view.last == Last::Silence("nothing".into()) && view.addrs.len() == 1, "{view:?}");
        assert!(!cache.look("a", now + pause * SECOND).fresh);
        assert_eq!((cache.count().known, cache.count().stale), (1, 1));
    }
    assert!(!cache.look("a", now).is_confirmed(start));
    told(&mut cache, "a", addresses(&["10.0.0.7"], 1), now);
    assert!(cache.look("a", now).is_confirmed(now) && !cache.look("a", now).is_confirmed(now + SECOND));
    assert_eq!((cache.count().known, cache.count().stale), (1, 0));
    told(&mut cache, "a", Answer::Silence("nothing".into()), now);
    assert!(!cache.look("a", now + SECOND).fresh, "an answer ends the doubling");
    told(&mut cache, "a", Answer::Denied("no such name".into(), None), now);
    assert!(cache.look("a", now).addrs.is_empty());
    assert_eq!(cache.count().known, 0);
}

#[test]
fn half_an_answer_replaces_half_of_what_is_known() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    told(&mut cache, "a", addresses(&["10.0.0.7", "fd00::7"], 1), start);
    told(&mut cache, "a", Answer::Half(ips(&["fd00::8"]), SECOND), start);
    assert_eq!(*cache.look("a", start).addrs, ips(&["10.0.0.7", "fd00::8"]));
    told(&mut cache, "a", Answer::Half(ips(&["10.0.0.9", "10.0.0.8"]), SECOND), start);
    assert_eq!(*cache.look("a", start).addrs, ips(&["10.0.0.8", "10.0.0.9", "fd00::8"]));
    told(&mut cache, "a", addresses(&["10.0.0.9"], 1), start);
    assert_eq!(*cache.look("a", start).addrs, ips(&["10.0.0.9"]));
}

#[test]
fn addresses_are_comparable_and_few() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    told(&mut cache, "a", addresses(&["::1", "10.0.0.8", "::ffff:10.0.0.7", "10.0.0.8"], 1), start);
    assert_eq!(*cache.look("a", start).addrs, ips(&["10.0.0.7", "10.0.0.8", "::1"]));
    let many: Vec<String> = (0..200).map(|n| format!("10.0.0.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    told(&mut cache, "a", addresses(&many, 1), start);
    assert_eq!(cache.look("a", start).addrs.len(), MOST_ADDRESSES);
}

#[test]
fn unused_names_go_and_there_are_never_too_many() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    told(&mut cache, "unused", addresses(&["10.0.0.7"], 1), start);
    told(&mut cache, "used", addresses(&["10.0.0.7"], 1), start);
    cache.look("used", start + UNUSED - SECOND);
    told(&mut cache, "new", addresses(&["10.0.0.7"], 1), start + UNUSED);
    let names = |cache: &Cache| cache.entries.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert!(names(&cache).len() == 2 && !names(&cache).contains(&"unused".to_owned()), "{:?}", names(&cache));
    let now = start + UNUSED;
    for n in 0..3 * MOST_NAMES {
        told(&mut cache, &format!("host-{n}"), addresses(&["10.0.0.7"], 1), now);
        assert!(cache.entries.len() <= MOST_NAMES);
    }
    assert!(cache.entries.len() > MOST_NAMES / 2);
}

#[test]
fn the_last_address_is_known_from_one_round_to_the_next() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    told(&mut cache, "a", addresses(&["10.0.0.7"], 1), start);
    let round = start + *limits::INTERVAL.end() + *limits::TIMEOUT.end();
    told(&mut cache, "another", addresses(&["10.0.0.8"], 1), round);
    assert_eq!(*cache.look("a", round).addrs, ips(&["10.0.0.7"]));
}

#[test]
fn a_question_that_was_given_up_is_not_waited_for() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    let (sender, stage) = watch::channel(false);
    cache.asked(&Arc::from("a"), stage, start);
    assert!(cache.asking("a").is_some() && cache.asking("b").is_none());
    drop(sender);
    assert!(cache.asking("a").is_none());
    assert_eq!(cache.look("a", start).last, Last::Never);
}
