//! The log's file and the head's, as the writer has them open.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::audit::chain::{Head, Key, Link};
use crate::audit::resume::{Resumed, resume};

/// How much of a file's end is looked at: more than what is written at once.
const TAIL: u64 = 8 * 1024 * 1024;

/// The log, open for appending.
pub(super) struct LogFile {
    file: File,
    /// Not a device: it has a length, and an end that can be looked at.
    regular: bool,
    /// As we left it.
    length: u64,
}

/// How far lines got.
pub(super) struct Appended {
    /// So many bytes are in the file for good.
    pub(super) bytes: usize,
    /// And after them something that is not whole, and could not be taken back.
    pub(super) torn: bool,
    /// Why not all.
    pub(super) error: Option<io::Error>,
}

impl LogFile {
    /// Opens it, or makes it, 0600, and finds out where the chain goes on.
    pub(super) fn open(path: &Path, head: &Head, key: &Key) -> io::Result<(Self, Resumed)> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        // A pipe that nobody reads must not hang us.
        options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
        let mut file = options.open(path)?;
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_char_device() {
            return Err(io::Error::other("is neither a file nor a device"));
        }
        let (regular, length) = (kind.is_file(), metadata.len());
        let mut tail = Vec::new();
        if regular {
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(io::Error::other("another process writes it: each sidecar needs its own"));
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            (&mut file).take(TAIL).read_to_end(&mut tail)?;
        }
        Ok((Self { file, regular, length }, resume(&tail, head, key)))
    }

    /// Whether the path names another file now.
    pub(super) fn was_moved(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let there = std::fs::metadata(path).map(identity).ok();
        there.is_none() || there != self.file.metadata().map(identity).ok()
    }

    /// Whether somebody has cut it since we wrote last.
    pub(super) fn was_shortened(&self) -> bool {
        self.regular && self.file.metadata().is_ok_and(|metadata| metadata.len() < self.length)
    }

    /// Appends whole lines; `ends` says where each of them ends. What is not whole is taken back, if it can be.
    pub(super) fn append(&mut self, lines: &[u8], ends: &[usize]) -> Appended {
        let start = self.file.metadata().map_or(self.length, |metadata| metadata.len());
        let (mut written, mut error) = (0, None);
        while let Some(rest) = lines.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => error = Some(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(count) => written += count,
                Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
                Err(other) => error = Some(other),
            }
            if error.is_some() {
                break;
            }
        }
        let bytes = ends.iter().copied().take_while(|end| *end <= written).last().unwrap_or(0);
        let whole = start + bytes as u64;
        let mut torn = false;
        if written > bytes {
            // Cutting takes no room; a file that may only grow (chattr +a) refuses.
            torn = self.regular && self.file.set_len(whole).is_err();
        }
        self.length = if torn { start + written as u64 } else { whole };
        Appended { bytes, torn, error }
    }

    /// What was written survives a loss of power from now on.
    pub(super) fn sync(&self) -> io::Result<()> {
        if self.regular { self.file.sync_data() } else { Ok(()) }
    }
}

/// The head's file, written over in place.
pub(super) struct HeadFile(File);

impl HeadFile {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map(Self).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(super) fn write(&self, link: &Link, key: &Key) -> io::Result<()> {
        self.0.write_all_at(&Head::bytes(link, key), 0)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_a_directory_is_no_log() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&pipe, &directory.path().to_owned()] {
            assert!(LogFile::open(path, &Head::Missing, &Key::for_tests(1)).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn two_can_not_write_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let first = LogFile::open(&path, &Head::Missing, &Key::for_tests(1)).unwrap();
        assert!(LogFile::open(&path, &Head::Missing, &Key::for_tests(1)).is_err());
        drop(first);
        assert!(LogFile::open(&path, &Head::Missing, &Key::for_tests(1)).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let (mut full, _) =
            LogFile::open(Path::new("/dev/full"), &Head::Missing, &Key::for_tests(1)).unwrap();
        let appended = full.append(b"a\nb\n", &[2, 4]);
        assert_eq!(appended.bytes, 0);
        assert_eq!(appended.error.unwrap().kind(), io::ErrorKind::StorageFull);
    }
}
