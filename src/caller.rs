//! Who is at the other end of the socket, as the kernel says: fixed when it connected, whatever it claims later.
//!
//! Uid, primary gid and pid come with the connection (`SO_PEERCRED`). Supplementary groups and the systemd unit are read
//! from `/proc`, and only where a rule or the audit log asks for them: see `caller::process`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UnixStream;

/// What `/proc` tells of a process that is held on to meanwhile.
mod process;

use process::Process;

/// A local process. Only this module makes one from a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    uid: u32,
    gid: u32,
    pid: Option<i32>,
    process: Option<Arc<Process>>,
}

/// How closely callers are looked at when they connect. Shared: a reload that asks for more is heeded by whoever accepts.
#[derive(Clone, Debug, Default)]
pub struct Look(Arc<AtomicBool>);

impl Look {
    /// From now on also at groups and unit, or not.
    pub fn closely(&self, closely: bool) {
        self.0.store(closely, Ordering::Relaxed);
    }
}

impl Caller {
    /// The peer of `stream`.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn of(stream: &UnixStream, look: &Look) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let (uid, gid, pid) = (credentials.uid(), credentials.gid(), credentials.pid());
        let process = if look.0.load(Ordering::Relaxed) {
            pid.and_then(|pid| process::look_at(stream, pid, uid, gid)).map(Arc::new)
        } else {
            None
        };
        Ok(Self { uid, gid, pid, process })
    }

    /// The effective user id. A user that this user namespace does not know shows as the kernel's overflow uid.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective primary group id.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The process id, for logs only: ids are used again. 0 for a process of a sibling pid namespace.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Whether this is its primary group or, as far as it was looked at closely, a supplementary one.
    #[must_use]
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.process.as_ref().is_some_and(|process| process.groups.contains(&gid))
    }

    /// Its systemd unit, if it was looked at closely and runs in one.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        self.process.as_ref()?.unit.as_deref()
    }

    /// A made-up caller, for tests of what is decided about one.
    #[cfg(test)]
    pub(crate) fn invented(uid: u32, gid: u32) -> Self {
        Self { uid, gid, pid: None, process: None }
    }

    /// The same in these groups and this unit.
    #[cfg(test)]
    pub(crate) fn with(self, groups: &[u32], unit: Option<&str>) -> Self {
        let process = Process { groups: groups.to_vec(), unit: unit.map(str::to_owned) };
        Self { process: Some(Arc::new(process)), ..self }
    }
}

/// The id that stands for every user, and likewise group, whom this user namespace has no number for.
#[must_use]
pub fn overflow_uid() -> u32 {
    overflow("uid")
}

/// The same for groups.
#[must_use]
pub fn overflow_gid() -> u32 {
    overflow("gid")
}

fn overflow(kind: &str) -> u32 {
    let read = std::fs::read_to_string(format!("/proc/sys/kernel/overflow{kind}")).ok();
    read.and_then(|text| text.trim().parse().ok()).unwrap_or(65_534)
}
