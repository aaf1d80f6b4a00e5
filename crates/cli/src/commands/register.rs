//! `roundsman register`: registers a program that is running already, and ends.

use std::{sync::Arc, time::Duration};

use clap::Args;
use roundsman::{
    Address, Check, CheckKind, DiscoveryError, Error, InstanceId, Query, Scope, ServiceName,
    protocol::{Expect, Registration, limits, time},
};

use crate::{
    args::{
        ClientArgs, Shape,
        values::{check_kind, key_value},
    },
    commands::{connect, note},
    exit::Failure,
    output::Screen,
};

#[derive(Args, Debug)]
pub(crate) struct RegisterArgs {
    /// The service's name
    #[arg(long, value_name = "NAME", value_parser = ServiceName::try_new)]
    name: ServiceName,
    /// Where callers, and the rounds, reach the instance
    #[arg(long, value_name = "HOST:PORT", value_parser = |text: &str| text.parse::<Address>())]
    address: Address,
    /// The path to visit (http and https) [default: /health]
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    /// How to visit: http, https, tcp, ttl (the program itself renews over RPC), none (always passing)
    #[arg(long, value_name = "KIND", default_value = "http", value_parser = check_kind, hide_possible_values = true)]
    check: CheckKind,
    /// Longest silence of an instance with a ttl check, such as 30s
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    ttl: Option<Duration>,
    /// Time between two visits [default: the server's, 5s]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    interval: Option<Duration>,
    /// Time that a visit may take [default: the server's, 1s]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    timeout: Option<Duration>,
    /// What the answer must carry, written `name: value`, so that another program at its address does not pass for it
    #[arg(long, value_name = "FIELD", conflicts_with = "expect_body")]
    expect_header: Option<String>,
    /// A text that the body of the answer must have
    #[arg(long, value_name = "TEXT")]
    expect_body: Option<String>,
    /// The instance's id [default: the name and ten random characters]
    #[arg(long, value_parser = InstanceId::try_new)]
    id: Option<InstanceId>,
    /// A word to filter by; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A metadata entry; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// Where it runs
    #[arg(long)]
    zone: Option<String>,
    /// Its share of lookups, relative to the service's other instances
    #[arg(long, value_name = "N", default_value_t = limits::DEFAULT_WEIGHT, allow_negative_numbers = true)]
    weight: u32,
    /// Which version it is
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// How long it is remembered once it is evicted, visited now and then, and back when it answers [default: 72h]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    forget_after: Option<Duration>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Nothing keeps these instances registered, so an outage of a weekend must not be their end.
const FORGET_AFTER: Duration = Duration::from_secs(72 * 3_600);

pub(crate) async fn run(args: RegisterArgs) -> Result<(), Failure> {
    let chosen = args.forget_after.is_some();
    let (client, registration) = split(args);
    registration.validate().map_err(Error::from)?;
    let discovery = connect(&client).await?;
    let registered = match discovery.register_once(&registration).await {
        Err(Error::Invalid(invalid)) if invalid.field == "forget_after" && !chosen => {
            note("the server is of an earlier release: once evicted, the instance is forgotten after its probation");
            discovery.register_once(&Registration { forget_after: None, ..registration.clone() }).await?
        }
        registered => registered?,
    };
    for other in &registered.replaced {
        note(&format!("it replaced {other}, which was registered at the same address"));
    }
    let id = registered.id;
    let mut screen = Screen::stdout();
    let Some(data) = client.output().data() else { return screen.line(id.as_str()) };
    let all = discovery.list(Query::service(registration.name).scope(Scope::All)).await?;
    let instance = all.into_iter().find(|instance| instance.id == id);
    screen.data(data, &*instance.ok_or(Error::Discovery(DiscoveryError::NotRegistered { id }))?)
}

fn split(args: RegisterArgs) -> (ClientArgs, Registration) {
    let header = args.expect_header.map(|field| Expect::Header(field.into()));
    let expect = header.or_else(|| args.expect_body.map(|text| Expect::Body(text.into())));
    let check = Check {
        kind: args.check,
        path: args.health.map(Arc::from),
        interval: args.interval,
        timeout: args.timeout,
        ttl: args.ttl,
        expect: expect.map(Arc::new),
    };
    let registration = Registration {
        id: args.id,
        check,
        tags: args.tags.into_iter().map(Box::from).collect(),
        meta: args.meta.into_iter().collect(),
        zone: args.zone.map(Box::from),
        version: args.version.map(Box::from),
        weight: args.weight,
        forget_after: Some(args.forget_after.unwrap_or(FORGET_AFTER)),
        ..Registration::new(args.name, args.address)
    };
    (args.client, registration)
}
