//! Which of a service's instances a caller wants, and which part of them a call goes to.

use std::sync::Arc;

use roundsman_protocol::{Host, Invalid, Query, Scope, ServiceName};

use crate::{
    balance::{Part, Policy, spread},
    share::Share,
};

/// So that a key's part says nothing about its instance there.
const SALT: &[u8] = b"part";

/// How instances are chosen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) policy: Policy,
    pub(crate) zone: Option<Box<str>>,
    pub(crate) host: Option<Host>,
    /// How many of all there are.
    pub(crate) share: Option<Share>,
    /// Those that it matches; it names no service.
    pub(crate) select: Arc<Query>,
    /// Versions that have a share of their own.
    pub(crate) split: Option<Arc<Split>>,
}

/// Parts of a service, by version, and what part of the calls each has.
#[derive(Debug, PartialEq)]
pub(crate) struct Split {
    /// Versions, and the shares of each and all before it.
    parts: Box<[(Box<str>, f64)]>,
}

// === impl Choice ===

impl Choice {
    /// Takes what a query says of instances. Of a service it may only say this one, where that is known.
    ///
    /// # Errors
    /// For a query that breaks a rule, or is about others.
    pub(crate) fn select(&mut self, query: Query, service: Option<&ServiceName>) -> Result<(), Invalid> {
        query.validate()?;
        if query.scope != Scope::Available {
            return Err(Invalid::new("scope", "calls go to what is handed out"));
        }
        if query.services.iter().any(|named| Some(named) != service) {
            return Err(Invalid::new(
                "services",
                "the service is named by the call; a selection names none, or the same",
            ));
        }
        self.select = Arc::new(Query { services: Vec::new(), history: false, ..query }.canonical());
        Ok(())
    }

    /// The part that a call goes to. `turn` counts up from call to call, and makes no difference to one with a key.
    pub(crate) fn part(&self, key: Option<&[u8]>, turn: u64) -> Option<Part> {
        let split = self.split.as_ref()?;
        Some(split.at(spread(&[key.unwrap_or(&turn.to_be_bytes()), SALT].concat())))
    }
}

impl Default for Choice {
    fn default() -> Self {
        let select = Arc::default();
        Self { policy: Policy::PeakEwma, zone: None, host: None, share: None, select, split: None }
    }
}

// === impl Split ===

impl Split {
    /// # Errors
    /// When a share is none, or all of them are more than everything.
    pub(crate) fn try_new<V: Into<Box<str>>>(shares: impl IntoIterator<Item = (V, f64)>) -> Result<Self, Invalid> {
        let (mut parts, mut sum) = (Vec::new(), 0.0);
        for (version, share) in shares {
            let version = version.into();
            if !(0.0..=1.0).contains(&share) {
                return Err(Invalid::new(
                    "split",
                    format!("the share of `{version}` must be from 0 to 1, got {share}"),
                ));
            }
            if parts.iter().any(|(named, _)| *named == version) {
                return Err(Invalid::new("split", format!("`{version}` is named twice")));
            }
            sum += share;
            parts.push((version, sum));
        }
        // A hair more than everything is a matter of rounding.
        if sum > 1.0 + 1e-9 {
            return Err(Invalid::new("split", format!("all shares together must be at most 1, got {sum}")));
        }
        Ok(Self { parts: parts.into() })
    }

    /// The part at this number of all there are.
    #[allow(clippy::cast_precision_loss, reason = "a share of calls need not be exact")]
    fn at(&self, spread: u64) -> Part {
        let at = spread as f64 / (u64::MAX as f64 + 1.0);
        match self.parts.iter().find(|(_, until)| at < *until) {
            Some((version, _)) => Part::Only(version.clone()),
            None => Part::Except(self.parts.iter().map(|(version, _)| version.clone()).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(shares: &[(&str, f64)]) -> Result<Split, Invalid> {
        Split::try_new(shares.iter().copied())
    }

    #[test]
    fn shares_are_kept_and_keys_stay() {
        let split = Some(Arc::new(split(&[("v2", 0.05), ("v3", 0.25)]).unwrap()));
        let choice = Choice { split, ..Choice::default() };
        let count = |of: &Part| (0..10_000).filter(|turn| choice.part(None, *turn).as_ref() == Some(of)).count();
        let rest = Part::Except(["v2".into(), "v3".into()].into());
        for (part, expected) in [(Part::Only("v2".into()), 500), (Part::Only("v3".into()), 2_500), (rest, 7_000)] {
            assert!(count(&part).abs_diff(expected) <= 150, "{part:?}: {}", count(&part));
        }
        for key in 0..100_u32 {
            let of = |turn| choice.part(Some(&key.to_be_bytes()), turn);
            assert!((1..10).all(|turn| of(turn) == of(0)));
        }
    }

    #[test]
    fn shares_that_make_no_sense_are_refused() {
        assert!(split(&[]).is_ok() && split(&[("a", 0.1), ("b", 0.2), ("c", 0.7)]).is_ok());
        for wrong in
            [&[("v2", -0.1)][..], &[("v2", f64::NAN)], &[("v2", 0.6), ("v3", 0.6)], &[("v2", 0.1), ("v2", 0.2)]]
        {
            assert_eq!(split(wrong).unwrap_err().field, "split", "{wrong:?}");
        }
    }

    #[test]
    fn a_selection_is_about_this_service_and_what_is_handed_out() {
        let product: ServiceName = "product".parse().unwrap();
        let mut choice = Choice::default();
        choice.select(Query::service(product.clone()).tag("b").tag("a").version("2"), Some(&product)).unwrap();
        assert!(choice.select.services.is_empty() && *choice.select.tags == ["a".into(), "b".into()]);
        assert_eq!(choice.select(Query::service(product), None).unwrap_err().field, "services");
        assert_eq!(choice.select(Query::default().scope(Scope::All), None).unwrap_err().field, "scope");
        assert_eq!(choice.select(Query::default().tag(""), None).unwrap_err().field, "tags");
    }
}
