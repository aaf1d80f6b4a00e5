//! What a bookmark says: `EPOCH.REVISION.PARTS.SERVICE/ID`, with the parts in hexadecimal.
//!
//! Nothing in it has to be trusted. Whoever makes one up reads what it could have listed anyway, from some place on.

use roundsman_protocol::{Bookmark, Cursor, InstanceId, Invalid, ServiceName};
use roundsman_registry::snapshot::Place;

/// Where the next page of an answer begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    /// The moment of the first page.
    pub(crate) first: Cursor,
    /// Which parts of a digest the answer is about, as a bitmask.
    pub(crate) parts: u64,
    /// The last instance on the page before.
    pub(crate) place: Place,
}

// === impl Mark ===

impl Mark {
    /// Reads a bookmark, which came in `field`.
    ///
    /// # Errors
    /// When no server writes such bookmarks.
    pub(super) fn read(field: &str, bookmark: &Bookmark) -> Result<Self, Invalid> {
        parse(bookmark.as_str()).ok_or_else(|| {
            let rule = "this is no bookmark of a server; send what an answer had as `next`, or begin anew without one";
            Invalid::new(field, rule)
        })
    }

    /// As text.
    ///
    /// # Errors
    /// Never: names and ids are short and printable.
    pub(crate) fn write(&self) -> Result<Bookmark, Invalid> {
        let Self { first: Cursor { epoch, revision }, parts, place: (service, id) } = self;
        Bookmark::try_new(format!("{epoch}.{revision}.{parts:x}.{service}/{id}"))
    }
}

fn parse(text: &str) -> Option<Mark> {
    let mut fields = text.splitn(4, '.');
    let mut field = || fields.next();
    let (epoch, revision) = (field()?.parse().ok()?, field()?.parse().ok()?);
    let parts = u64::from_str_radix(field()?, 16).ok().filter(|parts| *parts != 0)?;
    let (service, id) = field()?.split_once('/')?;
    let place = (ServiceName::try_new(service).ok()?, InstanceId::try_new(id).ok()?);
    Some(Mark { first: Cursor { epoch, revision }, parts, place })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roundsman_protocol::{digest::ALL_PARTS, limits};

    use super::*;

    #[test]
    fn the_longest_bookmark_is_short_enough() {
        let first = Cursor { epoch: u64::MAX, revision: u64::MAX };
        let longest = |max: usize| "x".repeat(max);
        let service = longest(limits::MAX_NAME_LEN).parse().unwrap();
        let place = (service, longest(limits::MAX_ID_LEN).parse().unwrap());
        let mark = Mark { first, parts: ALL_PARTS, place };
        let bookmark = mark.write().unwrap();
        assert!(bookmark.as_str().len() < limits::MAX_BOOKMARK_LEN);
        assert_eq!(Mark::read("page", &bookmark), Ok(mark));
    }

    #[test]
    fn what_no_server_wrote_is_refused_with_a_sentence() {
        for bad in [
            "x",
            "....",
            "1.2.f",
            "1.2.f.",
            "1.2.f./",
            "1.2.f.db",
            "1.2.f.db/",
            "1.2.0.db/a",
            "1.2.11111111111111111.db/a",
            "1.2.-1.db/a",
            "-1.2.f.db/a",
            "1.99999999999999999999.f.db/a",
            "1.2.f.d_b/a",
            "1.2.f.db/a/b",
            "1.2.f.db/-a",
            &"9".repeat(512),
        ] {
            let refusal = Mark::read("after", &bad.parse().unwrap()).unwrap_err();
            assert_eq!(refusal.field, "after", "{bad}");
            assert!(refusal.to_string().contains("begin anew without one"), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_reason_to_panic(text in "[!-~]{1,512}") {
            drop(Mark::read("page", &text.parse().unwrap()));
        }

        #[test]
        fn what_is_nearly_a_bookmark_is_read_as_one_that_is_written_the_same_or_refused(
            text in "[0-9]{1,21}\\.[0-9]{1,21}\\.[0-9a-f]{1,18}\\.[a-z-]{1,8}/[A-Za-z0-9._:-]{1,8}",
        ) {
            if let Ok(mark) = Mark::read("page", &text.parse().unwrap()) {
                prop_assert_eq!(Mark::read("page", &mark.write().unwrap()), Ok(mark));
            }
        }
    }
}
