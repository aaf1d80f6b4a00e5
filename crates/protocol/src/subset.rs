//! Which of many instances one of many clients gets.

use serde::{Deserialize, Serialize};

use crate::{error::Invalid, limits, name::quoted};

/// A share of what a query matches: each client gets `size` instances, chosen by the server so that all instances
/// serve about as many clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// Who asks: another name for each process, the same one when it comes back.
    pub client: Box<str>,
    /// How many instances it wants.
    pub size: u32,
}

// === impl Subset ===

impl Subset {
    /// Checks both fields.
    ///
    /// # Errors
    /// The first that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        let printable = self.client.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || !(1..=limits::MAX_SUBSET_CLIENT_LEN).contains(&self.client.len()) {
            let (most, client) = (limits::MAX_SUBSET_CLIENT_LEN, quoted(&self.client));
            let rule = format!("must be 1 to {most} printable ASCII characters without spaces, got {client}");
            return Err(Invalid::new("subset.client", rule));
        }
        if !limits::SUBSET_SIZE.contains(&self.size) {
            let (low, high) = (limits::SUBSET_SIZE.start(), limits::SUBSET_SIZE.end());
            let rule = format!("must be between {low} and {high}, got {}", self.size);
            return Err(Invalid::new("subset.size", rule));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;

    #[test]
    fn both_fields_have_their_rules() {
        let asked =
            |client: &str, size| Query { subset: Some(Subset { client: client.into(), size }), ..Query::default() };
        for good in [asked("a", 1), asked(&"~".repeat(64), 1_024)] {
            good.validate().unwrap();
        }
        for (bad, field) in [
            (asked("", 1), "subset.client"),
            (asked(&"x".repeat(65), 1), "subset.client"),
            (asked("a b", 1), "subset.client"),
            (asked("a\n", 1), "subset.client"),
            (asked("a", 0), "subset.size"),
            (asked("a", 1_025), "subset.size"),
        ] {
            assert_eq!(bad.validate().unwrap_err().field, field);
        }
    }

    #[test]
    fn a_query_without_one_is_written_as_before() {
        let plain = Query::default();
        assert!(!serde_json::to_string(&plain).unwrap().contains("subset"));
        let one = Query { subset: Some(Subset { client: "order-1".into(), size: 20 }), ..plain.clone() };
        for query in [plain, one] {
            let json = serde_json::to_string(&query).unwrap();
            assert_eq!(serde_json::from_str::<Query>(&json).unwrap(), query);
            let bytes = postcard::to_allocvec(&query).unwrap();
            assert_eq!(postcard::from_bytes::<Query>(&bytes).unwrap(), query);
        }
    }
}
