//! What a shell is offered for a name or an id: those that the server knows at this moment.

use std::{
    ffi::{OsStr, OsString},
    time::Duration,
};

use clap_complete::CompletionCandidate;
use roundsman::{DEFAULT_SERVER, Discovery, Error, Query, Scope};

/// By which a shell asks. The script of `roundsman completions` sets it.
pub(crate) const VARIABLE: &str = "ROUNDSMAN_COMPLETE";

/// Whoever presses the tab key does not wait long.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than anybody reads.
const MOST: usize = 1_000;

/// Names of services.
pub(crate) fn services(current: &OsStr) -> Vec<CompletionCandidate> {
    let known = ask(async |discovery| {
        Ok(discovery.services().await?.into_iter().map(|service| service.name.to_string()).collect())
    });
    matching(current, known)
}

/// Ids of instances.
pub(crate) fn ids(current: &OsStr) -> Vec<CompletionCandidate> {
    let begun = current.to_string_lossy().into_owned();
    let known = ask(async |discovery| {
        let all = discovery.list(Query::default().scope(Scope::All)).await?;
        Ok(all.iter().map(|instance| instance.id.to_string()).filter(|id| id.starts_with(&begun)).collect())
    });
    matching(current, known)
}

fn matching(current: &OsStr, known: Vec<String>) -> Vec<CompletionCandidate> {
    let begun = current.to_string_lossy();
    known.into_iter().filter(|text| text.starts_with(&*begun)).take(MOST).map(CompletionCandidate::new).collect()
}

/// Nothing when nobody answers: a shell has no place for errors.
fn ask(question: impl AsyncFnOnce(Discovery) -> Result<Vec<String>, Error>) -> Vec<String> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let said = |flag: &str, variable: &str, default: &str| {
        let variable = || std::env::var_os(variable).and_then(|value| value.into_string().ok());
        let variable = || variable().filter(|value| !value.is_empty());
        flag_of(&words, flag).or_else(variable).unwrap_or_else(|| default.to_owned())
    };
    let server = said("--server", "ROUNDSMAN_SERVER", DEFAULT_SERVER);
    let namespace = said("--namespace", "ROUNDSMAN_NAMESPACE", "default");
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let asked = async {
        let builder = Discovery::builder().servers(server.as_str()).namespace(namespace).timeout(PATIENCE);
        question(builder.connect().await?).await
    };
    let answered = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
    answered.ok().and_then(Result::ok).unwrap_or_default()
}

/// What the line that is being typed says after a flag.
fn flag_of(words: &[OsString], flag: &str) -> Option<String> {
    let mut words = words.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if word == flag {
            return words.next().map(|value| value.into_owned()).filter(|value| !value.is_empty());
        }
        if let Some(value) = word.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_the_line_that_is_typed() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let line = words("roundsman -- roundsman get --server h:1 --namespace=shop pro");
        assert_eq!(flag_of(&line, "--server").as_deref(), Some("h:1"));
        assert_eq!(flag_of(&line, "--namespace").as_deref(), Some("shop"));
        assert_eq!(flag_of(&words("roundsman get"), "--server"), None);
    }
}
