//! Where a store is, as an operator writes it: `memory:`, `sqlite:PATH`, `redis://HOST:PORT/DB`.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use redis::IntoConnectionInfo;
use roundsman_protocol::Invalid;

use crate::{Keep, Store, memory::MemoryStore, redis::RedisStore, sqlite::SqliteStore};

/// Which store to use and where it is. Printing it never shows credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Memory,
    Sqlite(PathBuf),
    /// The URL as it was written, credentials included.
    Redis(String),
}

// === impl StoreUrl ===

impl StoreUrl {
    /// A store at this place. Does no IO yet: [`crate::Durable::load`] opens it.
    ///
    /// `retention` is how long an evicted record is kept, `server` a name that no other server on this store has.
    /// The history is kept as [`Keep::default`] has it.
    #[must_use]
    pub fn open(&self, retention: Duration, server: &str) -> Arc<dyn Store> {
        self.open_keeping(retention, server, Keep::default())
    }

    /// Like [`StoreUrl::open`], with so much history.
    #[must_use]
    pub fn open_keeping(&self, retention: Duration, server: &str, keep: Keep) -> Arc<dyn Store> {
        match &self.0 {
            Kind::Memory => Arc::new(MemoryStore::new(retention, keep)),
            Kind::Sqlite(path) => Arc::new(SqliteStore::new(path.clone(), retention, keep)),
            Kind::Redis(url) => Arc::new(RedisStore::new(url.clone(), self.to_string(), retention, server, keep)),
        }
    }

    /// Whether other servers may be on the same store.
    #[must_use]
    pub fn may_be_shared(&self) -> bool {
        matches!(self.0, Kind::Redis(_))
    }

    /// A SQLite store in the file at `path`.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Kind::Sqlite(path.into()))
    }
}

impl FromStr for StoreUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const SHAPES: &str = "memory:, sqlite:PATH, redis://HOST:PORT/DB or rediss://HOST:PORT/DB";
        // What follows the scheme may hold a password and is not repeated in errors.
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(Invalid::new("store", format!("must be {SHAPES}")));
        };
        match scheme {
            "memory" if rest.is_empty() => Ok(Self(Kind::Memory)),
            "memory" => Err(Invalid::new("store", "memory: takes nothing after the colon")),
            "sqlite" => sqlite_path(rest).map(|path| Self(Kind::Sqlite(path))),
            "redis" | "rediss" => {
                check_redis(text)?;
                Ok(Self(Kind::Redis(text.to_owned())))
            }
            _ => Err(Invalid::new("store", format!("must be {SHAPES}; this scheme is none of them"))),
        }
    }
}

fn sqlite_path(path: &str) -> Result<PathBuf, Invalid> {
    // SQLite itself reads ":memory:" and "file:…" as something else than the name of a file.
    if path.is_empty() || path.starts_with(':') || path.contains('\0') {
        return Err(Invalid::new("store", "sqlite: needs the path of a file, such as sqlite:roundsman.db"));
    }
    Ok(PathBuf::from(path))
}

fn check_redis(text: &str) -> Result<(), Invalid> {
    let shape = || Invalid::new("store", "must be redis://[USER:PASSWORD@]HOST:PORT/DB, DB being a number");
    let (_, rest) = text.split_once("://").ok_or_else(shape)?;
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() || host.starts_with(':') || text.contains('#') {
        return Err(shape());
    }
    text.into_connection_info().map(drop).map_err(|_| shape())
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Memory => f.write_str("memory:"),
            Kind::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Kind::Redis(url) => f.write_str(&without_credentials(url)),
        }
    }
}

/// The URL without what stands before the `@`, and without a query, which may hold a password too.
fn without_credentials(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{rest}")
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_print_as_they_read() {
        for text in
            ["memory:", "sqlite:roundsman.db", "sqlite:/var/lib/a b.db", "redis://127.0.0.1:6379/0", "rediss://r:1/2"]
        {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn credentials_never_show() {
        for text in
            ["redis://user:s3cret@host:6379/1", "redis://:s3cret@host/1", "rediss://u:s3cret@host?password=s3cret"]
        {
            let url: StoreUrl = text.parse().unwrap();
            assert!(url.to_string().contains("://host"), "{url}");
            let store = url.open(Duration::from_secs(60), "a");
            for shown in [url.to_string(), format!("{url:?}"), format!("{store:?} {:?}", store.describe())] {
                assert!(!shown.contains("s3cret") && !shown.contains("user"), "{shown}");
            }
        }
    }

    #[test]
    fn bad_urls_are_refused_without_repeating_a_password() {
        for text in [
            "",
            "roundsman.db",
            "memory",
            "memory:x",
            "sqlite:",
            "sqlite::memory:",
            "postgres://u:s3cret@h/1",
            "redis:",
            "redis://",
            "redis://:6379/0",
            "redis://u:s3cret@/0",
            "redis://u:s3cret@h:notaport/0",
            "redis://u:s3cret@h:1/notadb",
            "rediss://u:s3cret@h:1/0#insecure",
        ] {
            let refused = text.parse::<StoreUrl>().unwrap_err();
            assert_eq!(refused.field, "store", "{text:?}");
            assert!(!refused.rule.contains("s3cret"), "{refused}");
        }
    }
}
