//! What a template may use up, so that a mistake in it does not take the machine down.

use std::io;

use minijinja::{
    Environment, Error, ErrorKind, State, Value, filters,
    value::{Rest, ValueOrKwargs},
};

/// Steps: some seconds of work. A list of 100,000 instances takes a few millions.
pub(super) const STEPS: u64 = 30_000_000;
/// The longest file.
pub(super) const LONGEST: usize = 256 * 1_024 * 1_024;
/// The widest field of `format` and the deepest `indent`.
const WIDEST: usize = 1_024;

/// Keeps what is written, up to a length.
#[derive(Debug)]
pub(super) struct Bounded {
    text: Vec<u8>,
    left: usize,
}

// === impl Bounded ===

impl Bounded {
    pub(super) fn new(most: usize) -> Self {
        Self { text: Vec::new(), left: most }
    }

    pub(super) fn into_text(self) -> Result<String, Error> {
        String::from_utf8(self.text).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
    }
}

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(piece.len()) else {
            return Err(io::Error::other("the file would be longer than 256 MiB"));
        };
        self.left = left;
        self.text.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts the bounds on.
pub(super) fn put_on(environment: &mut Environment<'_>) {
    environment.set_fuel(Some(STEPS));
    environment.add_filter("unbounded_format", filters::format);
    environment.add_filter("unbounded_indent", filters::indent);
    environment.add_filter("format", format);
    environment.add_filter("indent", indent);
}

/// The filter as it is, for fields that a line can hold.
fn format(state: &mut State<'_, '_>, text: Value, fields: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let fields = fields.into_values();
    let written = text.as_str().unwrap_or_default();
    let numbers = written.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widths = numbers.map(|digits| digits.parse().unwrap_or(usize::MAX));
    // A star is a width that is given as one of the fields.
    let given = fields.iter().filter(|_| written.contains('*')).filter_map(number);
    narrow("format()", widths.chain(given))?;
    state.apply_filter("unbounded_format", &[std::slice::from_ref(&text), &fields[..]].concat())
}

/// The filter as it is, for depths that a line can hold.
fn indent(state: &mut State<'_, '_>, text: Value, how: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let how = how.into_values();
    let named = how.iter().filter_map(|how| how.get_attr("width").ok());
    narrow("indent()", how.iter().filter_map(number).chain(named.filter_map(|width| number(&width))))?;
    state.apply_filter("unbounded_indent", &[std::slice::from_ref(&text), &how[..]].concat())
}

fn number(value: &Value) -> Option<usize> {
    usize::try_from(value.clone()).ok()
}

fn narrow(filter: &str, mut widths: impl Iterator<Item = usize>) -> Result<(), Error> {
    if widths.any(|width| width > WIDEST) {
        let text = format!("{filter} makes nothing wider than {WIDEST}");
        return Err(Error::new(ErrorKind::InvalidOperation, text));
    }
    Ok(())
}
