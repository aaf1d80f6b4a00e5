//! The file that is written: beside its place first, then there, at once.

use std::{
    fmt, fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;

use crate::exit::Failure;

/// What everybody may do with a new file, less what the umask takes away.
const MODE: u32 = 0o644;

/// Where the file goes.
#[derive(Clone, Debug)]
pub(super) struct Target {
    path: PathBuf,
    folder: PathBuf,
    draft: PathBuf,
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
        // Through links: what they point to is replaced, not they.
        let path = fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
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
        let folder = folder.to_owned();
        Ok(Self { path, folder, draft })
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
    pub(super) async fn commit(mut self) -> Result<(), Failure> {
        let target = self.target.clone();
        let renamed = blocking(move || {
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

/// Disks are slow at times, and the connection to the server lives on this thread.
async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
