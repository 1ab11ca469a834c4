//! The sockets: is there a place for them, and does somebody listen?

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::unistd::{AccessFlags, access, geteuid};

use crate::check::Step;
use crate::settings::Fixed;
use crate::socket;

/// `__SO_ACCEPTCON`: it takes connections.
const ACCEPTS: u32 = 0x1_0000;

/// `running` is whether a sidecar answered at the admin socket. Nobody connects to the vending socket: systemd would start
/// the service for that, and its queue takes connections whether or not anybody is there.
pub(super) fn look(fixed: &Fixed, running: bool) -> Vec<Step> {
    [("socket", &fixed.socket.path), ("admin", &fixed.admin.path)]
        .map(|(section, path)| judge(section, path, running))
        .into()
}

/// Whether some process has a socket there that takes connections (proc(5), `/proc/net/unix`).
fn is_bound(path: &Path) -> bool {
    let table = std::fs::read("/proc/net/unix").unwrap_or_default();
    is_in(&table, path)
}

fn is_in(table: &[u8], path: &Path) -> bool {
    let mut lines = table.split(|byte| *byte == b'\n');
    lines.any(|line| {
        // Num, RefCount, Protocol, Flags, Type, St, Inode, Path: the rest of the line, with what spaces it has.
        let Ok(line) = std::str::from_utf8(line) else { return false };
        let Some(at) = line.find(" /") else { return false };
        let (fields, name) = line.split_at(at + 1);
        let flags = fields.split_whitespace().nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        Path::new(name) == path && flags.is_some_and(|flags| flags & ACCEPTS != 0)
    })
}

fn judge(section: &str, path: &Path, running: bool) -> Step {
    let subject = format!("{section}.path");
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let message = format!("{shown}: something that is not a socket is there");
            return Step::bad("socket", subject, message, format!("move {shown} away, or name another path"));
        }
        Ok(_) if running && is_bound(path) => {
            return Step::good("socket", subject, format!("{shown}: a sidecar listens there"));
        }
        Ok(_) if is_bound(path) => {
            let why =
                format!("{shown}: bound, perhaps by systemd, and no sidecar answers at the admin socket");
            let remedy = "start bursar (`systemctl start bursar`), or run the check as root, or as the user that bursar runs as";
            return Step::untold("socket", subject, why).and_do(remedy);
        }
        // Left by a process that is gone: the next one takes its place.
        Ok(_) => {}
        Err(_absent) => {}
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    // What is missing of the directory is made at a start, if it can be.
    let there = directory.ancestors().find(|directory| directory.exists()).unwrap_or(Path::new("/"));
    let remedy = format!(
        "make {} a directory of the user that bursar runs as, mode 0755 (RuntimeDirectory=bursar in its unit does that)",
        directory.display()
    );
    if !there.is_dir() {
        let message = format!("{shown}: {} is not a directory", there.display());
        return Step::bad("socket", subject, message, remedy);
    }
    // As root there is no telling whether the directory's owner is who bursar runs as.
    let owner = std::fs::metadata(there).map_or(0, |metadata| metadata.uid());
    if there == directory && geteuid().is_root() && owner != 0 {
        let message = format!("{shown}: nobody listens, and its directory belongs to uid {owner}");
        return Step::untold("socket", subject, message)
            .and_do("run the check as the user that bursar runs as");
    }
    if there == directory
        && let Err(why) = socket::check_directory(directory)
    {
        return Step::bad("socket", subject, why, remedy);
    }
    if access(there, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let message = format!("{shown}: this user can't make anything in {}", there.display());
        return Step::bad("socket", subject, message, remedy);
    }
    Step::good("socket", subject, format!("{shown}: nobody listens, and there is a place for it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_takes_connections_at_this_path_is_bound() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/bursar/bursar.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 12346 /run/bursar/admin.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 12347 @/run/abstract\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 12348 /run/with a space/b.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 12349\n";
        for (path, expected) in [
            ("/run/bursar/bursar.sock", true),
            ("/run/bursar/admin.sock", false),
            ("/run/bursar", false),
            ("/run/with a space/b.sock", true),
        ] {
            assert_eq!(is_in(table, Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn looking_at_a_socket_does_not_wake_whoever_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bursar.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let step = judge("socket", &path, false);
        assert_eq!(step.verdict, crate::check::Verdict::Untold, "{step:?}");
        assert!(step.message.contains("perhaps by systemd"), "{step:?}");
        assert!(listener.accept().is_err(), "nobody connected");
        assert_eq!(judge("socket", &path, true).verdict, crate::check::Verdict::Good);
        drop(listener);
        assert!(judge("socket", &path, false).message.contains("nobody listens"), "left behind");
    }
}
