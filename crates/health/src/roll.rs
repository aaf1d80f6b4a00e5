//! Whom to ask when one falls silent: the instances that are handed out and answered their last visit.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use crate::line::Line;

/// The lines of those who can be asked, in random order.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    lines: BTreeMap<NonZeroU64, Arc<Line>>,
    /// Who was drawn last.
    last: Option<NonZeroU64>,
}

impl Roll {
    /// Takes one in. The number is what it leaves with.
    pub(crate) fn join(&mut self, line: &Arc<Line>) -> NonZeroU64 {
        let mut number = random();
        while self.lines.contains_key(&number) {
            number = random();
        }
        self.lines.insert(number, Arc::clone(line));
        number
    }

    pub(crate) fn leave(&mut self, number: NonZeroU64) {
        self.lines.remove(&number);
    }

    /// Up to `count` of them. Nobody is drawn again before everybody was: those who answer stay on the roll and those who do
    /// not leave it, so whoever drew at random would soon meet only those who answer, and take a cut for a single failure.
    pub(crate) fn draw(&mut self, count: usize) -> Vec<Arc<Line>> {
        let last = self.last.unwrap_or(NonZeroU64::MIN);
        let after = self.lines.range((Excluded(last), Unbounded));
        let before = self.lines.range(..=last);
        let drawn = after.chain(before).take(count);
        let (numbers, lines): (Vec<NonZeroU64>, Vec<Arc<Line>>) =
            drawn.map(|(number, line)| (*number, Arc::clone(line))).unzip();
        self.last = numbers.last().copied().or(self.last);
        lines
    }
}

fn random() -> NonZeroU64 {
    NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests {
    use roundsman_protocol::{Registration, Timestamp};
    use roundsman_registry::{Key, Record};
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn everybody_is_drawn_before_anybody_is_drawn_again() {
        let registration = Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap());
        let key = Key { namespace: "default".parse().unwrap(), id: "product-1".parse().unwrap() };
        let record = Record::registered(&key, &registration, 1, Timestamp::default());
        let lines: Vec<Arc<Line>> = (0..12).map(|_| Arc::new(Line::new(Instant::now(), &record))).collect();
        let mut roll = Roll::default();
        let numbers: Vec<NonZeroU64> = lines.iter().map(|line| roll.join(line)).collect();
        let mut drawn = [0_u32; 12];
        for round in 1..=3 {
            for line in (0..3).flat_map(|_| roll.draw(4)) {
                drawn[lines.iter().position(|other| Arc::ptr_eq(&line, other)).unwrap()] += 1;
            }
            assert_eq!(drawn, [round; 12]);
        }
        numbers[2..].iter().for_each(|number| roll.leave(*number));
        assert_eq!(roll.draw(4).len(), 2, "no more than there are");
        numbers[..2].iter().for_each(|number| roll.leave(*number));
        assert_eq!(roll.draw(4).len(), 0);
    }
}
