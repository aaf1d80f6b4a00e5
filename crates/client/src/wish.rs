//! What the owner of a registration wants, and how far the server has followed.

use std::sync::{Arc, Mutex, PoisonError};

use roundsman_protocol::{Invalid, Registration};
use tokio::sync::watch;

use crate::{error::Error, new_instance::NewInstance};

/// What the owner wants the server to know, in its latest version.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// What the instance says of itself.
    pub(crate) registration: Arc<Registration>,
    /// Whether it is to be passed over.
    pub(crate) draining: bool,
    /// Counts the changes of all this.
    pub(crate) version: u64,
    /// The version that last changed the data.
    pub(crate) data: u64,
    /// The version that last said whether to hand it out.
    pub(crate) drain: u64,
}

/// Where the wish is kept, and its followers are told of the next.
#[derive(Debug)]
pub(crate) struct Wishes {
    latest: watch::Sender<Wish>,
    /// Held while an owner makes up a change. The channel's own lock would do as well, but followers, the owner among them,
    /// could not look at the wish meanwhile.
    changing: Mutex<()>,
}

/// What came of telling the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tried {
    /// Up to which version of the wish it was told.
    pub(crate) version: u64,
    /// What went wrong with it, if something did.
    pub(crate) error: Option<Error>,
}

// === impl Wish ===

impl Wish {
    pub(crate) fn new(registration: Registration) -> Self {
        Self { registration: Arc::new(registration), draining: false, version: 0, data: 0, drain: 0 }
    }
}

// === impl Wishes ===

impl Wishes {
    pub(crate) fn new(registration: Registration) -> Self {
        Self { latest: watch::Sender::new(Wish::new(registration)), changing: Mutex::default() }
    }

    /// The wish, to be followed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Wish> {
        self.latest.subscribe()
    }

    /// Whether the instance is to be passed over.
    pub(crate) fn is_draining(&self) -> bool {
        self.latest.borrow().draining
    }

    /// Notes whether the instance is to be handed out; the version of that wish.
    pub(crate) fn drain(&self, on: bool) -> u64 {
        self.note(|wish, version| (wish.drain, wish.draining) = (version, on))
    }

    /// Notes what the instance now says of itself; the version of that wish. Changes come one after the other,
    /// each on top of the one before.
    ///
    /// # Errors
    /// When the new data break a rule; nothing is changed then.
    pub(crate) fn update(&self, change: impl FnOnce(NewInstance) -> NewInstance) -> Result<u64, Invalid> {
        // A change that panics has changed nothing.
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Arc::clone(&self.latest.borrow().registration);
        let after = change(NewInstance::of(&before)).into_registration()?;
        in_place(&before, &after)?;
        Ok(self.note(|wish, version| (wish.data, wish.registration) = (version, Arc::new(after))))
    }

    /// Makes the next version.
    fn note(&self, change: impl FnOnce(&mut Wish, u64)) -> u64 {
        let mut version = 0;
        self.latest.send_modify(|wish| {
            wish.version += 1;
            version = wish.version;
            change(wish, version);
        });
        version
    }
}

/// Whether the one may become the other without leaving the lists in between.
fn in_place(before: &Registration, after: &Registration) -> Result<(), Invalid> {
    let refuse =
        |field| Err(Invalid::new(field, "cannot be changed in place; close this registration and register anew"));
    if before.name != after.name {
        return refuse("name");
    }
    if before.id != after.id {
        return refuse("id");
    }
    if before.address != after.address {
        return refuse("address");
    }
    if before.check != after.check {
        return refuse("check");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use roundsman_protocol::Check;

    use super::*;

    fn wishes() -> Wishes {
        let instance = NewInstance::new("product", "10.0.0.7:7070").unwrap().tag("fruit").meta("shelf", "3");
        Wishes::new(instance.into_registration().unwrap())
    }

    #[test]
    fn changes_build_on_each_other() {
        let wishes = wishes();
        assert_eq!(wishes.update(|instance| instance.meta("load", "1")), Ok(1));
        assert_eq!(wishes.drain(true), 2);
        assert_eq!(wishes.update(|instance| instance.meta("load", "2").without_tag("fruit").weight(9)), Ok(3));
        let wish = wishes.latest.borrow();
        assert_eq!((wish.data, wish.drain, wish.draining), (3, 2, true));
        let meta: Vec<_> = wish.registration.meta.iter().collect();
        assert_eq!(meta, [("load", "2"), ("shelf", "3")]);
        assert!(wish.registration.tags.is_empty() && wish.registration.weight == 9);
    }

    #[test]
    fn what_breaks_a_rule_changes_nothing() {
        let wishes = wishes();
        let before = Arc::clone(&wishes.latest.borrow().registration);
        let refused = |change: fn(NewInstance) -> NewInstance| wishes.update(change).unwrap_err().field;
        assert_eq!(refused(|instance| instance.meta("load", "1").weight(0)), "weight");
        assert_eq!(refused(|instance| instance.check(Check::none())), "check");
        assert_eq!(refused(|instance| instance.id("product-2").unwrap()), "id");
        assert_eq!(refused(|_| NewInstance::new("order", "10.0.0.7:7070").unwrap()), "name");
        let elsewhere = |instance: NewInstance| {
            let id = instance.into_registration().unwrap().id.unwrap();
            NewInstance::new("product", "10.0.0.8:7070").unwrap().id(id.as_str()).unwrap()
        };
        assert_eq!(refused(elsewhere), "address");
        assert!(Arc::ptr_eq(&before, &wishes.latest.borrow().registration) && wishes.latest.borrow().version == 0);
    }

    #[test]
    fn a_change_may_look_at_what_it_changes() {
        let (wishes, (done, ended)) = (Arc::new(wishes()), std::sync::mpsc::channel());
        let seen = Arc::clone(&wishes);
        std::thread::spawn(move || {
            let light = |instance: NewInstance| instance.weight(if seen.is_draining() { 1 } else { 9 });
            drop(done.send(wishes.update(light)));
        });
        let ended = ended.recv_timeout(std::time::Duration::from_secs(10));
        assert_eq!(ended.expect("it waits for itself"), Ok(1));
    }
}
