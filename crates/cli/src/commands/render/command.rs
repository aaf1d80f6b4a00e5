//! The commands of others: `--check` and `--exec`.

use std::{path::Path, process::Stdio, time::Duration};

use roundsman::protocol::time;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use crate::output::printable;

/// What the file is called in a command.
pub(super) const PLACE: &str = "{}";
/// How much of the last that a command says is kept.
const KEPT: usize = 4_096;
/// How long to go on reading from a command that has ended: one that it left behind may hold the pipe for ever.
const REST: Duration = Duration::from_millis(100);

/// Which of its words are told when a command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// All: tools that look at a file complain on stdout, too.
    Everything,
    /// Those on stderr. What a command starts and leaves behind may write to stdout for as long as it runs, and must not come
    /// upon a pipe that nobody reads any more.
    Errors,
}

/// Runs it in a shell. When it fails, or takes too long, says so in words that follow a comma. Dropped, it is killed, with all
/// that it has started.
pub(super) async fn run(command: &str, file: &Path, heard: Heard, patience: Duration) -> Result<(), String> {
    let text = command.replace(PLACE, &quoted(file));
    let text = if heard == Heard::Everything { format!("exec >&2; {text}") } else { text };
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(&text).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // A group of its own, so that all of it can be killed.
    let spawned = shell.process_group(0).kill_on_drop(true).spawn();
    let child = spawned.map_err(|error| format!("`{command}` cannot be run: {error}"))?;
    let mut group = Group::of(child);
    let mut pipe = group.shell.stderr.take();
    let mut said = Vec::new();
    let ended = timeout(patience, async {
        tokio::select! {
            status = group.shell.wait() => return status,
            () = listen(&mut pipe, &mut said) => {}
        }
        group.shell.wait().await
    });
    let status = match ended.await {
        Ok(status) => {
            let status = status.map_err(|error| format!("`{command}` cannot be waited for: {error}"))?;
            group.left = None;
            status
        }
        Err(_) => {
            return Err(format!("`{command}` did not end within {} and was killed", time::display(patience)));
        }
    };
    if status.success() {
        return Ok(());
    }
    // Whatever it said last may still be in the pipe.
    drop(timeout(REST, listen(&mut pipe, &mut said)).await);
    let said = String::from_utf8_lossy(&said);
    let last: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = match (last.is_empty(), heard) {
        (false, _) => printable(&last.join("; ")),
        (true, Heard::Everything) => "it said nothing".to_owned(),
        (true, Heard::Errors) => "it said nothing on stderr".to_owned(),
    };
    Err(format!("`{command}` failed ({status}): {said}"))
}

/// Reads to the end and keeps the last of it: a command must not stand still because nobody listens.
async fn listen(pipe: &mut Option<ChildStderr>, said: &mut Vec<u8>) {
    let Some(pipe) = pipe else { return };
    let mut piece = [0; 1_024];
    while let Ok(count @ 1..) = pipe.read(&mut piece).await {
        said.extend_from_slice(piece.get(..count).unwrap_or_default());
        let surplus = said.len().saturating_sub(KEPT);
        said.drain(..surplus);
    }
}

/// A shell and whatever it starts.
struct Group {
    shell: Child,
    /// Who is killed, unless the shell has ended by itself.
    left: Option<Pid>,
}

impl Group {
    fn of(shell: Child) -> Self {
        let left = shell.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { shell, left }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // An error says that it has ended at this very moment.
        let _ended = self.left.map(|pid| kill_process_group(pid, Signal::KILL));
    }
}

/// For a shell, whatever is in the path.
fn quoted(file: &Path) -> String {
    format!("'{}'", file.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_a_failed_command_says_is_told() {
        let file = Path::new("/tmp/it's here");
        let run = async |command, heard| run(command, file, heard, LONG).await;
        assert_eq!(run("test {} = \"/tmp/it's here\"", Heard::Errors).await, Ok(()));
        let both = "echo one >&2; echo two; echo three >&2; exit 3";
        let failed = run(both, Heard::Everything).await.unwrap_err();
        assert!(failed.starts_with("`echo one") && failed.contains("exit status: 3"), "{failed}");
        assert!(failed.ends_with(": one; two; three"), "{failed}");
        assert!(run(both, Heard::Errors).await.unwrap_err().ends_with(": one; three"));
        let missing = run("no-such-command-anywhere", Heard::Errors).await.unwrap_err();
        assert!(missing.contains("exit status: 127"), "{missing}");
        assert!(run("exit 1", Heard::Everything).await.unwrap_err().ends_with("it said nothing"));
        assert!(run("echo one; exit 1", Heard::Errors).await.unwrap_err().ends_with("it said nothing on stderr"));
    }

    #[tokio::test]
    async fn a_command_may_say_much_leave_others_behind_and_hang() {
        let run = async |command, patience| run(command, Path::new("f"), Heard::Everything, patience).await;
        let much = run("head -c 1000000 /dev/zero | tr '\\0' x; exit 1", LONG).await.unwrap_err();
        assert!(much.len() < 2 * KEPT, "{}", much.len());
        assert_eq!(run("sleep 600 & exit 0", LONG).await, Ok(()), "what it leaves behind is not waited for");
        let hung = run("sleep 600; true", Duration::from_millis(200)).await.unwrap_err();
        assert!(hung.contains("did not end within 200ms and was killed"), "{hung}");
    }
}
