//! A disk so small that it can be filled, where the tests may mount one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A small file system in memory. Gone when dropped.
pub(crate) struct SmallDisk {
    path: PathBuf,
    dir: Option<tempfile::TempDir>,
}

impl SmallDisk {
    /// Mounts one; `None` where that is not allowed, which is everywhere but for root.
    pub(crate) fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Self::mount_on(dir.path())?;
        disk.dir = Some(dir);
        Some(disk)
    }

    /// Mounts one on this folder.
    pub(crate) fn mount_on(path: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { path: path.to_owned(), dir: None });
        }
        eprintln!("no right to mount a small disk here; the page limit of SQLite stands in for it elsewhere");
        None
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Takes all the room there is.
    pub(crate) fn fill(&self) {
        fs::write(self.path.join("ballast"), []).unwrap();
        self.fill_up();
    }

    /// Takes what room there is besides.
    pub(crate) fn fill_up(&self) {
        let (mut chunk, ballast) = (64 * 1_024, self.path.join("ballast"));
        let mut ballast = fs::OpenOptions::new().append(true).open(ballast).unwrap();
        while chunk > 0 {
            if std::io::Write::write_all(&mut ballast, &vec![0; chunk]).is_err() {
                chunk /= 2;
            }
        }
    }

    /// Gives back some of what was taken.
    pub(crate) fn make_some_room(&self, bytes: u64) {
        let ballast = fs::OpenOptions::new().write(true).open(self.path.join("ballast")).unwrap();
        let len = ballast.metadata().unwrap().len();
        ballast.set_len(len - bytes).unwrap();
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.path.join("ballast")).unwrap();
    }

    pub(crate) fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.path).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Unmounted first, or the folder could not be removed.
        drop(Command::new("umount").arg("-l").arg(&self.path).status());
        drop(self.dir.take());
    }
}
