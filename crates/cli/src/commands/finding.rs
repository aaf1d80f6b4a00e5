//! One instance, by its id alone. Servers are asked by service.

use std::sync::Arc;

use roundsman::{Discovery, DiscoveryError, Error, Instance, InstanceId, Query, Scope, ServiceName};

use crate::exit::Failure;

/// The instance, registered or on probation. `service` is where to look first.
pub(crate) async fn find(
    discovery: &Discovery,
    id: &InstanceId,
    service: Option<ServiceName>,
) -> Result<Option<Arc<Instance>>, Failure> {
    // Ids that nobody chose begin with the service's name.
    let named = || id.as_str().rsplit_once('-').and_then(|(name, _)| ServiceName::try_new(name).ok());
    let first = service.or_else(named).map(Query::service);
    for query in first.into_iter().chain([Query::default()]) {
        let query = Query { history: true, ..query }.scope(Scope::All);
        let listed = match discovery.list(query).await {
            // With its last instance a service is gone, too.
            Err(error) if error.is_not_found() => Vec::new(),
            listed => listed?,
        };
        let found = listed.into_iter().find(|instance| instance.id == *id);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The same, where it must be there.
pub(crate) async fn found(discovery: &Discovery, id: &InstanceId) -> Result<Arc<Instance>, Failure> {
    let missing = || Error::from(DiscoveryError::NotRegistered { id: id.clone() });
    Ok(find(discovery, id, None).await?.ok_or_else(missing)?)
}
