//! How a try goes out, and what its first answer says.

use http::{HeaderMap, Request, Response, StatusCode};
use tonic::Code;

use crate::http::{AnyBody, Body, Client, Failure, Sender};

/// The header, or trailer, with the code.
const GRPC_STATUS: &str = "grpc-status";

/// Sends over HTTP/2.
#[derive(Debug)]
pub(super) struct Wire(pub(super) Client);

impl Sender for Wire {
    type Request = Request<Body>;
    type Answer = Response<AnyBody>;

    async fn send(&self, request: Self::Request) -> Result<Self::Answer, Failure> {
        self.0.begin(request).await
    }

    /// What the code would be in HTTP, where there is one before any message.
    fn status(answer: &Self::Answer) -> StatusCode {
        trouble(answer.headers()).unwrap_or(answer.status())
    }

    fn headers(answer: &Self::Answer) -> &HeaderMap {
        answer.headers()
    }
}

/// What a code that counts as a failure of its instance would be in HTTP.
pub(super) fn trouble(headers: &HeaderMap) -> Option<StatusCode> {
    match Code::from_bytes(headers.get(GRPC_STATUS)?.as_bytes()) {
        Code::Unavailable => Some(StatusCode::SERVICE_UNAVAILABLE),
        Code::DeadlineExceeded => Some(StatusCode::GATEWAY_TIMEOUT),
        Code::Internal | Code::Unknown | Code::DataLoss => Some(StatusCode::INTERNAL_SERVER_ERROR),
        _ => None,
    }
}
