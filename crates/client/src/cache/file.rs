//! The snapshot file: what was known last, for a start without any server.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::{Instance, Namespace, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::table::Table;

/// The file is written no more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// The format that this version reads and writes.
const VERSION: u32 = 1;

/// Numbers the drafts of this process.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    version: u32,
    namespace: Namespace,
    pub(crate) services: BTreeMap<ServiceName, Saved>,
}

/// One service's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// When a server last said that this is so.
    pub(crate) confirmed_at: Timestamp,
    pub(crate) instances: Arc<[Arc<Instance>]>,
}

/// Writes images to the file, the latest one each time.
#[derive(Debug)]
pub(crate) struct Saver {
    path: PathBuf,
    images: watch::Receiver<Image>,
    failing: bool,
}

/// Reads the file, or says why not and goes on with `empty`.
pub(crate) async fn read(path: PathBuf, empty: Image) -> Image {
    let namespace = empty.namespace.clone();
    let shown = path.display().to_string();
    let read = spawn_blocking(move || read_now(&path, &namespace)).await;
    match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(image) => return image,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = shown, %error, "the snapshot file is not used"),
    }
    empty
}

fn read_now(path: &Path, namespace: &Namespace) -> io::Result<Image> {
    let image: Image = serde_json::from_slice(&std::fs::read(path)?)?;
    if image.version != VERSION {
        return Err(io::Error::other(format!("it has version {}, this program reads {VERSION}", image.version)));
    }
    if image.namespace != *namespace {
        return Err(io::Error::other(format!("it is about the namespace {}, not {namespace}", image.namespace)));
    }
    Ok(image)
}

/// Writes beside the file and renames, so that whoever reads finds the old one or the new one, whole.
fn write_now(path: &Path, image: &Image) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    // Two clients in one process may have been given the same file: each has a draft of its own.
    beside.push(format!(".{}-{}.tmp", std::process::id(), DRAFTS.fetch_add(1, Ordering::Relaxed)));
    let beside = PathBuf::from(beside);
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        file.write_all(&serde_json::to_vec(image)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    });
    if written.is_err() {
        drop(std::fs::remove_file(&beside));
    }
    written
}

// === impl Image ===

impl Image {
    pub(crate) fn new(namespace: Namespace) -> Self {
        Self { version: VERSION, namespace, services: BTreeMap::new() }
    }

    /// Takes over what was read, where nothing newer is known.
    pub(crate) fn absorb(&mut self, read: Self) {
        self.namespace = read.namespace;
        for (name, saved) in read.services {
            self.services.entry(name).or_insert(saved);
        }
    }

    /// Takes over what is certain at this moment. Services that nobody asks for at present are kept as they were.
    /// `theirs` tells which services are somebody else's to save.
    pub(crate) fn update(&mut self, table: &Table, now: Timestamp, theirs: impl Fn(&ServiceName) -> bool) {
        for (name, instances) in table.certain().filter(|(name, _)| !theirs(name)) {
            let instances: Arc<[_]> = instances.cloned().collect();
            if instances.is_empty() {
                self.services.remove(name);
            } else {
                self.services.insert(name.clone(), Saved { confirmed_at: now, instances });
            }
        }
    }
}

// === impl Saver ===

impl Saver {
    pub(crate) fn new(path: PathBuf) -> (Self, watch::Sender<Image>) {
        let (sender, images) = watch::channel(Image::new(Namespace::default()));
        (Self { path, images, failing: false }, sender)
    }

    /// Writes each image, until there will be none any more, and then the last one.
    pub(crate) async fn run(mut self) {
        while self.images.changed().await.is_ok() {
            self.write().await;
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = ended(self.images.clone()) => {}
            }
        }
    }

    async fn write(&mut self) {
        let image = self.images.borrow_and_update().clone();
        let path = self.path.clone();
        let written = spawn_blocking(move || write_now(&path, &image)).await;
        let failed = written.unwrap_or_else(|error| Err(io::Error::other(error))).err();
        if let Some(error) = failed.as_ref().filter(|_| !self.failing) {
            tracing::warn!(path = %self.path.display(), %error, "the snapshot file cannot be written; going on without");
        }
        self.failing = failed.is_some();
    }
}

/// Returns when there will be no more images.
async fn ended(mut images: watch::Receiver<Image>) {
    while images.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let instance: Instance = crate::cache::table::tests::instance("product", "product-1");
        let saved = Saved {
            confirmed_at: Timestamp::from_millis(1_795_225_800_123),
            instances: Arc::from([Arc::new(instance)]),
        };
        Image { services: [("product".parse().unwrap(), saved)].into(), ..Image::new(Namespace::default()) }
    }

    #[test]
    fn reads_what_was_written_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        for _ in 0..2 {
            write_now(&path, &image()).unwrap();
        }
        assert_eq!(read_now(&path, &Namespace::default()).unwrap(), image());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_now(&folder.path().join("no/such/folder"), &image()).is_err());
    }

    #[test]
    fn two_who_write_at_once_leave_one_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        let long = Image {
            services: (0..2_000)
                .map(|n| (format!("s{n}").parse().unwrap(), image().services.into_values().next().unwrap()))
                .collect(),
            ..image()
        };
        std::thread::scope(|scope| {
            for image in [image(), long.clone(), image(), long.clone()] {
                scope.spawn({
                    let path = &path;
                    move || (0..25).for_each(|_| write_now(path, &image).unwrap())
                });
            }
        });
        let read = read_now(&path, &Namespace::default()).unwrap();
        assert!(read == image() || read == long);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        write_now(&path, &image()).unwrap();
        let other = Namespace::try_new("shop").unwrap();
        assert!(read_now(&path, &other).unwrap_err().to_string().contains("namespace default, not shop"));
        write_now(&path, &Image { version: 2, ..image() }).unwrap();
        assert!(read_now(&path, &Namespace::default()).unwrap_err().to_string().contains("version 2"));
        std::fs::write(&path, "{\"version\":1").unwrap();
        assert!(read_now(&path, &Namespace::default()).is_err());
    }

    #[tokio::test]
    async fn the_last_image_is_written_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        let (saver, images) = Saver::new(path.clone());
        images.send_replace(Image::new(Namespace::default()));
        images.send_replace(image());
        drop(images);
        saver.run().await;
        assert_eq!(read_now(&path, &Namespace::default()).unwrap(), image());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let empty = Image::new(Namespace::default());
        assert_eq!(read(folder.path().join("absent"), empty.clone()).await, empty);
        assert_eq!(read(folder.path().to_owned(), empty.clone()).await, empty);
    }
}
