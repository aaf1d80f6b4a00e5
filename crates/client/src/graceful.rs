//! Leaving in good order: be passed over, let callers notice, deregister; only then stop serving.

use futures::future::join_all;
use tokio::time::sleep;

use crate::{discovery::Discovery, error::Error, link::Link, registration::Registration};

impl Registration {
    /// Waits for `signal`, then takes the instance out so that no caller notices: it drains, goes on serving until
    /// callers had time to see that ([`Builder::notice`](crate::Builder::notice)), and deregisters. When this future
    /// ends, the time has come to stop accepting and to finish the requests under way, which is what axum does with it:
    ///
    /// ```no_run
    /// # use roundsman::NewInstance;
    /// # async fn example(listener: tokio::net::TcpListener, router: axum::Router, discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
    /// let registration = discovery.register_in_background(NewInstance::new("order", "10.0.0.8:6060")?)?;
    /// let stop = async { drop(tokio::signal::ctrl_c().await) };
    /// axum::serve(listener, router).with_graceful_shutdown(registration.graceful(stop)).await?;
    /// discovery.close().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It never hangs: with no server there, it gives up after the time that one call may take, and leaves the instance
    /// to the visits. What went wrong is logged. While it is pending the registration may be used as before; dropped, it
    /// does nothing more.
    pub fn graceful<S>(&self, signal: S) -> impl Future<Output = ()> + Send + 'static + use<S>
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let registration = self.clone();
        async move {
            signal.await;
            leave(vec![registration]).await;
        }
    }
}

impl Discovery {
    /// The same as [`Registration::graceful`] for everything that this client registered and still keeps. The client
    /// stays open: requests that are finished afterwards may still need it. [`Discovery::close`] it at the very end.
    ///
    /// ```no_run
    /// # async fn example(discovery: roundsman::Discovery) {
    /// let leaving = discovery.graceful(async { drop(tokio::signal::ctrl_c().await) });
    /// # leaving.await;
    /// # }
    /// ```
    pub fn graceful<S>(&self, signal: S) -> impl Future<Output = ()> + Send + 'static + use<S>
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let discovery = self.clone();
        async move {
            signal.await;
            leave(discovery.inner.registrations()).await;
        }
    }
}

/// Takes registrations of one client out, all at once.
async fn leave(registrations: Vec<Registration>) {
    let Some(discovery) = registrations.first().map(|first| first.discovery().clone()) else { return };
    let drained = join_all(registrations.iter().map(Registration::draining)).await;
    // Nobody else has heard of it where the server has not.
    if drained.iter().any(Result::is_ok) {
        sleep(discovery.inner.notice).await;
    }
    let drained = drained.into_iter().map(Result::err);
    join_all(registrations.into_iter().zip(drained).map(|(registration, error)| end(registration, error))).await;
}

/// Deregisters; one that the server could not be told about in time is not waited for a second time.
async fn end(registration: Registration, not_drained: Option<Error>) {
    let id = registration.id().clone();
    let away = !matches!(&*registration.discovery().inner.link.borrow(), Link::Up(_));
    let error = match not_drained {
        Some(Error::Closed) => return,
        Some(error) if away => {
            registration.stop().await;
            Some(error)
        }
        _ => registration.close().await.err(),
    };
    if let Some(error) = error {
        tracing::warn!(%id, %error, "could not deregister; discovery's next visit will notice");
    }
}
