//! A client without a server.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use roundsman_protocol::{DiscoveryClient, DiscoveryRequest, DiscoveryResponse, Version};
use tarpc::{ClientMessage, Response, transport::channel};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    builder::Builder,
    discovery::Discovery,
    error::Error,
    link::{Connection, Link},
    memory::{Calls, Memory, Shared},
    new_instance::NewInstance,
};

/// What is said to be the server's address.
const NOWHERE: &str = "fixed";
/// Messages on their way, in each direction.
const ROOM: usize = 64;

impl Discovery {
    /// A client that asks no server: it knows these instances, and goes on for ever. For tests of what calls others, and for
    /// programs whose peers are known beforehand.
    ///
    /// Each instance is a [`NewInstance`], or a name with an address. All are passing: nobody visits them. `get`, `list`,
    /// `watch`, resolvers, endpoints and calls over HTTP work on them as they do with a server.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), roundsman::Error> {
    /// use roundsman::{Discovery, NewInstance};
    ///
    /// let discovery = Discovery::fixed([("product", "127.0.0.1:7070"), ("product", "127.0.0.1:7071")])?;
    /// let products = discovery.resolver("product").await?;
    /// assert_eq!(products.instances().len(), 2);
    ///
    /// // With all that can be said of an instance:
    /// let canary = NewInstance::new("product", "127.0.0.1:7072")?.version("2").tag("canary");
    /// let discovery = Discovery::fixed([canary])?;
    /// assert_eq!(discovery.get("product").await?.version.as_deref(), Some("2"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The lists are not carved in stone. What the program under test registers is in them as well, with what it said of
    /// itself, until it deregisters, so that a test can look at it; [`Discovery::drain`] and [`Discovery::deregister`] take
    /// instances out of them again. Only what is the business of a server's own is refused as [`Error::Invalid`]: its status,
    /// graph and history. Settings are those of [`Discovery::builder`], see [`Builder::fixed`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for an instance that breaks a rule, and outside a Tokio runtime.
    pub fn fixed<I>(instances: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item: TryInto<NewInstance>>,
        Error: From<<I::Item as TryInto<NewInstance>>::Error>,
    {
        Self::builder().fixed(instances)
    }

    /// A client of a registry in this process.
    pub(crate) fn of_memory(memory: Memory, builder: Builder) -> Result<Self, Error> {
        let (mut config, stop) = (tarpc::client::Config::default(), CancellationToken::new());
        config.max_in_flight_requests = Connection::MOST_CALLS;
        config.pending_request_buffer = Connection::MOST_CALLS;
        let (near, far) = channel::bounded(ROOM);
        let tarpc::client::NewClient { client, dispatch } = DiscoveryClient::new(config, near);
        let connection = Connection::new(1, Arc::from(NOWHERE), Version::CURRENT, client);
        let (links, link) = watch::channel(Link::Up(Arc::new(connection)));
        let (tasks, memory) = (TaskTracker::new(), Shared::new(memory));
        let discovery = builder.assemble(link, stop.clone(), tasks.clone())?;
        tasks.spawn(async move {
            let served = async {
                tokio::select! {
                    _ = dispatch => {}
                    () = serve(far, memory) => {}
                }
            };
            stop.run_until_cancelled(served).await;
            links.send_replace(Link::Closed);
        });
        Ok(discovery)
    }
}

/// Answers what comes, until there is nobody any more who asks.
async fn serve(
    mut wire: channel::Channel<ClientMessage<DiscoveryRequest>, Response<DiscoveryResponse>>,
    memory: Shared,
) {
    let mut calls = Calls::default();
    loop {
        tokio::select! {
            message = wire.next() => match message {
                Some(Ok(ClientMessage::Request(request))) => calls.begin(request.id, &memory, request.message),
                Some(Ok(ClientMessage::Cancel { request_id, .. })) => calls.cancel(request_id),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            (request_id, message) = calls.next() => {
                if wire.send(Response { request_id, message }).await.is_err() {
                    return;
                }
            }
        }
    }
}
