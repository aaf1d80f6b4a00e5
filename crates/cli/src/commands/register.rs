//! `roundsman register`: registers a program that is running already, and ends.

use std::sync::Arc;

use roundsman::{
    Check, DiscoveryError, Error, Query, Scope,
    protocol::{Expect, Registration},
};

use crate::{
    args::{Output, RegisterArgs},
    commands::connect,
    exit::Failure,
    output::Screen,
};

pub(crate) async fn run(args: RegisterArgs) -> Result<(), Failure> {
    let (client, registration) = split(args);
    registration.validate().map_err(Error::from)?;
    let discovery = connect(&client).await?;
    let id = discovery.register_once(&registration).await?.id;
    let mut screen = Screen::stdout();
    if client.output == Output::Table {
        return screen.line(id.as_str());
    }
    let all = discovery.list(Query::service(registration.name).scope(Scope::All)).await?;
    let instance = all.into_iter().find(|instance| instance.id == id);
    screen.json(&*instance.ok_or(Error::Discovery(DiscoveryError::NotRegistered { id }))?)
}

fn split(args: RegisterArgs) -> (crate::args::ClientArgs, Registration) {
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
        ..Registration::new(args.name, args.address)
    };
    (args.client, registration)
}
