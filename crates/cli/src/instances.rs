//! Instances as people and scripts read them: the columns of a table, and how a list is printed.

use std::{str::FromStr, sync::Arc};

use roundsman::{Instance, Timestamp, protocol::time};

use crate::{
    args::{Output, Shape},
    exit::Failure,
    output::{Screen, Style, ago, now},
    table::{Cell, Table},
};

/// What can be told of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Id,
    Name,
    Namespace,
    Address,
    Host,
    Port,
    Status,
    Since,
    Reason,
    Registered,
    Check,
    Tags,
    /// All of its metadata, or one entry.
    Meta(Option<String>),
    Zone,
    Version,
    Weight,
    ForgetAfter,
}

const NAMED: [(&str, Column); 17] = [
    ("id", Column::Id),
    ("name", Column::Name),
    ("namespace", Column::Namespace),
    ("address", Column::Address),
    ("host", Column::Host),
    ("port", Column::Port),
    ("status", Column::Status),
    ("since", Column::Since),
    ("reason", Column::Reason),
    ("registered", Column::Registered),
    ("check", Column::Check),
    ("tags", Column::Tags),
    ("meta", Column::Meta(None)),
    ("zone", Column::Zone),
    ("version", Column::Version),
    ("weight", Column::Weight),
    ("forget-after", Column::ForgetAfter),
];

/// What a table of them has.
const SHORT: [Column; 5] = [Column::Id, Column::Address, Column::Status, Column::Since, Column::Reason];
/// With `-o wide`.
const WIDE: [Column; 13] = [
    Column::Id,
    Column::Address,
    Column::Status,
    Column::Since,
    Column::Registered,
    Column::Check,
    Column::Weight,
    Column::Version,
    Column::Zone,
    Column::Tags,
    Column::Meta(None),
    Column::ForgetAfter,
    Column::Reason,
];

/// How instances are printed.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) output: Output,
    columns: Vec<Column>,
    headers: bool,
}

// === impl View ===

impl View {
    /// As the flags say.
    pub(crate) fn new(output: Output, columns: &[String], headers: bool) -> Result<Self, Failure> {
        if !columns.is_empty() && !matches!(output, Output::Table | Output::Wide) {
            return Err(Failure::Usage("--columns are those of a table; leave it out, or -o".to_owned()));
        }
        let chosen: Result<Vec<Column>, Failure> = columns.iter().map(|name| name.parse()).collect();
        let columns = match chosen? {
            chosen if !chosen.is_empty() => chosen,
            _ if output == Output::Wide => WIDE.to_vec(),
            _ => SHORT.to_vec(),
        };
        Ok(Self { output, columns, headers })
    }

    /// Prints them.
    pub(crate) fn print(&self, screen: &mut Screen, instances: &[Arc<Instance>]) -> Result<(), Failure> {
        if let Some(data) = self.output.data() {
            return screen.data(data, instances);
        }
        if self.output == Output::Name {
            return instances.iter().try_for_each(|instance| screen.line(instance.id.as_str()));
        }
        self.table(instances).print(screen)
    }

    fn table(&self, instances: &[Arc<Instance>]) -> Table {
        let now = now();
        let mut table = Table::new(self.columns.iter().map(Column::title));
        table.headers(self.headers);
        for instance in instances {
            table.row(self.columns.iter().map(|column| column.cell(instance, now)));
        }
        table
    }
}

// === impl Column ===

impl Column {
    fn title(&self) -> String {
        match self {
            Self::Meta(Some(key)) => format!("META.{key}"),
            column => {
                let named = NAMED.iter().find(|(_, named)| named == column);
                named.map_or_else(String::new, |(name, _)| name.to_uppercase())
            }
        }
    }

    fn cell(&self, instance: &Instance, now: Timestamp) -> Cell {
        let text = |text: Option<&str>| Cell::new(text.filter(|text| !text.is_empty()).unwrap_or("-"));
        match self {
            Self::Id => Cell::new(&instance.id),
            Self::Name => Cell::new(&instance.name),
            Self::Namespace => Cell::new(instance.namespace.as_str()),
            Self::Address => Cell::new(instance.address.to_string()),
            Self::Host => Cell::new(instance.address.host().to_string()),
            Self::Port => Cell::new(instance.address.port().to_string()),
            Self::Status => Cell::styled(instance.status.to_string(), Style::of(instance.status)),
            Self::Since => Cell::new(ago(instance.since, now)),
            Self::Reason => Cell::new(&instance.reason),
            Self::Registered => Cell::new(ago(instance.registered_at, now)),
            Self::Check => Cell::new(check(instance)),
            Self::Tags => text(Some(&instance.tags.join(","))),
            Self::Meta(None) => text(Some(&meta(instance))),
            Self::Meta(Some(key)) => text(instance.meta.get(key)),
            Self::Zone => text(instance.zone.as_deref()),
            Self::Version => text(instance.version.as_deref()),
            Self::Weight => Cell::new(instance.weight.to_string()),
            Self::ForgetAfter => text(instance.forget_after.map(time::display).as_deref()),
        }
    }
}

impl FromStr for Column {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        if let Some(key) = text.strip_prefix("meta.").filter(|key| !key.is_empty()) {
            return Ok(Self::Meta(Some(key.to_owned())));
        }
        let known = NAMED.iter().find(|(name, _)| *name == text).map(|(_, column)| column.clone());
        known.ok_or_else(|| {
            let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
            Failure::Usage(format!("instances have no column `{text}`; they have {} and meta.KEY", names.join(", ")))
        })
    }
}

fn meta(instance: &Instance) -> String {
    let entries: Vec<String> = instance.meta.iter().map(|(key, value)| format!("{key}={value}")).collect();
    entries.join(",")
}

/// In a word or two: `http /health every 5s`.
fn check(instance: &Instance) -> String {
    let check = &instance.check;
    let path = check.path().map(|path| format!(" {path}")).unwrap_or_default();
    let every = check.interval.map(|interval| format!(" every {}", time::display(interval))).unwrap_or_default();
    let ttl = check.ttl.map(|ttl| format!(" {}", time::display(ttl))).unwrap_or_default();
    format!("{}{path}{every}{ttl}", check.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_name_and_a_title() {
        for (name, column) in &NAMED {
            assert_eq!((name.parse::<Column>().unwrap(), column.title()), (column.clone(), name.to_uppercase()));
        }
        assert_eq!("meta.team".parse::<Column>().unwrap().title(), "META.team");
        let refused = "colour".parse::<Column>().unwrap_err().to_string();
        assert!(refused.contains("`colour`") && refused.contains("id, name, namespace"), "{refused}");
    }
}
