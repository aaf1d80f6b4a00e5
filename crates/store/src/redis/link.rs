//! The connection to Redis: opened when it is needed, given up when it does not answer, opened again.
//!
//! Ours instead of redis's `ConnectionManager`: that one makes callers wait through its retries, while the one
//! writer here had better refuse at once and come back.

use std::{fmt, future::Future, time::Duration};

use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::{sync::Mutex, time::timeout};

use crate::StoreError;

/// Why wrong credentials fail.
pub(super) const REFUSED: &str = "redis refuses user or password";
/// Longest time to open a connection, and for Redis to answer something small.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A connection that is opened again when it breaks.
pub(super) struct Link {
    url: String,
    connection: Mutex<Option<MultiplexedConnection>>,
}

// === impl Link ===

impl Link {
    /// A link to the server at `url`, not yet opened.
    pub(super) fn new(url: String) -> Self {
        // Only the first provider of a process counts; whoever was faster chose ring as well.
        drop(rustls::crypto::ring::default_provider().install_default());
        Self { url, connection: Mutex::default() }
    }

    /// The connection, opened if need be.
    pub(super) async fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        Ok(connection.insert(self.connect().await?).clone())
    }

    /// A connection of its own, for reads that block. Answers on it are waited for without limit.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let client = Client::open(self.url.as_str())
            .map_err(|error| StoreError::Unusable(format!("the Redis URL cannot be used: {}", error.category())))?;
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        match timeout(PATIENCE, client.get_multiplexed_async_connection_with_config(&config)).await {
            Ok(connection) => connection.map_err(failed),
            Err(elapsed) => Err(StoreError::unavailable("redis does not answer", elapsed)),
        }
    }

    /// Waits for an answer, at most for `patience`. A connection that broke or stays silent is given up.
    pub(super) async fn answer<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<T, StoreError> {
        let error = match timeout(patience, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if !is_broken(&error) => return Err(failed(error)),
            Ok(Err(error)) => failed(error),
            Err(elapsed) => StoreError::unavailable("redis does not answer", elapsed),
        };
        *self.connection.lock().await = None;
        Err(error)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// Whether nothing more can be expected of the connection that answered so.
pub(super) fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error()
}

/// Sorts an error: try again later, or call an operator.
pub(super) fn failed(error: RedisError) -> StoreError {
    // The second is how a missing password shows when the database is not the first one.
    let refused = error.kind() == ErrorKind::AuthenticationFailed
        || error.detail().is_some_and(|detail| detail.contains("Authentication required"));
    if refused {
        return StoreError::unavailable(REFUSED, error);
    }
    let reason = match error.code() {
        Some("WRONGPASS" | "NOAUTH") => REFUSED,
        Some("NOPERM") => "redis does not let this user do it",
        Some("LOADING") => "redis is still loading its data",
        Some("READONLY") => "redis is a replica that takes no writes",
        Some("OOM") => "redis is out of memory",
        Some("MISCONF") => "redis cannot save to its disk",
        Some("BUSY") => "redis is busy with a script",
        Some("WRONGTYPE") => {
            let detail = error.detail().unwrap_or_default();
            return StoreError::Unusable(format!("a key of ours in Redis holds something else ({detail})"));
        }
        Some(code) => return StoreError::unavailable(&format!("redis answered {code}"), error),
        None if error.is_connection_refusal() => "redis refuses connections",
        None if error.is_timeout() => "redis does not answer",
        None if error.to_string().contains("invalid peer certificate") => "the certificate of redis is not trusted",
        None if error.is_io_error() => "the connection to redis broke",
        None => return StoreError::unavailable(&format!("redis: {}", error.category()), error),
    };
    StoreError::unavailable(reason, error)
}
