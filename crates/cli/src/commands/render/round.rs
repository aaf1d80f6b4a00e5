//! One round: from the lists to the file, and to those who read it.

use std::{sync::Arc, time::Duration};

use super::{
    command::{self, Heard},
    file::Target,
    lists::Lists,
    stop::Stop,
    template::{Rendered, Template},
};
use crate::{commands::note, exit::Failure};

/// What is run around a file.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) exec: Option<String>,
    pub(super) check: Option<String>,
    pub(super) timeout: Duration,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The file says what it should already.
    Same,
    /// It is written, and whoever reads it was told.
    Written,
    /// It says what it should, and whoever reads it was told only now.
    MadeUp,
    /// The process was told to stop before anything was done.
    Stopped,
}

/// Everything that a round needs.
#[derive(Debug)]
pub(super) struct Round {
    template: Arc<Template>,
    target: Target,
    pub(super) lists: Lists,
    commands: Commands,
    stop: Stop,
    /// The file has changed, and whoever reads it does not know yet.
    owed: bool,
}

// === impl Round ===

impl Round {
    pub(super) fn new(template: Arc<Template>, target: Target, lists: Lists, commands: Commands, stop: Stop) -> Self {
        let owed = commands.exec.is_some() && target.is_owed();
        Self { template, target, lists, commands, stop, owed }
    }

    /// Whether somebody has yet to be told of the file.
    pub(super) fn is_owed(&self) -> bool {
        self.owed
    }

    /// Makes the file what the lists say. Told to stop, it does nothing new, and lets the command of --exec come to its end.
    pub(super) async fn run(&mut self) -> Result<Done, Failure> {
        let stop = self.stop.clone();
        let text = tokio::select! {
            biased;
            () = stop.told(1) => return Ok(Done::Stopped),
            text = self.text() => text?,
        };
        let changed = !self.target.is(&text).await;
        if changed {
            let draft = self.target.draft(text).await?;
            if let Some(check) = &self.commands.check {
                let checked = tokio::select! {
                    biased;
                    () = stop.told(1) => return Ok(Done::Stopped),
                    checked = command::run(check, draft.made(), Heard::Everything, self.commands.timeout) => checked,
                };
                checked.map_err(|why| Failure::Failed(format!("{} stays as it is: {why}", self.target)))?;
            }
            let exec = self.commands.exec.is_some();
            draft.commit(exec).await?;
            self.owed = exec;
        }
        let owed = self.owed;
        if let Some(exec) = self.commands.exec.as_ref().filter(|_| owed) {
            let ran = self.exec(exec).await;
            ran.map_err(|why| Failure::Failed(format!("{} is written, but {why}", self.target)))?;
            self.target.settle().await?;
            self.owed = false;
        }
        Ok(match (changed, owed) {
            (true, _) => Done::Written,
            (false, true) => Done::MadeUp,
            (false, false) => Done::Same,
        })
    }

    /// The command of --exec. A reload in the middle is worse than one that takes its time: only the second signal ends it.
    async fn exec(&self, exec: &str) -> Result<(), String> {
        let ran = command::run(exec, self.target.path(), Heard::Errors, self.commands.timeout);
        tokio::pin!(ran);
        let mut said = false;
        loop {
            tokio::select! {
                biased;
                () = self.stop.told(2) => {
                    return Err(format!("`{exec}` was killed, as nobody waits for it; the next start runs it again"));
                }
                ran = &mut ran => return ran,
                () = self.stop.told(1), if !said => {
                    note(&format!("told to stop: waiting for `{exec}` to end; once more kills it"));
                    said = true;
                }
            }
        }
    }

    /// Renders until the template asks for nothing that is not followed yet.
    async fn text(&mut self) -> Result<String, Failure> {
        let source = self.template.read().await?;
        loop {
            let Rendered { text, asked } = self.template.render(&source, self.lists.known()).await?;
            if !self.lists.follow(asked).await? {
                return Ok(text);
            }
        }
    }
}
