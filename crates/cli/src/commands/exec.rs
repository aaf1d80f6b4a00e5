//! `roundsman exec --service product -- COMMAND`: a program that finds addresses in its environment.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command, sync::Arc, time::Duration};

use clap::Args;
use clap_complete::ArgValueCompleter;
use roundsman::{Discovery, Instance, ServiceName, protocol::time};

use crate::{
    args::{ClientArgs, Filter, Shape},
    commands::{connect, connect_lazy, get::one_of, wait::Wanted},
    complete,
    exit::Failure,
};

#[derive(Args, Debug)]
pub(crate) struct ExecArgs {
    /// Whose address the command needs: PRODUCT_ADDRESS, PRODUCT_HOST, PRODUCT_PORT and PRODUCT_ID; may be repeated
    #[arg(long = "service", value_name = "NAME", required = true, value_parser = ServiceName::try_new,
          add = ArgValueCompleter::new(complete::services))]
    services: Vec<ServiceName>,
    /// Wait so long at most until each of them has an instance, such as 30s; 0s asks once
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    wait: Option<Duration>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The command, and what it takes
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) async fn run(args: ExecArgs) -> Result<(), Failure> {
    if args.client.output().data().is_some() {
        return Err(Failure::Usage("exec prints nothing of its own; leave -o out".to_owned()));
    }
    let discovery = match args.wait {
        Some(_) => connect_lazy(&args.client)?,
        None => connect(&args.client).await?,
    };
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Failure::Usage("name a command after `--`".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(rest);
    command.env("ROUNDSMAN_SERVER", args.client.server());
    let namespace = args.client.namespace();
    command.env("ROUNDSMAN_NAMESPACE", namespace.as_str());
    for service in &args.services {
        let wanted = Wanted { namespace: &namespace, name: service, filter: &args.filter, count: 1 };
        let instance = one(&discovery, wanted, args.wait).await?;
        command.envs(variables(&instance));
    }
    discovery.close().await;
    // It takes this process's place: signals, terminal and exit code are its own.
    let error = command.exec();
    Err(Failure::NotRun { program: program.to_string_lossy().into_owned(), error })
}

async fn one(discovery: &Discovery, wanted: Wanted<'_>, wait: Option<Duration>) -> Result<Arc<Instance>, Failure> {
    if let Some(wait) = wait {
        wanted.wait(discovery, wait).await?;
    }
    let Wanted { name, filter, .. } = wanted;
    if filter.is_empty() { Ok(discovery.get(name.clone()).await?) } else { one_of(discovery, name, filter).await }
}

fn variables(instance: &Instance) -> [(String, String); 4] {
    let mut prefix = instance.name.as_str().replace('-', "_").to_uppercase();
    if prefix.starts_with(|c: char| c.is_ascii_digit()) {
        // No shell knows names that begin with a digit.
        prefix.insert(0, '_');
    }
    [
        (format!("{prefix}_ADDRESS"), instance.address.to_string()),
        (format!("{prefix}_HOST"), instance.address.host().to_string()),
        (format!("{prefix}_PORT"), instance.address.port().to_string()),
        (format!("{prefix}_ID"), instance.id.to_string()),
    ]
}
