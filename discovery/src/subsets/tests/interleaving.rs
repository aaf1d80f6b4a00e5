//! Whatever happens between the steps of the writer and those of watchers: nobody misses anything.

use proptest::{collection::vec, prelude::*};

use super::*;

/// Instances that come and go.
const INSTANCES: u16 = 12;
const CLIENTS: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    /// The registry shows a change, which is not noted down yet.
    Show(Edit),
    /// The oldest such change is noted down.
    Note,
    /// A watch begins.
    Begin(usize),
    /// A watch ends.
    End(usize),
    /// A watcher that was woken looks; the second half of its look comes with the next such step.
    Look(usize),
    /// The group is brought up to date by whoever.
    Tend,
    /// There was no room for notes.
    Overflow,
}

/// A watch: what it was told, and what it is just looking at.
struct Watch {
    member: Membership,
    told: BTreeSet<InstanceId>,
    looking: Option<Vec<InstanceId>>,
}

fn step() -> impl Strategy<Value = Step> {
    let edit = (0..INSTANCES, 0..5_u8).prop_map(|(n, what)| match what {
        0 | 1 => register(n, "a"),
        2 => register(n, "b"),
        _ => remove(n),
    });
    prop_oneof![
        4 => edit.prop_map(Step::Show),
        4 => Just(Step::Note),
        2 => (0..CLIENTS).prop_map(Step::Begin),
        1 => (0..CLIENTS).prop_map(Step::End),
        6 => (0..CLIENTS).prop_map(Step::Look),
        2 => Just(Step::Tend),
        1 => Just(Step::Overflow),
    ]
}

impl Watch {
    /// One half of a look: first the share, then what the registry shows of it.
    fn look(&mut self, world: &World) {
        let Some(share) = self.looking.take() else {
            self.looking = Some(self.member.share());
            return;
        };
        let key = key("db", 5);
        let snapshot = world.registry.snapshot(&key.namespace, &key.query);
        self.told = share.into_iter().filter(|id| snapshot.one(&key.query, id).is_some()).collect();
    }

    fn is_woken(&self) -> bool {
        self.looking.is_some() || self.member.bell.has_changed().unwrap()
    }
}

fn tend(world: &World) {
    world.groups.table().take_noted();
    world.tend();
}

/// Everybody has as many as there are to have, of those that are there, evenly.
fn check(world: &World, watches: &[Option<Watch>]) {
    let key = key("db", 5);
    let snapshot = world.registry.snapshot(&key.namespace, &key.query);
    let there: BTreeSet<_> = snapshot.matching(&key.query).map(|instance| instance.id.clone()).collect();
    for watch in watches.iter().flatten() {
        let share: BTreeSet<_> =
            watch.member.group.share(&world.groups, &watch.member.client, Instant::now()).into_iter().collect();
        assert_eq!(watch.told, share, "{} was not told", watch.member.client);
        assert_eq!(share.len(), there.len().min(5));
        assert!(share.is_subset(&there));
    }
    for group in world.groups.table().all().iter().filter(|_| !there.is_empty()) {
        let standing = group.standing();
        assert!(standing.most - standing.least <= 1, "{standing:?}");
    }
}

proptest! {
    #[test]
    fn nobody_misses_anything(steps in vec(step(), 1..80)) {
        let world = World::with(4);
        let mut watches: Vec<Option<Watch>> = (0..CLIENTS).map(|_| None).collect();
        let mut shown = std::collections::VecDeque::new();
        for step in steps {
            match step {
                Step::Show(edit) => shown.push_back(world.registry.apply(&[edit])),
                Step::Note => shown.pop_front().into_iter().for_each(|effects| world.groups.changed(&effects)),
                Step::Begin(n) if watches[n].is_none() => {
                    let member = world.join(&format!("c-{n}")).unwrap();
                    let mut watch = Watch { member, told: BTreeSet::new(), looking: None };
                    watch.look(&world);
                    watches[n] = Some(watch);
                }
                Step::End(n) => watches[n] = None,
                Step::Look(n) => {
                    let woken = watches[n].as_mut().filter(|watch| watch.is_woken());
                    woken.into_iter().for_each(|watch| watch.look(&world));
                }
                Step::Tend => tend(&world),
                Step::Overflow => world.groups.table().all().iter().for_each(|group| group.overflow()),
                Step::Begin(_) => {}
            }
        }
        shown.iter().for_each(|effects| world.groups.changed(effects));
        tend(&world);
        for watch in watches.iter_mut().flatten() {
            while watch.is_woken() {
                watch.look(&world);
            }
        }
        check(&world, &watches);
    }
}
