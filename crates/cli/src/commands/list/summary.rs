//! Services, and how many of their instances are in which status.

use std::{collections::BTreeMap, sync::Arc};

use roundsman::{Instance, InstanceStatus, Namespace, ServiceName, ServiceSummary};

use crate::{
    args::{Output, Shape},
    exit::Failure,
    output::{Screen, Style},
    table::{Cell, Table},
};

/// Title, colour, and what is counted.
type Count = (&'static str, Style, fn(&ServiceSummary) -> u32);

const COUNTS: [Count; 6] = [
    ("instances", Style::Plain, |service| service.instances),
    ("passing", Style::Green, |service| service.passing),
    ("suspect", Style::Yellow, |service| service.suspect),
    ("starting", Style::Plain, |service| service.starting),
    ("draining", Style::Cyan, |service| service.draining),
    ("evicted", Style::Red, |service| service.evicted),
];
const NAME: &str = "name";

/// How services are printed.
#[derive(Debug)]
pub(crate) struct Services {
    output: Output,
    columns: Vec<&'static str>,
    headers: bool,
    namespace: Namespace,
    filtered: bool,
}

// === impl Services ===

impl Services {
    pub(super) fn new(
        output: Output,
        columns: &[String],
        headers: bool,
        namespace: Namespace,
        filtered: bool,
    ) -> Result<Self, Failure> {
        if !columns.is_empty() && !matches!(output, Output::Table | Output::Wide) {
            return Err(Failure::Usage("--columns are those of a table; leave it out, or -o".to_owned()));
        }
        let known = || [NAME].into_iter().chain(COUNTS.iter().map(|(name, ..)| *name));
        let chosen: Result<Vec<_>, _> =
            columns.iter().map(|column| known().find(|name| name == column).ok_or(column)).collect();
        let columns = match chosen {
            Ok(chosen) if !chosen.is_empty() => chosen,
            Ok(_) if output == Output::Wide => known().collect(),
            Ok(_) => known().filter(|name| *name != "instances").collect(),
            Err(column) => {
                let names: Vec<&str> = known().collect();
                let names = names.join(", ");
                let text = format!("services have no column `{column}`; they have {names} (instances: see list NAME)");
                return Err(Failure::Usage(text));
            }
        };
        Ok(Self { output, columns, headers, namespace, filtered })
    }

    pub(super) fn print(&self, screen: &mut Screen, services: &[ServiceSummary]) -> Result<(), Failure> {
        if let Some(data) = self.output.data() {
            return screen.data(data, services);
        }
        if self.output == Output::Name {
            return services.iter().try_for_each(|service| screen.line(service.name.as_str()));
        }
        table(&self.columns, self.headers, services).print(screen)
    }

    /// What is said where there is nothing to print.
    pub(super) fn none(&self) -> String {
        let what = if self.filtered { "no service has such instances" } else { "no services are registered" };
        format!("{what} in namespace `{}`", self.namespace)
    }

    pub(super) fn output(&self) -> Output {
        self.output
    }
}

/// As `roundsman list` has them.
pub(crate) fn services_table(services: &[ServiceSummary]) -> Table {
    table(&[NAME, "passing", "suspect", "starting", "draining", "evicted"], true, services)
}

fn table(columns: &[&'static str], headers: bool, services: &[ServiceSummary]) -> Table {
    let title = |column: &&str| if *column == NAME { "SERVICE".to_owned() } else { column.to_uppercase() };
    let mut table = Table::new(columns.iter().map(title));
    table.headers(headers);
    for service in services {
        table.row(columns.iter().map(|column| cell(service, column)));
    }
    table
}

fn cell(service: &ServiceSummary, column: &str) -> Cell {
    match COUNTS.iter().find(|(name, ..)| *name == column) {
        Some((_, style, count)) => Cell::count(count(service), *style),
        None => Cell::new(&service.name),
    }
}

/// What a server would count, of these instances alone.
pub(super) fn summaries<'a>(instances: impl IntoIterator<Item = &'a Arc<Instance>>) -> Vec<ServiceSummary> {
    let mut services: BTreeMap<ServiceName, ServiceSummary> = BTreeMap::new();
    for instance in instances {
        let none = || ServiceSummary {
            name: instance.name.clone(),
            instances: 0,
            passing: 0,
            suspect: 0,
            starting: 0,
            draining: 0,
            evicted: 0,
        };
        let service = services.entry(instance.name.clone()).or_insert_with(none);
        let count = match instance.status {
            InstanceStatus::Passing => &mut service.passing,
            InstanceStatus::Suspect => &mut service.suspect,
            InstanceStatus::Starting => &mut service.starting,
            InstanceStatus::Draining => &mut service.draining,
            InstanceStatus::Evicted => &mut service.evicted,
        };
        *count += 1;
        service.instances += u32::from(instance.status != InstanceStatus::Evicted);
    }
    services.into_values().collect()
}
