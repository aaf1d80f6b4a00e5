//! Room that is kept for the day on which the disk is full.
//!
//! Removals and drains make a file no larger in the end, but they need room first: SQLite appends what a commit
//! changes to its log. So a file of real blocks lies beside the database, `PATH.reserve`. When the disk is full it is
//! given up, and nothing that makes the store grow is written until there is room to make it again: otherwise
//! registrations would use up what removals need.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// How large it may be. The largest of which there is twice the room is taken.
const SIZES: [u64; 5] = [4 << 20, 2 << 20, 1 << 20, 512 << 10, 256 << 10];
const SMALLEST: u64 = 256 << 10;
/// What is kept until the very end, for a server that has to start on the full disk.
const LAST: u64 = 64 << 10;
/// On a disk without room for a reserve: how many calls of [`Reserve::tend`] between two attempts.
const PATIENCE: u32 = 60;
const CHUNK: usize = 64 << 10;

/// The file, and what has become of it.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    state: State,
    /// The size it had, and gets again.
    size: Option<u64>,
    waited: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    /// The disk is, or was, full.
    GivenUp,
    /// There never was room for it.
    Absent,
}

// === impl Reserve ===

impl Reserve {
    /// The reserve beside a database; made if it is not there and there is room.
    pub(super) fn beside(database: &Path) -> Self {
        let path = path(database);
        // Something else under its name was never a reserve, and was never given up.
        let found = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        let (state, size) = match found {
            Some(size) if size >= SMALLEST => (State::Whole, Some(size)),
            Some(_) => (State::GivenUp, None),
            None => (State::Absent, None),
        };
        let mut reserve = Self { path, state, size, waited: 0 };
        if !reserve.make() && state == State::Absent {
            tracing::warn!(path = %reserve.path.display(), "a reserve cannot be made here: there is no room, or something else has its name; on a full disk removals may be refused");
        }
        reserve
    }

    /// Whether it was given up: then nothing that grows may be written before [`Reserve::make`] succeeds.
    pub(super) fn is_given_up(&self) -> bool {
        self.state == State::GivenUp
    }

    /// How many bytes it has when it is whole.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Makes it whole. `false`: there is no room.
    pub(super) fn make(&mut self) -> bool {
        if self.state == State::Whole {
            return true;
        }
        let made = match (self.state, self.size) {
            (_, Some(size)) => grow(&self.path, size, size).is_ok().then_some(size),
            (state, None) => SIZES.into_iter().find(|size| {
                // Where the disk has been full, what is there now may be all that ever will be.
                let scarce = state == State::GivenUp && *size == SMALLEST;
                grow(&self.path, *size, if scarce { *size } else { size * 2 }).is_ok()
            }),
        };
        if let Some(size) = made {
            (self.state, self.size) = (State::Whole, Some(size));
        }
        made.is_some()
    }

    /// Looks after one that is not given up, once in a while: somebody may have deleted it, or made room for it.
    pub(super) fn tend(&mut self) {
        match self.state {
            State::Whole if !self.path.exists() => self.state = State::Absent,
            State::Whole | State::GivenUp => return,
            State::Absent => {
                self.waited += 1;
                if self.waited < PATIENCE {
                    return;
                }
            }
        }
        self.waited = 0;
        self.make();
    }

    /// Gives its room back to the disk. `false`: it has none any more.
    pub(super) fn give_up(&mut self) -> bool {
        if self.state != State::Whole {
            return false;
        }
        self.state = State::GivenUp;
        let shrunk = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(LAST));
        shrunk.is_ok()
    }
}

/// Where the reserve of a database lies.
fn path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".reserve");
    PathBuf::from(path)
}

/// Gives up the last of it, for a server that could not start for want of room. `false`: there was nothing.
pub(super) fn give_up_all(database: &Path) -> bool {
    let path = path(database);
    let had = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0);
    // Emptied, not removed: that it was given up must be known after the start.
    had && OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0)).is_ok()
}

/// Makes the file `size` bytes long, if there is room for `needed`. Otherwise it stays as long as it was.
fn grow(path: &Path, size: u64, needed: u64) -> io::Result<()> {
    let existed = path.exists();
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let before = file.metadata()?.len();
    let grown = fill(&mut file, before, needed);
    file.set_len(if grown.is_ok() { size } else { before })?;
    if grown.is_err() && !existed {
        std::fs::remove_file(path)?;
    }
    grown
}

/// Writes bytes that no file system can compress or leave out.
fn fill(file: &mut File, from: u64, to: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut at = file.seek(SeekFrom::Start(from))?;
    while at < to {
        fastrand::fill(&mut chunk);
        let count = usize::try_from(to - at).map_or(CHUNK, |left| left.min(CHUNK));
        file.write_all(chunk.get(..count).unwrap_or_default())?;
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_is_made_of_real_blocks_given_up_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("r.db");
        let file = dir.path().join("r.db.reserve");
        let blocks = || std::fs::metadata(&file).unwrap().blocks() * 512;
        let mut reserve = Reserve::beside(&database);
        assert!(!reserve.is_given_up() && reserve.size() == Some(SIZES[0]));
        File::open(&file).unwrap().sync_all().unwrap();
        assert!(blocks() >= SIZES[0], "{}", blocks());
        assert!(reserve.give_up() && !reserve.give_up() && reserve.is_given_up());
        assert!(blocks() <= LAST);
        // A server that starts now knows that it was given up.
        drop(reserve);
        assert!(give_up_all(&database) && !give_up_all(&database));
        let mut reserve = Reserve::beside(&database);
        assert!(!reserve.is_given_up() && reserve.make(), "there is room again");
        std::fs::remove_file(&file).unwrap();
        reserve.tend();
        assert!(file.exists() || reserve.state == State::Absent);
    }

    #[test]
    fn where_it_cannot_be_made_the_store_does_without() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("r.db.reserve")).unwrap();
        assert_eq!(Reserve::beside(&dir.path().join("r.db")).state, State::Absent, "a folder has its name");
        let mut reserve = Reserve::beside(Path::new("/proc/nowhere/r.db"));
        assert_eq!((reserve.state, reserve.is_given_up(), reserve.give_up()), (State::Absent, false, false));
        reserve.tend();
        assert!(!reserve.make());
    }
}
