//! Any calls in any order: what must hold after each.

use super::{super::Full, BTreeMap, Duration, InstanceId, Instant, State, Subsets, ids, subsets};
use proptest::{collection::vec, prelude::*};

const LIMIT: usize = 12;

#[derive(Clone, Debug)]
enum Call {
    Join {
        client: usize,
        wanted: Vec<usize>,
    },
    /// With what it had when it was last seen.
    Return {
        client: usize,
    },
    Leave {
        client: usize,
        grace: u64,
    },
    Update {
        added: Vec<usize>,
        removed: Vec<usize>,
    },
    Wait(u64),
}

/// The calls so far, as the caller knows them.
struct Caller {
    subsets: Subsets,
    now: Instant,
    watches: BTreeMap<String, usize>,
    seen: BTreeMap<String, Vec<InstanceId>>,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let some = |most| vec(0..60_usize, 0..most);
    let client = || 0..20_usize;
    vec(
        prop_oneof![
            4 => (client(), some(8)).prop_map(|(client, wanted)| Call::Join { client, wanted }),
            2 => client().prop_map(|client| Call::Return { client }),
            3 => (client(), 0..20_u64).prop_map(|(client, grace)| Call::Leave { client, grace }),
            3 => (some(12), some(12)).prop_map(|(added, removed)| Call::Update { added, removed }),
            2 => (0..10_u64).prop_map(Call::Wait),
        ],
        1..60,
    )
}

impl Caller {
    fn call(&mut self, call: Call) {
        let before = State::of(&self.subsets);
        let now = self.now;
        let moved = match call {
            Call::Join { client, wanted } => self.join(client, &ids(wanted)),
            Call::Return { client } => {
                let wanted = self.seen.get(&name(client)).cloned().unwrap_or_default();
                self.join(client, &wanted)
            }
            Call::Leave { client, grace } => {
                if let Some(watches) = self.watches.get_mut(&name(client)).filter(|n| **n > 0) {
                    *watches -= 1;
                    self.subsets.leave(&name(client), now + Duration::from_secs(grace));
                }
                Vec::new()
            }
            Call::Update { added, removed } => self.subsets.update(&ids(added), &ids(removed), now),
            Call::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.subsets.expire(self.now)
            }
        };
        let after = State::of(&self.subsets);
        after.check(&self.subsets);
        before.check_told(&after, &moved);
        let cost = before.cost(&after);
        if self.subsets.uneven {
            assert_eq!(cost.moves, cost.placed, "nothing is evened out before it is settled");
        } else {
            after.check_even();
            cost.check();
        }
        for (client, set) in &after.sets {
            self.seen.insert(client.to_string(), set.iter().cloned().collect());
        }
    }

    fn join(&mut self, client: usize, wanted: &[InstanceId]) -> Vec<super::Moved> {
        let held = self.watches.values().filter(|watches| **watches > 0).count();
        let watches = self.watches.entry(name(client)).or_default();
        match self.subsets.join(&name(client), wanted, self.now) {
            Ok(moved) => {
                *watches += 1;
                moved
            }
            Err(Full { limit }) => {
                assert_eq!((held, *watches), (limit, 0), "refused while there was room");
                Vec::new()
            }
        }
    }
}

fn name(client: usize) -> String {
    format!("c-{client}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn sets_are_full_and_even_and_few_move(
        size in 1..9_u32, instances in 0..60_usize, settles in 0..30_u64, calls in calls(),
    ) {
        let now = Instant::now();
        let mut subsets = subsets(size, LIMIT, now + Duration::from_secs(settles));
        subsets.update(&ids(0..instances), &[], now);
        let mut caller = Caller { subsets, now, watches: BTreeMap::new(), seen: BTreeMap::new() };
        for call in calls {
            caller.call(call);
        }
    }

    /// Large means, where loads may differ by 5 %.
    #[test]
    fn a_few_instances_with_many_clients_are_even_and_few_move(
        size in 1..5_u32,
        steps in vec((vec(0..12_usize, 0..4), vec(0..12_usize, 0..4), 0..200_usize, 0..60_usize), 1..8),
    ) {
        let now = Instant::now();
        let mut subsets = subsets(size, usize::MAX, now);
        subsets.update(&ids(0..6), &[], now);
        let mut before = State::of(&subsets);
        for (added, removed, first, clients) in steps {
            for client in first..first + clients {
                subsets.join(&name(client), &[], now).unwrap();
            }
            let joined = State::of(&subsets);
            joined.check_even();
            subsets.update(&ids(added), &ids(removed), now);
            let after = State::of(&subsets);
            after.check(&subsets);
            after.check_even();
            joined.cost(&after).check();
            for client in (first..first + clients).step_by(3) {
                subsets.leave(&name(client), now);
            }
            before = State::of(&subsets);
            subsets.expire(now);
            let expired = State::of(&subsets);
            expired.check_even();
            before.cost(&expired).check();
        }
        before.check_even();
    }
}
