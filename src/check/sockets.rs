//! The sockets: is there a place for them, and does somebody listen?

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::{AccessFlags, access, geteuid};

use crate::check::Step;
use crate::settings::Fixed;
use crate::socket;

pub(super) fn look(fixed: &Fixed) -> Vec<Step> {
    [("socket", &fixed.socket.path), ("admin", &fixed.admin.path)]
        .map(|(section, path)| judge(section, path))
        .into()
}

fn judge(section: &str, path: &Path) -> Step {
    let subject = format!("{section}.path");
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let message = format!("{shown}: something that is not a socket is there");
            return Step::bad("socket", subject, message, format!("move {shown} away, or name another path"));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_hung_up) => {
                return Step::good("socket", subject, format!("{shown}: a sidecar listens there"));
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let why = format!("{shown}: is there, and this user may not open it");
                let remedy = if section == "admin" {
                    "run the check as the user that bursar runs as, or as root"
                } else {
                    "workers must be in the group that [socket] group names"
                };
                return Step::untold("socket", subject, why).and_do(remedy);
            }
            // Left by a process that is gone: the next one takes its place.
            Err(_refused) => {}
        },
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
