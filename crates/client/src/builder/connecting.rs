//! From settings to a client.

use std::time::Duration;

use roundsman_protocol::{Clock, Invalid, Namespace, ServiceName, handshake::Hello, time};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Builder;
use crate::{
    cache::Settings, discovery::Discovery, error::Error, link::Link, memory::Memory, new_instance::NewInstance,
    supervisor::Supervisor,
};

/// Longest time a call may be given.
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);

// === impl Builder ===

impl Builder {
    /// Connects, trying each server once: one after the other, and the next beside one that does not answer within 300 ms.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a setting that breaks a rule, [`Error::Unreachable`] and [`Error::Refused`] when no
    /// server let us in; nothing goes on in the background then.
    pub async fn connect(self) -> Result<Discovery, Error> {
        let discovery = self.connect_lazy()?;
        let mut link = discovery.inner.link.clone();
        let decided = |link: &Link| !matches!(link, Link::Away { failed_rounds: 0, .. });
        let failure = match link.wait_for(decided).await.as_deref() {
            Ok(Link::Up(_)) => None,
            Ok(Link::Away { tried, .. }) => Some(Error::away(tried.clone())),
            Ok(Link::Closed) | Err(_) => Some(Error::Closed),
        };
        let Some(failure) = failure else { return Ok(discovery) };
        discovery.close().await;
        Err(failure)
    }

    /// Connects in the background: calls made before there is a connection wait for it. For programs that
    /// may start before their discovery server.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a setting that breaks a rule, and outside a Tokio runtime.
    pub fn connect_lazy(self) -> Result<Discovery, Error> {
        let servers = self.servers.checked()?;
        let service = self.service.as_deref().map(ServiceName::try_new).transpose();
        let service = service.map_err(|invalid| Invalid { field: "service".to_owned(), ..invalid })?;
        let hello = Hello::new(self.codec, self.checked_namespace()?, service);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (supervisor, link) = Supervisor::new(servers, hello, self.timeout, stop.clone());
        let discovery = self.assemble(link, stop, tasks.clone())?;
        tasks.spawn(supervisor.run());
        Ok(discovery)
    }

    /// A client without a server, see [`Discovery::fixed`], with these settings; those that are about servers make no
    /// difference.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), roundsman::Error> {
    /// use std::time::Duration;
    /// use roundsman::Discovery;
    ///
    /// let discovery = Discovery::builder().notice(Duration::ZERO).fixed([("product", "127.0.0.1:7070")])?;
    /// assert_eq!(discovery.services().await?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for an instance or a setting that breaks a rule, and outside a Tokio runtime.
    pub fn fixed<I>(self, instances: I) -> Result<Discovery, Error>
    where
        I: IntoIterator<Item: TryInto<NewInstance>>,
        Error: From<<I::Item as TryInto<NewInstance>>::Error>,
    {
        let memory = Memory::new(self.checked_namespace()?);
        for instance in instances {
            memory.register(instance.try_into()?.into_registration()?)?;
        }
        Discovery::of_memory(memory, self)
    }

    /// A client on this connection, with these settings. Starts nothing.
    pub(crate) fn assemble(
        self,
        link: watch::Receiver<Link>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Result<Discovery, Error> {
        inside_runtime()?;
        if self.timeout.is_zero() || self.timeout > MAX_TIMEOUT {
            let (most, got) = (time::display(MAX_TIMEOUT), time::display(self.timeout));
            return Err(Invalid::new("timeout", format!("must be more than 0 and at most {most}, got {got}")).into());
        }
        self.circuit_breaker.validate()?;
        let settings = Settings {
            namespace: self.checked_namespace()?,
            timeout: self.timeout,
            empty_grace: self.empty_grace.min(MAX_TIMEOUT),
            snapshot_file: self.snapshot_file,
            clock: Clock::system(),
        };
        let notice = self.notice.min(MAX_TIMEOUT);
        let discovery = Discovery::assemble(link, stop, tasks, settings, self.circuit_breaker, notice);
        #[cfg(feature = "reqwest")]
        if let Some(client) = self.http_client {
            discovery.inner.calls.set_client(client);
        }
        Ok(discovery)
    }

    fn checked_namespace(&self) -> Result<Namespace, Invalid> {
        Ok(self.namespace.as_deref().map(Namespace::try_new).transpose()?.unwrap_or_default())
    }
}

/// Refuses what would start a task where there is none to be started.
pub(crate) fn inside_runtime() -> Result<(), Invalid> {
    let outside =
        || Invalid::new("runtime", "a client lives in a Tokio runtime, and nothing of it can be started outside one");
    Handle::try_current().map(drop).map_err(|_| outside())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::new_instance::NewInstance;

    #[test]
    fn outside_a_runtime_there_is_a_sentence() {
        let fixed = || Discovery::fixed([("product", "127.0.0.1:7070")]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let discovery = runtime.block_on(async { fixed().unwrap() });
        let instance = NewInstance::new("order", "127.0.0.1:6060").unwrap();
        for error in [
            Builder::default().connect_lazy().unwrap_err(),
            fixed().unwrap_err(),
            discovery.register_in_background(instance).unwrap_err(),
            discovery.resolver("product").in_background().err().unwrap(),
        ] {
            assert!(matches!(&error, Error::Invalid(invalid) if invalid.field == "runtime"), "{error}");
        }
    }
}
