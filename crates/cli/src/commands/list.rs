//! `roundsman list [NAME]`

use std::sync::Arc;

use roundsman::{Discovery, Instance, Query, Scope, ServiceName};

use crate::{
    args::{ListArgs, Output},
    commands::{connect, services_table},
    exit::Failure,
    output::{Screen, Style, ago, now},
    table::{Cell, Table},
};

pub(crate) async fn run(args: ListArgs) -> Result<(), Failure> {
    let discovery = connect(&args.client).await?;
    match args.name {
        Some(name) => instances(&discovery, name, args.client.output).await,
        None => services(&discovery, args.client.output).await,
    }
}

async fn services(discovery: &Discovery, output: Output) -> Result<(), Failure> {
    let services = discovery.services().await?;
    let mut screen = Screen::stdout();
    match output {
        Output::Json => screen.json(&services),
        Output::Table if services.is_empty() => screen.line("no services are registered"),
        Output::Table => services_table(&services).print(&mut screen),
    }
}

async fn instances(discovery: &Discovery, name: ServiceName, output: Output) -> Result<(), Failure> {
    let query = Query { history: true, ..Query::service(name.clone()).scope(Scope::All) };
    let instances = discovery.list(query).await?;
    if instances.is_empty() {
        return Err(Failure::no_such_service(name));
    }
    let mut screen = Screen::stdout();
    match output {
        Output::Json => screen.json(&instances),
        Output::Table => table(&instances).print(&mut screen),
    }
}

fn table(instances: &[Arc<Instance>]) -> Table {
    let now = now();
    let mut table = Table::new(["ID", "ADDRESS", "STATUS", "SINCE", "REASON"]);
    for instance in instances {
        table.row([
            Cell::new(&instance.id),
            Cell::new(instance.address.to_string()),
            Cell::styled(instance.status.to_string(), Style::of(instance.status)),
            Cell::new(ago(instance.since, now)),
            Cell::new(&instance.reason),
        ]);
    }
    table
}
