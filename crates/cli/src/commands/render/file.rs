//! The file that is written: beside its place first, then there, at once.

use std::{
    fmt, fs, io,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;

use crate::exit::Failure;

/// What everybody may do with a new file, less what the umask takes away.
const MODE: u32 = 0o644;

/// More links than any path has.
const LINKS: usize = 40;

/// Where the file goes.
#[derive(Clone, Debug)]
pub(super) struct Target {
    path: PathBuf,
    folder: PathBuf,
    draft: PathBuf,
    /// There while whoever reads the file has not been told of it.
    owed: PathBuf,
}

/// The new file, not in its place yet. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Draft {
    target: Target,
    committed: bool,
}

// === impl Target ===

impl Target {
    pub(super) fn new(out: &Path) -> Result<Self, Failure> {
        let path = resolved(out)?;
        let shown = out.display();
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(Failure::Usage(format!("{shown} is no regular file; name one that may be replaced")));
        }
        let Some(name) = path.file_name() else {
            return Err(Failure::Usage(format!("{shown} is no name of a file")));
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Hidden, and without its ending: whoever reads all of conf.d/*.conf does not see it.
        let draft = folder.join(format!(".{}.roundsman-{}", name.to_string_lossy(), std::process::id()));
        let owed = folder.join(format!(".{}.roundsman-pending", name.to_string_lossy()));
        let folder = folder.to_owned();
        Ok(Self { path, folder, draft, owed })
    }

    /// Whether it is the same file as this one.
    pub(super) fn is_at(&self, other: &Path) -> bool {
        let id = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        id(&self.path).is_some_and(|found| id(other) == Some(found))
    }

    /// Whether an earlier process wrote it, and then did not get to tell whoever reads it.
    pub(super) fn is_owed(&self) -> bool {
        fs::symlink_metadata(&self.owed).is_ok()
    }

    /// Whoever reads it has been told.
    pub(super) async fn settle(&self) -> Result<(), Failure> {
        let target = self.clone();
        let settled = blocking(move || match fs::remove_file(&target.owed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        settled.await.map_err(|error| {
            Failure::Failed(format!(
                "cannot remove {}, so that the command will be run again: {error}",
                self.owed.display()
            ))
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has this content already.
    pub(super) async fn is(&self, text: &str) -> bool {
        tokio::fs::read(&self.path).await.is_ok_and(|found| found == text.as_bytes())
    }

    /// Writes the new file, as safe on the disk as the old one.
    pub(super) async fn draft(&self, text: String) -> Result<Draft, Failure> {
        let draft = Draft { target: self.clone(), committed: false };
        let target = self.clone();
        blocking(move || target.write(&text)).await.map_err(|error| self.failed(&error))?;
        Ok(draft)
    }

    fn write(&self, text: &str) -> io::Result<()> {
        // Of an earlier process with our number, which was killed.
        drop(fs::remove_file(&self.draft));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&self.draft)?;
        if let Ok(old) = fs::metadata(&self.path) {
            file.set_permissions(fs::Permissions::from_mode(old.permissions().mode() & 0o7777))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::Failed(format!("cannot write {self}: {error}; the new file is made in the same folder"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

// === impl Draft ===

impl Draft {
    pub(super) fn made(&self) -> &Path {
        &self.target.draft
    }

    /// Puts it into its place: whoever opens the file finds the old one or the new one, whole.
    /// Where somebody has to be `told`, that is noted down first, so that it is made up for whatever happens.
    pub(super) async fn commit(mut self, told: bool) -> Result<(), Failure> {
        let target = self.target.clone();
        let renamed = blocking(move || {
            if told && !target.is_owed() {
                fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&target.owed)?;
                fs::File::open(&target.folder)?.sync_all()?;
            }
            fs::rename(&target.draft, &target.path)?;
            fs::File::open(&target.folder)?.sync_all()
        });
        renamed.await.map_err(|error| self.target.failed(&error))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.committed {
            drop(fs::remove_file(&self.target.draft));
        }
    }
}

/// Through links, also one that leads to nothing yet: what they point to is replaced, not they.
fn resolved(out: &Path) -> Result<PathBuf, Failure> {
    let mut path = out.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = path.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => return Ok(whole(&path).unwrap_or(path)),
        }
    }
    Err(Failure::Usage(format!("{} is a link that leads in a circle; remove it, or name another file", out.display())))
}

/// The whole path, also of a file that is not there yet: a command may look from another folder.
fn whole(path: &Path) -> io::Result<PathBuf> {
    let (Err(_), Some(folder), Some(name)) = (fs::metadata(path), path.parent(), path.file_name()) else {
        return fs::canonicalize(path);
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Ok(fs::canonicalize(folder).or_else(|_| std::path::absolute(folder))?.join(name))
}

/// Disks are slow at times, and the connection to the server lives on this thread.
async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
