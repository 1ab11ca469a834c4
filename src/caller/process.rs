//! What `/proc` says of the process that connected: supplementary groups and systemd unit.
//!
//! A pid is only a number, and numbers are used again. So the process is pinned by the pidfd that the kernel keeps with the
//! connection (`SO_PEERPIDFD`, Linux 6.5): if it is still alive after reading, what was read was about it. On older
//! kernels the time at which the process with this pid was started must be the same before and after, which leaves a
//! process that took over the pid before the connection was accepted.
//!
//! What is read must fit what the kernel said at `connect`: a process that has become another user since, by exec'ing a
//! set-uid program say, is nobody's group member here. Whatever can't be read or does not fit counts as nothing: such a
//! rule does not match.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;

use crate::caller::overflow_gid;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Supplementary groups.
    pub(super) groups: Vec<u32>,
    /// The systemd unit.
    pub(super) unit: Option<String>,
}

/// The kernel allows 65,536 groups; a status file with all of them is refused rather than read.
const LONGEST: u64 = 64 * 1024;

pub(super) fn look_at(stream: &UnixStream, pid: i32, uid: u32, gid: u32) -> Option<Process> {
    // A process of a sibling pid namespace has no number here.
    if pid <= 0 {
        return None;
    }
    let pin = Pin::on(stream, pid)?;
    let status = read(pid, "status")?;
    let groups = groups(&status, uid, gid, overflow_gid())?;
    let unit = read(pid, "cgroup").as_deref().and_then(unit).map(str::to_owned);
    pin.holds(pid).then_some(Process { groups, unit })
}

/// Holds on to one process.
enum Pin {
    Pidfd(OwnedFd),
    StartTime(u64),
}

impl Pin {
    fn on(stream: &UnixStream, pid: i32) -> Option<Self> {
        match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(pidfd) => Some(Self::Pidfd(pidfd)),
            Err(Errno::ENOPROTOOPT) => start_time(pid).map(Self::StartTime),
            // It is gone already: until Linux 6.15 there is no pidfd of one that is (EINVAL).
            Err(_) => None,
        }
    }

    fn holds(&self, pid: i32) -> bool {
        match self {
            // A pidfd becomes readable when its process has ended.
            Self::Pidfd(pidfd) => {
                let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                poll(&mut ended, PollTimeout::ZERO) == Ok(0)
            }
            Self::StartTime(before) => start_time(pid) == Some(*before),
        }
    }
}

fn read(pid: i32, file: &str) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(format!("/proc/{pid}/{file}")).ok()?;
    let length = file.take(LONGEST).read_to_string(&mut text).ok()?;
    (u64::try_from(length).ok()? < LONGEST).then_some(text)
}

/// Field 22 of `stat`, after the command's name, which may contain anything, in parentheses.
fn start_time(pid: i32) -> Option<u64> {
    read(pid, "stat")?.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The supplementary groups, if the process is wholly this user and its effective group is this one.
fn groups(status: &str, uid: u32, gid: u32, overflow: u32) -> Option<Vec<u32>> {
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
    };
    // Real, effective, saved and file system id.
    let (uids, gids) = (line("Uid")?, line("Gid")?);
    let same = uids.len() == 4 && uids.iter().all(|one| *one == uid) && gids.get(1) == Some(&gid);
    let mut groups = line("Groups")?;
    groups.retain(|group| *group != overflow);
    same.then_some(groups)
}

/// The system's unit that a process belongs to: the first in its path below slices. What users start in their own managers
/// is `user@UID.service` here, whatever they call it; nobody gets a name by choosing it.
fn unit(cgroups: &str) -> Option<&str> {
    let path = |controllers: &str| {
        cgroups.lines().find_map(|line| {
            let (_hierarchy, rest) = line.split_once(':')?;
            rest.strip_prefix(controllers)?.strip_prefix(':')
        })
    };
    let path = path("name=systemd").or_else(|| path(""))?;
    let first = path.split('/').skip(1).find(|part| part.strip_suffix(".slice").is_none())?;
    [".service", ".scope"].iter().any(|kind| first.strip_suffix(kind).is_some()).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_systems_and_nobody_chooses_its_name() {
        for (cgroups, expected) in [
            ("0::/system.slice/airflow.service\n", Some("airflow.service")),
            (
                "0::/system.slice/system-worker.slice/worker@3.service/sub/x.service\n",
                Some("worker@3.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/airflow.service\n",
                Some("user@1000.service"),
            ),
            ("0::/user.slice/user-1000.slice/session-4.scope\n", Some("session-4.scope")),
            ("12:pids:/x\n1:name=systemd:/system.slice/a.service\n0::/\n", Some("a.service")),
            ("0::/../../system.slice/airflow.service\n", None),
            ("0::/docker/airflow.service\n", None),
            ("0::/system.slice/airflow.service (deleted)\n", None),
            ("0::/\n", None),
            ("0::/system.slice\n", None),
            ("", None),
        ] {
            assert_eq!(unit(cgroups), expected, "{cgroups}");
        }
    }

    #[test]
    fn groups_are_those_of_the_user_who_connected_and_of_nobody_it_has_become() {
        let status = |uids: &str, gids: &str, groups: &str| {
            format!("Name:\tx\nUid:\t{uids}\nGid:\t{gids}\nGroups:\t{groups}\nNgid:\t0\n")
        };
        let plain = status("7\t7\t7\t7", "8\t8\t8\t8", "4 24 65534 ");
        assert_eq!(
            groups(&plain, 7, 8, 65_534),
            Some(vec![4, 24]),
            "whom nobody has a number for is no group"
        );
        assert_eq!(groups(&status("7\t7\t7\t7", "8\t8\t8\t8", ""), 7, 8, 65_534), Some(Vec::new()));
        for (uids, gids) in [
            ("7\t0\t0\t0", "8\t8\t8\t8"),
            ("7\t7\t0\t7", "8\t8\t8\t8"),
            ("9\t9\t9\t9", "8\t8\t8\t8"),
            ("7\t7\t7\t7", "8\t0\t0\t0"),
            ("7", "8\t8\t8\t8"),
            ("x", "8\t8\t8\t8"),
        ] {
            assert_eq!(groups(&status(uids, gids, "4"), 7, 8, 65_534), None, "{uids} {gids}");
        }
        assert_eq!(groups("Groups:\t4\n", 7, 8, 65_534), None);
    }

    #[tokio::test]
    async fn a_process_that_has_ended_is_not_taken_for_whoever_has_its_number_now() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let connect =
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()";
        let mut command = std::process::Command::new("python3");
        let spawned = command.args(["-c", connect]).arg(&path).stdin(std::process::Stdio::piped()).spawn();
        // tests/it/callers.rs says what is skipped without it.
        let Ok(mut child) = spawned else { return };
        let (stream, _) = listener.accept().await.unwrap();
        let credentials = stream.peer_cred().unwrap();
        let (pid, uid, gid) = (credentials.pid().unwrap(), credentials.uid(), credentials.gid());
        let found = look_at(&stream, pid, uid, gid).unwrap();
        let own = nix::unistd::getgroups().unwrap();
        assert_eq!(found.groups.len(), own.iter().filter(|group| group.as_raw() != overflow_gid()).count());
        assert_eq!(look_at(&stream, 0, uid, gid), None, "of a sibling pid namespace");
        // Another process' number, as if it had been used again: ourselves.
        let pin = Pin::on(&stream, pid).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(
            !pin.holds(i32::try_from(std::process::id()).unwrap()),
            "the pin is on the process, not on a number"
        );
        assert_eq!(look_at(&stream, pid, uid, gid), None);
    }
}
