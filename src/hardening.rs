//! What the process does to itself before it reads a secret, so that other processes of the same user, a crash, and a bug
//! in what it stands on give away little. Whoever starts it need not know: a unit's hardening comes on top.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

mod confinement;

pub use confinement::{Reach, confine};

/// Keeps memory and environment from others, and from core files; files that are made without a mode are ours alone; and no
/// program that is started gets more rights than we have. Threads that start later have it from us.
///
/// What could not be had, in words for the operator.
#[must_use]
pub fn seclude() -> Vec<String> {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let steps = [
        (hide(), "other processes of this user can read its memory and environment (PR_SET_DUMPABLE)"),
        (setrlimit(Resource::RLIMIT_CORE, 0, 0), "a crash may leave its memory on a disk (RLIMIT_CORE)"),
        (prctl::set_no_new_privs(), "a set-user-id program could be started (PR_SET_NO_NEW_PRIVS)"),
    ];
    let failed =
        |(result, means): (nix::Result<()>, &str)| result.err().map(|error| format!("{means}: {error}"));
    steps.into_iter().filter_map(failed).collect()
}

/// What to say of a process that has more rights than it needs.
#[must_use]
pub fn runs_as_root() -> Option<String> {
    const ADVICE: &str = "bursar runs as root, which it never needs: start it as a user of its own, as the shipped unit \
                          does (User=bursar)";
    nix::unistd::geteuid().is_root().then(|| ADVICE.to_owned())
}

/// Keeps memory and environment from other processes of the same user, and makes no core file. A program that takes this
/// one's place is not hidden.
///
/// # Errors
/// If the kernel refuses.
pub fn hide() -> nix::Result<()> {
    prctl::set_dumpable(false)
}
