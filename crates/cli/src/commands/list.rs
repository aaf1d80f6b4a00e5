//! `roundsman list [NAME]`

mod live;
pub(crate) mod summary;

use clap::Args;
use clap_complete::ArgValueCompleter;
use roundsman::{Discovery, Query, Scope, ServiceName};

use self::summary::{Services, summaries};
use crate::{
    args::{ClientArgs, Filter, Output},
    commands::{connect, note},
    complete,
    exit::Failure,
    instances::View,
    output::Screen,
};

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Show this service's instances, also those on probation
    #[arg(value_parser = ServiceName::try_new, add = ArgValueCompleter::new(complete::services))]
    name: Option<ServiceName>,
    /// Show these columns, such as id,address,zone or id,meta.team; of services, such as name,passing
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    columns: Vec<String>,
    /// Leave the titles of the columns out
    #[arg(long)]
    no_headers: bool,
    /// Show it again whenever it changes, until interrupted
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pub(crate) client: ClientArgs<Output>,
}

/// What is shown, and how.
enum Shown {
    Services(Services),
    Instances(ServiceName, View),
}

pub(crate) async fn run(args: ListArgs) -> Result<(), Failure> {
    let (output, headers, namespace) = (args.client.output(), !args.no_headers, args.client.namespace());
    let shown = match args.name {
        Some(name) => Shown::Instances(name, View::new(output, &args.columns, headers)?),
        None => {
            let (namespace, filtered) = (namespace.clone(), !args.filter.is_empty());
            Shown::Services(Services::new(output, &args.columns, headers, namespace, filtered)?)
        }
    };
    let discovery = connect(&args.client).await?;
    if args.watch {
        return live::follow(&discovery, &shown, &args.filter, &namespace).await;
    }
    match shown {
        Shown::Services(services) => {
            let found = match args.filter.is_empty() {
                true => discovery.services().await?,
                false => {
                    let mut instances = discovery.list(args.filter.query(None, Scope::All)?).await?;
                    instances.retain(|instance| args.filter.passes(instance));
                    summaries(&instances)
                }
            };
            if found.is_empty() && matches!(output, Output::Table | Output::Wide) {
                note(&services.none());
                return Ok(());
            }
            services.print(&mut Screen::stdout(), &found)
        }
        Shown::Instances(name, view) => instances(&discovery, &name, &args.filter, &view).await,
    }
}

async fn instances(discovery: &Discovery, name: &ServiceName, filter: &Filter, view: &View) -> Result<(), Failure> {
    let query = Query { history: true, ..filter.query(Some(name), Scope::All)? };
    let mut instances = discovery.list(query).await?;
    instances.retain(|instance| filter.passes(instance));
    if instances.is_empty() {
        return Err(nothing_matches(discovery, name).await?);
    }
    view.print(&mut Screen::stdout(), &instances)
}

/// Why nothing of this name was found.
pub(crate) async fn nothing_matches(discovery: &Discovery, name: &ServiceName) -> Result<Failure, Failure> {
    let services = discovery.services().await?;
    Ok(match services.iter().find(|service| service.name == *name) {
        None => Failure::no_such_service(name.clone()),
        Some(service) => {
            let all = service.instances + service.evicted;
            Failure::NotFound {
                what: format!("no instance of `{name}` is what you ask for ({all} known)"),
                see: format!("list {name} -o wide"),
                why: "for what they are",
            }
        }
    })
}
