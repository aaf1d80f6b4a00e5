//! Calls over HTTP by the name of a service: find it, choose an instance, call it, and go to another when that fails.
//!
//! [`Discovery::http`](crate::Discovery::http) is where it begins:
//!
//! ```no_run
//! # #[derive(serde::Deserialize)] struct Product { name: String }
//! # async fn example(discovery: roundsman::Discovery) -> Result<(), Box<dyn std::error::Error>> {
//! let answer = discovery.http("product").get("/product/aaa").send().await?;
//! if answer.status().is_success() {
//!     let product: Product = answer.json()?;
//!     println!("{} by {}", product.name, answer.instance().id);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What a call does
//!
//! - The service is followed from its first call on, as by a [`Resolver`](crate::Resolver): later calls ask no server,
//!   and go on when there is none.
//! - Each try goes to the instance that [the policy](Service::policy) picks, by default
//!   [`Policy::PeakEwma`](crate::Policy::PeakEwma). How it went is remembered, so that instances in trouble are passed over.
//! - A try that fails is repeated on another instance, at most [`DEFAULT_TRIES`] tries in all: when the connection
//!   failed or broke (also in the middle of the body), and when the answer is 500, 502, 503 or 504. That goes for
//!   methods that may be repeated: GET, HEAD, OPTIONS, TRACE, PUT and DELETE, and others that are
//!   [said to be](Request::idempotent). Any other is repeated only if it certainly did not reach its instance.
//! - Slow is not dead: when no answer came in the time that all but one in a hundred answers of the instance take, and in
//!   [`DEFAULT_HEDGE_AFTER`] at least, another instance is asked while the first goes on. The first answer wins. Only
//!   what may be repeated is asked twice.
//! - Second tries of both kinds are budgeted, so that a service in trouble does not drown in them: all calls of one service together are
//!   repeated for at most a tenth of them, and one a second. A refused connection reached nobody, and costs nothing.
//! - When nobody is there, instances that drain are called, which serve still. With none of those either, the call waits
//!   for an instance, [`DEFAULT_WAIT_FOR_INSTANCE`] at most: one that restarts within that fails nobody.
//! - The whole call has a [deadline](Request::timeout), by default [`DEFAULT_TIMEOUT`].
//! - The [trace context](crate::TraceContext) of the request that is being served goes along.
//!
//! An answer is an answer, whatever its status: an [`Error`] means that there was none.

mod attempt;
mod body;
mod budget;
mod call;
mod callee;
mod choice;
mod client;
mod draft;
mod engine;
mod error;
mod failure;
mod leaving;
mod marks;
mod outgoing;
mod past;
mod request;
mod response;
mod sending;
mod service;
mod settings;
mod streamed;
mod waiting;

use std::time::Duration;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub use body::Body;
pub(crate) use callee::Calls;
pub use error::{Error, Try};
pub use marks::{Idempotent, Key};
pub use request::Request;
pub use response::Response;
pub use service::Service;
#[cfg(feature = "middleware")]
pub(crate) use settings::path_settings;
pub use streamed::Streamed;
#[cfg(feature = "grpc")]
pub(crate) use {
    body::{AnyBody, BoxError, Outbound},
    call::LONGEST,
    client::Client,
};
#[cfg(any(feature = "grpc", feature = "middleware"))]
pub(crate) use {
    call::{Call, Plan},
    engine::Answered,
    failure::Failure,
    outgoing::Sender,
    settings::{Settings, settings},
};

/// How long a call may take in all, unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer is waited for at least before another instance is asked as well, unless told otherwise.
pub const DEFAULT_HEDGE_AFTER: Duration = Duration::from_secs(1);

/// How long connecting to an instance may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How many tries a call has, the first included, unless told otherwise.
pub const DEFAULT_TRIES: u32 = 3;

/// How long a call waits for an instance when nobody is there, unless told otherwise.
pub const DEFAULT_WAIT_FOR_INSTANCE: Duration = Duration::from_secs(2);

/// Longest body that [`Request::send`] reads, in bytes, unless told otherwise.
pub const DEFAULT_BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What follows the service's name in URLs.
pub(crate) const SUFFIX: &str = ".roundsman";
