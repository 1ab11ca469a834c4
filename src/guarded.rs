//! Files that hold a secret, or decide who gets one, are used only if nobody but those whom the operator named can read
//! the one, or change the other.
//!
//! "Nobody" is meant: a file of mode 0644 in a directory of mode 0700 is fine, for others don't get to it. Its owner and
//! its group are the operator's choice. In a container of bursar's own there are no others, whatever the mode: that is
//! how Kubernetes and Docker mount secrets by default.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use crate::secret::Secret;

const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const ENTER: u32 = 0o1;
const STICKY: u32 = 0o1000;

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Others must not read it.
    Secret,
    /// Others may read it, but not change it.
    Decisions,
}

/// Reads a file that others can't get at. Checked is the very file that is read.
///
/// # Errors
/// What the system says, or who else can get at it and what to do about that; without the file's own path.
pub fn read(path: &Path, holds: Holds) -> io::Result<Zeroizing<String>> {
    let mut file = File::open(path)?;
    check(path, &file.metadata()?, holds)?;
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Reads a key of our own making.
///
/// # Errors
/// What is wrong with the file, with its path.
pub fn read_key(path: &Path) -> Result<Secret, String> {
    let text = read(path, Holds::Secret).map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let advice = if missing { "; make one with `bursar key generate`" } else { "" };
        format!("{}: {error}{advice}", path.display())
    })?;
    Ok(Secret::new(String::clone(&text)))
}

/// Looks at a file that somebody else reads.
///
/// # Errors
/// As `read`.
pub fn look(path: &Path, holds: Holds) -> io::Result<()> {
    check(path, &std::fs::metadata(path)?, holds)
}

/// What is no reason to refuse a file, and still worth saying at a start.
#[must_use]
pub fn doubt(path: &Path, holds: Holds) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if let Some(exposed) = exposed(path, &metadata, holds) {
        return Some(format!("{exposed}; taken all the same, for this container is bursar's own"));
    }
    let owner = metadata.uid();
    let ours = owner == 0 || owner == geteuid().as_raw() || owner == crate::caller::overflow_uid();
    (!ours).then(|| format!("uid {owner} owns it and can change it; root or bursar's own user should"))
}

fn check(path: &Path, metadata: &Metadata, holds: Holds) -> io::Result<()> {
    match exposed(path, metadata, holds) {
        Some(exposed) if !alone() => Err(io::Error::new(io::ErrorKind::PermissionDenied, exposed)),
        Some(_) | None => Ok(()),
    }
}

/// Whether the first process of this pid namespace is bursar: then nobody else lives here.
fn alone() -> bool {
    std::process::id() == 1
        || std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == "bursar")
}

/// Who can get at it that should not.
fn exposed(path: &Path, metadata: &Metadata, holds: Holds) -> Option<String> {
    let mode = metadata.mode();
    let named = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| named.clone());
    // The file itself is reached by where it really is; but whoever changes a link on the way there changes the file.
    let reached = way(&real)?;
    if let Way::Replaceable(directory) = [way(&named), Some(reached)].into_iter().flatten().max()? {
        return Some(format!(
            "everybody can write in {directory} and put another file in its place: chmod o-w {directory}",
            directory = directory.display()
        ));
    }
    let (found, what) = match holds {
        _ if mode & WRITE != 0 && !read_only(&real) => (WRITE, "change"),
        Holds::Secret => (READ, "read"),
        Holds::Decisions => return None,
    };
    (mode & found != 0).then(|| {
        format!(
            "everybody can {what} it (mode {:04o}): chmod o= {path}; where a platform mounts it, by a mode of 0440 \
             (defaultMode in Kubernetes)",
            mode & 0o7777,
            path = path.display()
        )
    })
}

/// How far others get on the way to a file.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Open,
    Replaceable(PathBuf),
}

/// `None` where a directory stops them.
fn way(path: &Path) -> Option<Way> {
    let mut directories: Vec<&Path> = path.ancestors().skip(1).collect();
    directories.reverse();
    for directory in directories {
        let Ok(metadata) = std::fs::metadata(directory) else { continue };
        let mode = metadata.mode();
        if mode & ENTER == 0 {
            return None;
        }
        if mode & WRITE != 0 && mode & STICKY == 0 && !read_only(directory) {
            return Some(Way::Replaceable(directory.to_owned()));
        }
    }
    Some(Way::Open)
}

/// Whether it lies on what is mounted read-only, as a platform's volumes are.
fn read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|file_system| file_system.flags().contains(FsFlags::ST_RDONLY))
}

#[cfg(test)]
mod tests;
