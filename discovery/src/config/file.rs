//! The configuration file: TOML, flat, its keys are the flags' names.

use std::path::Path;

use toml::{Table, Value};

/// A setting's name, and its value as text, or what is wrong with the value.
type Setting = (String, Result<String, String>);

/// The settings of a file.
///
/// # Errors
/// When the file cannot be read or is no TOML. Values that are no setting are mistakes of their own.
pub(super) fn read(path: &Path) -> Result<Vec<Setting>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let table: Table = text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(table.into_iter().map(|(name, value)| (name, as_text(value))).collect())
}

fn as_text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Boolean(flag) => Ok(flag.to_string()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Array(values) => {
            let texts: Result<Vec<String>, String> = values.into_iter().map(as_text).collect();
            Ok(texts?.join(","))
        }
        other => Err(format!(
            "must be a string, a whole number, true, false or a list of strings, not a {}",
            other.type_str()
        )),
    }
}
