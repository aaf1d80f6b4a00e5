//! Log lines, to standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::settings::LogFormat;

/// What is logged unless `RUST_LOG` says otherwise. tarpc's spans are of level info, and not worth their price.
const LOG_FILTER: &str = "info,tarpc=warn";

/// Starts logging in this format, unless the program has set up a subscriber of its own already.
pub(super) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let logs = logs.with_ansi(io::stderr().is_terminal());
    let _ = match format {
        LogFormat::Human => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}
