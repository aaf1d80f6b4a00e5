//! The text of the template: a regular file of a sane size, read at once.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

use crate::exit::Failure;

/// More than anybody writes by hand.
const MOST: u64 = 4 * 1_024 * 1_024;

/// Reads it. Anything but a regular file is refused: it may have no end, or be another one the next time.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let failed = |error: io::Error| Failure::Failed(format!("cannot read the template {shown}: {error}"));
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    // A pipe would otherwise be waited for in here.
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?;
    if !kind.is_file() {
        let text =
            format!("the template {shown} is no regular file; write it to one, since it is read again for each list");
        return Err(Failure::Usage(text));
    }
    let mut text = String::new();
    let read = file.take(MOST + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(read).is_ok_and(|read| read > MOST) {
        let most = MOST / 1_024 / 1_024;
        return Err(Failure::Failed(format!("the template {shown} is longer than {most} MiB; is it the right file?")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_sane_size_are_templates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.j2");
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(read(&path).unwrap(), "hello");
        for other in ["/dev/zero", "/dev/null", folder.path().to_str().unwrap()] {
            let refused = read(Path::new(other)).unwrap_err();
            assert!(matches!(&refused, Failure::Usage(text) if text.contains("no regular file")), "{refused}");
        }
        std::fs::File::create(&path).unwrap().set_len(MOST + 1).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("longer than 4 MiB"));
    }
}
