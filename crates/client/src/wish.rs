//! What the owner of a registration wants, and how far the server has followed.

use std::sync::Arc;

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

    /// Notes whether the instance is to be handed out; the version of that wish.
    pub(crate) fn drain(wishes: &watch::Sender<Self>, on: bool) -> u64 {
        let mut version = 0;
        wishes.send_modify(|wish| {
            wish.version += 1;
            version = wish.version;
            wish.drain = version;
            wish.draining = on;
        });
        version
    }

    /// Notes what the instance now says of itself; the version of that wish. Changes come one after the other,
    /// each on top of the one before.
    ///
    /// # Errors
    /// When the new data break a rule; nothing is changed then.
    pub(crate) fn update(
        wishes: &watch::Sender<Self>,
        change: impl FnOnce(NewInstance) -> NewInstance,
    ) -> Result<u64, Invalid> {
        let mut result = Ok(0);
        wishes.send_if_modified(|wish| {
            let changed = change(NewInstance::of(&wish.registration)).into_registration();
            let changed = changed.and_then(|changed| in_place(&wish.registration, &changed).map(|()| changed));
            result = changed.map(|changed| {
                wish.version += 1;
                wish.data = wish.version;
                wish.registration = Arc::new(changed);
                wish.version
            });
            result.is_ok()
        });
        result
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

    fn wishes() -> watch::Sender<Wish> {
        let instance = NewInstance::new("product", "10.0.0.7:7070").unwrap().tag("fruit").meta("shelf", "3");
        watch::Sender::new(Wish::new(instance.into_registration().unwrap()))
    }

    #[test]
    fn changes_build_on_each_other() {
        let wishes = wishes();
        assert_eq!(Wish::update(&wishes, |instance| instance.meta("load", "1")), Ok(1));
        assert_eq!(Wish::drain(&wishes, true), 2);
        assert_eq!(Wish::update(&wishes, |instance| instance.meta("load", "2").without_tag("fruit").weight(9)), Ok(3));
        let wish = wishes.borrow();
        assert_eq!((wish.data, wish.drain, wish.draining), (3, 2, true));
        let meta: Vec<_> = wish.registration.meta.iter().collect();
        assert_eq!(meta, [("load", "2"), ("shelf", "3")]);
        assert!(wish.registration.tags.is_empty() && wish.registration.weight == 9);
    }

    #[test]
    fn what_breaks_a_rule_changes_nothing() {
        let wishes = wishes();
        let before = Arc::clone(&wishes.borrow().registration);
        let refused = |change: fn(NewInstance) -> NewInstance| Wish::update(&wishes, change).unwrap_err().field;
        assert_eq!(refused(|instance| instance.meta("load", "1").weight(0)), "weight");
        assert_eq!(refused(|instance| instance.check(Check::none())), "check");
        assert_eq!(refused(|instance| instance.id("product-2").unwrap()), "id");
        assert_eq!(refused(|_| NewInstance::new("order", "10.0.0.7:7070").unwrap()), "name");
        let elsewhere = |instance: NewInstance| {
            let id = instance.into_registration().unwrap().id.unwrap();
            NewInstance::new("product", "10.0.0.8:7070").unwrap().id(id.as_str()).unwrap()
        };
        assert_eq!(refused(elsewhere), "address");
        assert!(Arc::ptr_eq(&before, &wishes.borrow().registration) && wishes.borrow().version == 0);
    }
}
