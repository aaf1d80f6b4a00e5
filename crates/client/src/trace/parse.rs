//! The two headers, by the letter of the recommendation.

/// A `traceparent` that is one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parent {
    /// What is passed on.
    pub(super) text: String,
    pub(super) trace_id: String,
    pub(super) sampled: bool,
}

/// The length of version 00: `00-TRACE_ID-PARENT_ID-FLAGS`.
const LEN: usize = 55;
/// Most members of a `tracestate`.
const MAX_MEMBERS: usize = 32;
/// Longest `tracestate` that is passed on; 512 is what everybody must be able to.
const MAX_STATE: usize = 512;

/// Reads a `traceparent`. One of a later version is passed on as one of version 00, which is what we know.
pub(super) fn parent(header: &str) -> Option<Parent> {
    let text = header.trim_matches([' ', '\t']);
    let known = text.get(..LEN)?;
    let rest = text.get(LEN..)?;
    let mut fields = known.split('-');
    let mut field = |len| fields.next().filter(|field| field.len() == len && is_hex(field));
    let (version, trace_id, parent_id, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    let zeros = |id: &str| id.bytes().all(|b| b == b'0');
    if version == "ff" || zeros(trace_id) || zeros(parent_id) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let text = match version {
        "00" if rest.is_empty() => known.to_owned(),
        "00" => return None,
        _ if rest.is_empty() || rest.starts_with('-') => format!("00-{trace_id}-{parent_id}-{:02x}", flags & 1),
        _ => return None,
    };
    Some(Parent { text, trace_id: trace_id.to_owned(), sampled: flags & 1 == 1 })
}

/// Reads a `tracestate`: its members, without empty ones. `None` if it breaks a rule, or there is nothing in it.
pub(super) fn state(header: &str) -> Option<String> {
    let members: Vec<_> = header.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    let members: Vec<_> = members.into_iter().filter(|member| !member.is_empty()).collect();
    let mut keys: Vec<_> = members.iter().map(|member| key_of(member)).collect::<Option<_>>()?;
    keys.sort_unstable();
    let unique = keys.windows(2).all(|two| two.first() != two.last());
    let text = members.join(",");
    (unique && (1..=MAX_MEMBERS).contains(&members.len()) && text.len() <= MAX_STATE).then_some(text)
}

/// The key of a member `key=value`, if it is one.
fn key_of(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/".contains(&b);
    let part = |part: &str, longest: usize, first: fn(u8) -> bool| {
        (1..=longest).contains(&part.len()) && part.bytes().all(fits) && part.bytes().next().is_some_and(first)
    };
    let letter = |b: u8| b.is_ascii_lowercase();
    let key_fits = match key.split_once('@') {
        Some((tenant, system)) => {
            part(tenant, 241, |b| b.is_ascii_lowercase() || b.is_ascii_digit()) && part(system, 14, letter)
        }
        None => part(key, 256, letter),
    };
    // Spaces at the end were trimmed with the member.
    let value_fits =
        (1..=256).contains(&value.len()) && value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b',' && b != b'=');
    (key_fits && value_fits).then_some(key)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn sent_on(header: &str) -> Option<String> {
        parent(header).map(|parent| parent.text)
    }

    #[test]
    fn a_good_parent_is_passed_on_as_it_is() {
        for flags in ["00", "01", "03", "ff"] {
            let header = format!("00-{TRACE}-{SPAN}-{flags}");
            let read = parent(&header).unwrap();
            assert_eq!((read.text.as_str(), read.trace_id.as_str()), (header.as_str(), TRACE));
            assert_eq!(read.sampled, flags != "00");
            assert_eq!(sent_on(&format!(" {header}\t")), Some(header));
        }
    }

    #[test]
    fn a_later_version_becomes_ours() {
        let ours = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(sent_on(&format!("cc-{TRACE}-{SPAN}-01")), Some(ours.clone()));
        assert_eq!(sent_on(&format!("01-{TRACE}-{SPAN}-09-what-will-be")), Some(ours));
        assert_eq!(sent_on(&format!("01-{TRACE}-{SPAN}-09.what-will-be")), None);
    }

    #[test]
    fn broken_parents_are_dropped() {
        let (upper, zeros) = (TRACE.to_uppercase(), "0".repeat(32));
        let broken = [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("00-{TRACE}{SPAN}-01-000000000"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-010"),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{}é-{SPAN}-01", &TRACE[..30]),
            "é".repeat(40),
        ];
        for header in broken {
            assert_eq!(sent_on(&header), None, "{header}");
        }
    }

    #[test]
    fn a_state_is_passed_on_whole_or_not_at_all() {
        let good = [
            ("rojo=00f067aa0ba902b7", "rojo=00f067aa0ba902b7"),
            ("a=1, b=2 ,\t,c=x y", "a=1,b=2,c=x y"),
            ("0tenant@vendor=v,a_-*/=~!", "0tenant@vendor=v,a_-*/=~!"),
        ];
        for (header, sent) in good {
            assert_eq!(state(header).as_deref(), Some(sent));
        }
        let many: Vec<_> = (0..33).map(|n| format!("k{n}=v")).collect();
        assert!(state(&many[..32].join(",")).is_some());
        let long = format!("a={}", "x".repeat(257));
        let bad = [
            "",
            " , ",
            "a",
            "a=",
            "=1",
            "A=1",
            "1a=1",
            "a=1,a=2",
            "a=b=c",
            "a=é",
            "a@=1",
            "@b=1",
            "a@1=1",
            "a@b@c=1",
            &many.join(","),
            &long,
        ];
        for header in bad {
            assert_eq!(state(header), None, "{header}");
        }
    }
}
