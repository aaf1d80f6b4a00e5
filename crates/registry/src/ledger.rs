//! The rules that hold between records, carried out one edit at a time.

use std::sync::Arc;

use roundsman_protocol::{Address, InstanceId, Namespace, ServiceName};

use crate::{
    edit::{Edit, Effect, Key},
    record::Record,
};

/// Something that holds records: the registry itself, or a draft laid over it.
pub(crate) trait Ledger {
    fn find(&self, key: &Key) -> Option<Arc<Record>>;
    /// Who is registered at an address, in a service.
    fn occupant(&self, namespace: &Namespace, service: &ServiceName, address: &Address) -> Option<InstanceId>;
    /// Puts `after` in the place of `before`.
    fn replace(&mut self, before: Option<&Arc<Record>>, after: Option<&Arc<Record>>);
}

/// Carries out an edit and tells what it did. At an address that already had another instance, that one leaves: a
/// restarted process must leave no ghost. Of two that come out of a store, the one that was asked for later stays, in
/// whatever order they come, so that all servers agree.
pub(crate) fn carry_out(ledger: &mut impl Ledger, edit: &Edit) -> Vec<Effect> {
    let key = edit.key();
    let before = ledger.find(&key);
    let after = edit.carry_out(before.as_ref());
    let unchanged = match (&before, &after) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after),
        (before, after) => before.is_none() && after.is_none(),
    };
    if unchanged {
        return Vec::new();
    }
    let mut effects = Vec::with_capacity(1);
    // What is left of a blocked one is nowhere.
    if let Some(after) = after.as_ref().filter(|after| !after.is_blocked()) {
        let known = &after.instance;
        let occupant = ledger.occupant(&known.namespace, &known.name, &known.address).filter(|id| *id != known.id);
        let ghost = occupant.and_then(|id| ledger.find(&Key { namespace: known.namespace.clone(), id }));
        if let Some(ghost) = ghost {
            if matches!(edit, Edit::Adopt { .. } | Edit::Planned { .. }) && ghost.is_asked_later_than(after) {
                return leave(ledger, before, &ghost);
            }
            ledger.replace(Some(&ghost), None);
            let reason = format!("replaced by {} at the same address", known.id).into();
            effects.push(Effect { before: Some(ghost), after: None, reason });
        }
    }
    ledger.replace(before.as_ref(), after.as_ref());
    let reason = after.as_ref().map_or_else(|| edit.reason(), |after| Arc::clone(&after.instance.reason));
    effects.push(Effect { before, after, reason });
    effects
}

/// What was there before under the id of one that lost its address to another.
fn leave(ledger: &mut impl Ledger, before: Option<Arc<Record>>, by: &Record) -> Vec<Effect> {
    let Some(before) = before else { return Vec::new() };
    ledger.replace(Some(&before), None);
    let reason = format!("replaced by {} at the same address", by.instance.id).into();
    vec![Effect { before: Some(before), after: None, reason }]
}
