//! What a try needs to know of requests and of whoever sends them.

use http::{HeaderMap, StatusCode, Uri, uri::Authority, uri::Scheme};
use roundsman_protocol::Address;

use super::{body::Body, failure::Failure};

/// A request that can be sent to any instance, if need be to several.
pub(crate) trait Outgoing: Sized + Send {
    /// Points it at an instance.
    ///
    /// # Errors
    /// When no URL leads there.
    fn point_at(&mut self, address: &Address) -> Result<(), Failure>;

    /// The same once more, for another try; none where that can never be sent.
    fn again(&self) -> Option<Self>;

    /// Whether it can be sent while the one that it was made of is under way.
    fn is_copy(&self) -> bool {
        true
    }

    /// Whether all of it can be sent yet. A stream can until somebody has begun to read it.
    fn is_whole(&self) -> bool {
        true
    }
}

/// Sends a request to the instance that its URL names.
pub(crate) trait Sender: Sync {
    /// What goes out.
    type Request: Outgoing;
    /// What comes back.
    type Answer: Send;

    /// Sends it, once. Another one may be sent while this one is under way; a future that is dropped abandons its request.
    fn send(&self, request: Self::Request) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// The status of an answer.
    fn status(answer: &Self::Answer) -> StatusCode;

    /// The headers of an answer.
    fn headers(answer: &Self::Answer) -> &HeaderMap;
}

impl Outgoing for http::Request<Body> {
    fn point_at(&mut self, address: &Address) -> Result<(), Failure> {
        let unusable = || Failure::unusable(address);
        let mut parts = std::mem::take(self.uri_mut()).into_parts();
        parts.authority = Some(Authority::try_from(address.to_string()).map_err(|_| unusable())?);
        parts.scheme = Some(Scheme::HTTP);
        *self.uri_mut() = Uri::from_parts(parts).map_err(|_| unusable())?;
        Ok(())
    }

    fn again(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn is_copy(&self) -> bool {
        self.body().is_copy()
    }

    fn is_whole(&self) -> bool {
        self.body().is_whole()
    }
}

#[cfg(feature = "reqwest")]
impl Outgoing for reqwest::Request {
    fn point_at(&mut self, address: &Address) -> Result<(), Failure> {
        use roundsman_protocol::Host;

        let url = self.url_mut();
        let host = match address.host() {
            Host::Ip(ip) => url.set_ip_host(*ip),
            Host::Name(name) => url.set_host(Some(name)).map_err(drop),
        };
        let set = host.and_then(|()| url.set_port(Some(address.port())));
        set.map_err(|()| Failure::unusable(address))
    }

    fn again(&self) -> Option<Self> {
        self.try_clone()
    }
}
