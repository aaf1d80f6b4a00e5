//! What moves, and where to.

use roundsman_protocol::InstanceId;

use super::{
    loads::{Band, Rank},
    pairs::Pairs,
};

impl Pairs {
    /// Gives a new client of what it had before what exists and leaves the loads even; all of it,
    /// if `anyway`.
    pub(super) fn take_over(&mut self, client: u32, had: &[InstanceId], anyway: bool) {
        let wanted = self.wanted();
        let known = had.iter().filter_map(|id| self.instances.number(id));
        // What is beyond what it may have is not even looked at, however long a list it sends.
        let known: Vec<u32> = known.take(wanted).collect();
        let Some(band) = self.band(wanted) else { return };
        for instance in known {
            let load = self.instances.get(instance).map_or(0, |member| member.clients.len());
            if anyway || u32::try_from(load).is_ok_and(|load| load < band.most) {
                self.link(client, instance);
            }
        }
    }

    /// Gives a client the least loaded of those that it does not have, until it has enough.
    pub(super) fn fill(&mut self, client: u32) {
        let wanted = self.wanted();
        while let Some(holder) = self.clients.get(client)
            && holder.set.len() < wanted
        {
            let start = self.point((holder.point, holder.set.len()));
            let free = |instance| holder.set.binary_search(&instance).is_err();
            let Some(instance) = self.loads.first(start, free) else { return };
            self.link(client, instance);
        }
    }

    /// Moves pairs from the most loaded to the least loaded until all loads are in the band.
    ///
    /// Each step brings one that is above the band closer to it, or one that is below, and if there
    /// are both, both: so as many pairs move as are above, or as are missing below, whichever is
    /// more; and that many must.
    pub(super) fn even_out(&mut self) {
        let Some(band) = self.band(0) else { return };
        while let (Some(least), Some(most)) = (self.loads.least(), self.loads.most())
            && (least.load < band.least || most.load > band.most)
        {
            // There always is one: who has more clients has one that the other does not have.
            let Some(client) = self.one_to_move(most, least) else { return };
            self.unlink(client, most.number);
            self.link(client, least.number);
        }
    }

    fn one_to_move(&self, from: Rank, to: Rank) -> Option<u32> {
        let clients = &self.instances.get(from.number)?.clients;
        // From somewhere else each time: around the last place, all have been moved already.
        let start = (self.point((from.point, to.point, to.load)), 0);
        let mut circle = clients.range(start..).chain(clients.range(..start));
        circle.find(|(_, client)| !self.has(*client, to.number)).map(|(_, client)| *client)
    }

    /// The loads that are even with so many pairs more.
    fn band(&self, more: usize) -> Option<Band> {
        let pairs = self.count.checked_add(u64::try_from(more).ok()?)?;
        Band::of(pairs, u64::try_from(self.instances.len()).ok()?)
    }
}
