//! `roundsman render TEMPLATE OUT`: a file made from live lists, for programs that read a file.

mod command;
mod file;
mod lists;
mod template;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use roundsman::{Discovery, Error, protocol::time};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

use self::{
    file::Target,
    lists::Lists,
    template::{Rendered, Template},
};
use crate::{
    args::{ClientArgs, values::key_value},
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

/// The work of the command.
struct Render {
    template: Template,
    target: Target,
    lists: Lists,
    exec: Option<String>,
    check: Option<String>,
    command_timeout: Duration,
    /// The file has changed, and whoever reads it does not know yet.
    owed: bool,
}

pub(crate) async fn run(args: RenderArgs) -> Result<(), Failure> {
    if args.check.as_ref().is_some_and(|check| !check.contains(command::PLACE)) {
        return Err(Failure::Usage("--check must say where the new file goes: {} in the command".to_owned()));
    }
    let discovery = if args.once { connect(&args.client).await? } else { connect_lazy(&args.client)? };
    let mut render = Render {
        template: Template::new(args.template, args.client.namespace(), args.set),
        target: Target::new(&args.out)?,
        lists: Lists::new(discovery),
        exec: args.exec,
        check: args.check,
        command_timeout: args.command_timeout,
        owed: false,
    };
    if args.once {
        let written = render.round().await?;
        let done = if written { "is written" } else { "is as it was" };
        return Screen::stdout().line(&format!("{} {done}", args.out.display()));
    }
    let (mut interrupted, mut terminated) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        failed = render.go_on(args.debounce, &args.out) => failed,
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(Failure::Runtime)
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
    async fn go_on(&mut self, debounce: Duration, out: &Path) -> Result<(), Failure> {
        let discovery = self.lists.discovery();
        let mut hangup = listen(SignalKind::hangup())?;
        let (mut told, mut pause) = (None, PAUSES.0);
        loop {
            let mut away = false;
            let failed = match self.round().await {
                Ok(written) => {
                    if written || told.is_some() {
                        note(&format!("{} is {}", out.display(), if written { "written" } else { "right again" }));
                    }
                    told = None;
                    pause = PAUSES.0;
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
                () = self.lists.changed() => self.gather(debounce).await,
                () = back(&discovery), if away => {}
                _ = hangup.recv() => {}
                () = sleep(pause), if failed => pause = (pause * 2).min(PAUSES.1),
            }
        }
    }

    /// Waits until nothing more changes, within reason.
    async fn gather(&mut self, debounce: Duration) {
        let latest = Instant::now() + debounce * PATIENCE;
        loop {
            let quiet = (Instant::now() + debounce).min(latest);
            if timeout_at(quiet, self.lists.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Makes the file what the lists say; tells whether it was something else.
    async fn round(&mut self) -> Result<bool, Failure> {
        let text = self.text().await?;
        let changed = !self.target.is(&text).await;
        if changed {
            let draft = self.target.draft(text).await?;
            if let Some(check) = &self.check {
                let checked = command::run(check, draft.made(), self.command_timeout).await;
                checked.map_err(|why| Failure::Failed(format!("{} stays as it is: {why}", self.target)))?;
            }
            draft.commit().await?;
            self.owed = true;
        }
        if let Some(exec) = self.exec.as_ref().filter(|_| self.owed) {
            let ran = command::run(exec, self.target.path(), self.command_timeout).await;
            ran.map_err(|why| Failure::Failed(format!("{} is written, but {why}", self.target)))?;
        }
        self.owed = false;
        Ok(changed)
    }

    /// Renders until the template asks for nothing that is not followed yet.
    async fn text(&mut self) -> Result<String, Failure> {
        loop {
            let Rendered { text, asked } = self.template.render(self.lists.known())?;
            if !self.lists.follow(asked).await? {
                return Ok(text);
            }
        }
    }
}
