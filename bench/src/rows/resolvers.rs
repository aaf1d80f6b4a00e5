//! What a resolver costs in the memory of its process.

use std::{net::SocketAddr, time::Duration};

use tokio::time::sleep;

use crate::{
    error::{Failure, Result},
    isolated::Core,
    plan::Plan,
    population,
    process::Helper,
    report::Row,
    server::{Setup, Store},
};

/// Resolvers of one service, to see what each beyond the first costs.
const MANY: u32 = 50;
/// After so long a new process has come to rest.
const REST: Duration = Duration::from_millis(300);

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let (services, instances) = (plan.resolved, plan.resolved_each);
    let server = Setup::new(Store::Memory).start().await?;
    let count = services * instances;
    population::register(server.rpc, count, move |number| population::instance(number, services)).await?;
    population::wait_until_passing(server.rpc, count, Duration::from_secs(30)).await?;
    let none = resident(server.rpc, 0, 0, instances).await?;
    let one = resident(server.rpc, services, 1, instances).await?;
    let many = resident(server.rpc, services, MANY, instances).await?;
    let each = (one - none) / f64::from(services);
    let further = (many - one) / f64::from(services * (MANY - 1));
    let measured = format!(
        "{:.0} KB, {:.0} B an instance; each further resolver of the same service {:.1} KB",
        each / 1_024.0,
        each / f64::from(instances),
        further / 1_024.0,
    );
    Ok(vec![Row::figure(format!("memory of a resolver with {instances} instances"), measured)])
}

/// The memory, in bytes, of a process with so many resolvers of each of so many services.
async fn resident(server: SocketAddr, services: u32, each: u32, instances: u32) -> Result<f64> {
    let numbers =
        [("--services", services), ("--each", each)].map(|(name, number)| [name.to_owned(), number.to_string()]);
    let mut arguments = vec!["resolvers".to_owned(), "--server".to_owned(), server.to_string()];
    arguments.extend(numbers.into_iter().flatten());
    let (mut helper, _) = Helper::start(Core::Any, &arguments).await?;
    sleep(REST).await;
    let known = helper.ask("how many instances?").await?;
    if known != (services * each * instances).to_string() {
        return Err(Failure::new("resolving", format!("{known} instances are known to {services} × {each} resolvers")));
    }
    Ok(helper.process().resident()? as f64)
}
