//! Who is at the other end of the socket, as the kernel says: fixed when it connected, whatever it claims later.

use std::io;

use tokio::net::UnixStream;

/// A local process. Only this module makes one from a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    uid: u32,
    gid: u32,
    pid: Option<i32>,
}

impl Caller {
    /// The peer of `stream` (`SO_PEERCRED`).
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() })
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

    /// A made-up caller, for tests of what is decided about one.
    #[cfg(test)]
    pub(crate) fn invented(uid: u32, gid: u32) -> Self {
        Self { uid, gid, pid: None }
    }
}

/// The uid that stands for every user whom this user namespace has no number for.
#[must_use]
pub fn overflow_uid() -> u32 {
    let read = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
    read.and_then(|text| text.trim().parse().ok()).unwrap_or(65_534)
}
