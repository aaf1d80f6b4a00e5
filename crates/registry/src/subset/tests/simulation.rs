//! A large service over its days, at two sizes. Run the full one with
//! `cargo test --release -p roundsman-registry -- --ignored --nocapture simulation`.

use std::{collections::BTreeMap, fs};

use super::{InstanceId, Instant, Moved, SECOND, State, Subsets, ids, subsets};

const SIZE: u32 = 20;

struct World {
    subsets: Subsets,
    now: Instant,
    /// Those in the service, and the number of the next.
    instances: Vec<usize>,
    next: usize,
    random: u64,
    state: State,
}

impl World {
    fn new(clients: usize, instances: usize) -> Self {
        let (now, before) = (Instant::now(), resident());
        let mut subsets = subsets(SIZE, 2 * clients, now);
        subsets.update(&ids(0..instances), &[], now);
        let mut moves = 0;
        for client in 0..clients {
            moves += gained(&subsets.join(&name(client), &[], now).unwrap());
        }
        let (took, kib) = (now.elapsed(), resident().saturating_sub(before) / 1_024);
        println!(
            "\n{clients} clients, {instances} instances, {SIZE} each: {} ms to build, {kib} KiB more resident, {} KiB by \
             its own count",
            took.as_millis(),
            subsets.bytes() / 1_024
        );
        println!(
            "{:38} {:>7} {:>9} {:>7} {:>8} {:>8} {:>6}",
            "", "clients", "instances", "loads", "moves", "least", "ratio"
        );
        let state = State::of(&subsets);
        let world = Self { subsets, now, instances: (0..instances).collect(), next: instances, random: 1, state };
        let least = world.state.pairs();
        assert!(moves <= 2 * least, "{moves} moved to place {least}");
        world.print("joined one by one", moves, least);
        world
    }

    /// Makes calls, and judges each and all of them.
    fn step(&mut self, what: &str, calls: usize, mut call: impl FnMut(&mut Self, usize)) {
        let (mut moves, mut least) = (0, 0);
        for number in 0..calls {
            call(self, number);
            let after = State::of(&self.subsets);
            after.check(&self.subsets);
            after.check_even();
            let cost = self.state.cost(&after);
            cost.check();
            moves += cost.moves;
            least += cost.least();
            self.state = after;
        }
        self.print(what, moves, least);
    }

    fn print(&self, what: &str, moves: u64, least: u64) {
        let (low, high) = self.state.extremes();
        let ratio = moves as f64 / least.max(1) as f64;
        let (clients, instances) = (self.state.sets.len(), self.state.loads.len());
        println!("{what:38} {clients:7} {instances:9} {low:>3}-{high:<3} {moves:8} {least:8} {ratio:6.2}");
    }

    fn replace(&mut self, leaving: usize, coming: usize) -> Vec<Moved> {
        let removed: Vec<usize> = self.instances.drain(..leaving).collect();
        let added: Vec<usize> = (self.next..self.next + coming).collect();
        self.next += coming;
        self.instances.extend(&added);
        self.subsets.update(&ids(added), &ids(removed), self.now)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % limit
    }

    fn shuffled(&mut self) -> Vec<String> {
        let mut clients: Vec<String> = self.state.sets.keys().map(ToString::to_string).collect();
        for at in (1..clients.len()).rev() {
            clients.swap(at, self.below(at + 1));
        }
        clients
    }

    fn forget(&mut self, clients: &[String]) {
        clients.iter().for_each(|client| self.subsets.leave(client, self.now));
        self.subsets.expire(self.now);
    }

    fn had(&self, client: &str) -> Vec<InstanceId> {
        self.state.sets[client].iter().cloned().collect()
    }

    /// A new server to which these come back, in this order, with what they had.
    fn restart(&mut self, clients: &[String]) {
        let settled = self.now + 30 * SECOND;
        let mut new = subsets(SIZE, usize::MAX, settled);
        new.update(&ids(self.instances.clone()), &[], self.now);
        for client in clients {
            new.join(client, &self.had(client), self.now).unwrap();
        }
        self.now = settled;
        new.expire(settled);
        self.subsets = new;
    }
}

fn live(clients: usize, instances: usize, batches: usize) {
    let mut world = World::new(clients, instances);
    let batch = instances / batches;
    world.step("rolling update, new as old go", batches, |world, _| {
        world.replace(batch, batch);
    });
    world.step("rolling update, new before old", 2 * batches, |world, number| {
        let (leaving, coming) = if number % 2 == 0 { (0, batch) } else { (batch, 0) };
        world.replace(leaving, coming);
    });
    world.step("rolling update, old before new", 2 * batches, |world, number| {
        let (leaving, coming) = if number % 2 == 0 { (batch, 0) } else { (0, batch) };
        world.replace(leaving, coming);
    });
    world.step("instances go and come one at a time", 40, |world, number| {
        let (leaving, coming) = if number % 2 == 0 { (1, 0) } else { (0, 1) };
        world.replace(leaving, coming);
    });
    let gone = world.shuffled();
    let (few, many) = (gone[..20].to_vec(), gone[20..clients * 3 / 10].to_vec());
    let had: BTreeMap<String, Vec<InstanceId>> =
        many.iter().map(|client| (client.clone(), world.had(client))).collect();
    world.step("clients leave one at a time", 20, |world, number| world.forget(&few[number..=number]));
    world.step("30 % of the clients leave", 1, |world, _| world.forget(&many));
    world.step("they come back with what they had", 1, |world, _| {
        for (client, had) in &had {
            world.subsets.join(client, had, world.now).unwrap();
        }
    });
    world.step("half of the instances go", 1, |world, _| {
        world.replace(world.instances.len() / 2, 0);
    });
    world.step("twice as many instances", 1, |world, _| {
        world.replace(0, world.instances.len());
    });
    world.step("all instances replaced at once", 1, |world, _| {
        world.replace(world.instances.len(), world.instances.len());
    });
    let returning = world.shuffled();
    let before = world.state.pairs();
    world.step("restart, all come back in time", 1, |world, _| world.restart(&returning));
    assert_eq!(world.state.pairs(), before);
    let most = returning.len() * 9 / 10;
    world.step("restart, one of ten does not", 1, |world, _| world.restart(&returning[..most]));
}

fn gained(moved: &[Moved]) -> u64 {
    moved.iter().map(|moved| moved.gained.len() as u64).sum()
}

fn name(client: usize) -> String {
    format!("client-{client}.example")
}

/// How many bytes of this process are in memory; nothing where the system does not say.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4_096
}

#[test]
fn a_large_service_stays_even_with_few_moves() {
    live(500, 100, 10);
    live(400, 2_000, 10);
    live(300, 40, 8);
}

#[test]
#[ignore = "takes minutes without optimization; prints the table at full size"]
fn a_very_large_service_stays_even_with_few_moves() {
    live(10_000, 50_000, 20);
    live(10_000, 1_000, 20);
    live(10_000, 42, 14);
}
