//! `roundsman render TEMPLATE OUT`: a file made from live lists, for programs that read a file.

mod bounds;
mod command;
mod file;
mod lists;
mod round;
mod source;
mod stop;
mod template;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use roundsman::{Discovery, Error, protocol::time};
use serde::Serialize;
use tokio::{
    signal::unix::SignalKind,
    time::{Instant, sleep, timeout_at},
};

use self::{
    file::Target,
    lists::Lists,
    round::{Commands, Done, Round},
    stop::{Signals, Stop, listen},
    template::Template,
};
use crate::{
    args::{ClientArgs, Shape, values::key_value},
    commands::{connect, connect_lazy, note},
    exit::Failure,
    output::Screen,
};

/// A file follows no later than so many times --debounce after the first change.
const PATIENCE: u32 = 10;
/// First and longest pause before what failed is tried again, should nothing change meanwhile.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

#[derive(Args, Debug)]
pub(crate) struct RenderArgs {
    /// A template in the language of Jinja; see docs/cli.md for what it can ask
    template: PathBuf,
    /// The file to write; it is replaced as a whole, or not at all
    out: PathBuf,
    /// Run this in a shell when the file has changed, such as 'nginx -s reload'; {} is the file
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Run this in a shell before the file is replaced, such as 'nginx -t -c {}', and replace it only when that succeeds; {} is
    /// the new file
    #[arg(long, value_name = "COMMAND")]
    check: Option<String>,
    /// Set a variable of the template; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// How long to wait for more changes, so that they become one
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time::parse)]
    debounce: Duration,
    /// How long a command may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time::parse)]
    command_timeout: Duration,
    /// Write the file once and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// What --once did, for programs.
#[derive(Serialize)]
struct Answer<'a> {
    file: &'a Path,
    written: bool,
    command_run: bool,
}

/// The work until the process is told to stop.
struct Render {
    round: Round,
    stop: Stop,
    out: PathBuf,
}

pub(crate) async fn run(args: RenderArgs) -> Result<(), Failure> {
    if args.check.as_ref().is_some_and(|check| !check.contains(command::PLACE)) {
        return Err(Failure::Usage("--check must say where the new file goes: {} in the command".to_owned()));
    }
    let data = args.client.output().data();
    if data.is_some() && !args.once {
        return Err(Failure::Usage("render answers with a file; -o is for --once alone".to_owned()));
    }
    let target = Target::new(&args.out)?;
    if target.is_at(&args.template) {
        let text = "the template and the file to write are the same, and the template would be lost; name another file";
        return Err(Failure::Usage(text.to_owned()));
    }
    let discovery = if args.once { connect(&args.client).await? } else { connect_lazy(&args.client)? };
    let (mut signals, stop) = Signals::listen()?;
    let template = Arc::new(Template::new(args.template, args.client.namespace(), args.set));
    let commands = Commands { exec: args.exec, check: args.check, timeout: args.command_timeout };
    let runs = commands.exec.is_some();
    let round = Round::new(template, target, Lists::new(discovery), commands, stop.clone());
    let mut render = Render { round, stop, out: args.out };
    let work = async {
        if !args.once {
            return render.go_on(args.debounce).await;
        }
        let (done, mut screen) = (render.round.run().await?, Screen::stdout());
        let Some(data) = data else { return screen.line(&render.told(done)?) };
        render.told(done)?;
        let (written, made_up) = (done == Done::Written, done == Done::MadeUp);
        screen.data(data, &Answer { file: &render.out, written, command_run: made_up || written && runs })
    };
    tokio::select! {
        ended = work => ended,
        () = signals.count() => Ok(()),
    }
}

/// Returns when there is a server.
async fn back(discovery: &Discovery) {
    if discovery.connected().await.is_err() {
        // Closed it is at the end only.
        std::future::pending::<()>().await;
    }
}

// === impl Render ===

impl Render {
    /// Until the process is told to stop. What fails is told once, and tried again.
    async fn go_on(&mut self, debounce: Duration) -> Result<(), Failure> {
        let (discovery, stop) = (self.round.lists.discovery(), self.stop.clone());
        let mut hangup = listen(SignalKind::hangup())?;
        let (mut told, mut pause) = (None, PAUSES.0);
        loop {
            let mut away = false;
            let ended = self.round.run().await;
            if stop.is_told() {
                return self.leave(ended);
            }
            let failed = match ended {
                Ok(done) => {
                    match (done, &told) {
                        (Done::Same | Done::MadeUp, Some(_)) => note(&format!("{} is right again", self.out.display())),
                        (Done::Same, None) => {}
                        _ => note(&self.told(done)?),
                    }
                    (told, pause) = (None, PAUSES.0);
                    false
                }
                // Nothing that time could mend.
                Err(usage @ Failure::Usage(_)) => return Err(usage),
                Err(failure) => {
                    away = matches!(&failure, Failure::Client(Error::Unreachable { .. } | Error::Refused { .. }));
                    let text = failure.to_string();
                    if told.as_ref() != Some(&text) {
                        note(&text);
                        told = Some(text);
                    }
                    true
                }
            };
            tokio::select! {
                biased;
                () = stop.told(1) => return self.leave(Ok(Done::Stopped)),
                () = self.changed(debounce) => {}
                () = back(&discovery), if away => {}
                _ = hangup.recv() => {}
                () = sleep(pause), if failed => pause = (pause * 2).min(PAUSES.1),
            }
        }
    }

    /// Told to stop: whether everything is as it should be.
    fn leave(&self, ended: Result<Done, Failure>) -> Result<(), Failure> {
        if !self.round.is_owed() {
            return Ok(());
        }
        Err(ended.err().unwrap_or_else(|| {
            let out = self.out.display();
            Failure::Failed(format!(
                "{out} is written, but the command of --exec has not succeeded; the next start runs it"
            ))
        }))
    }

    /// Returns when something has changed, and nothing more changes, within reason. Cancelled, it may have seen a change.
    async fn changed(&mut self, debounce: Duration) {
        let lists = &mut self.round.lists;
        lists.changed().await;
        let latest = Instant::now() + debounce.saturating_mul(PATIENCE);
        loop {
            let quiet = (Instant::now() + debounce).min(latest);
            if timeout_at(quiet, lists.changed()).await.is_err() {
                return;
            }
        }
    }

    /// What has been done, in a sentence.
    fn told(&self, done: Done) -> Result<String, Failure> {
        let out = self.out.display();
        match done {
            Done::Same => Ok(format!("{out} is as it was")),
            Done::Written => Ok(format!("{out} is written")),
            Done::MadeUp => Ok(format!("{out} is as it was, and the command that an earlier run owed was run")),
            Done::Stopped => Err(Failure::Failed(format!("told to stop before {out} was written; it is as it was"))),
        }
    }
}
