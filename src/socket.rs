//! The Unix sockets: made with their mode and group in a private directory, then moved into place, so that there is no
//! moment when the wrong process can connect; never in place of a live socket or of a file that is none.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Gid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::caller::{Caller, Look};
use crate::server::{Guest, Listener, Peer};

/// The kernel's limit on a socket's path (`sun_path` less its end).
pub const LONGEST_PATH: usize = 107;

/// The admin socket's mode, which is not for configuring.
pub const ADMIN_MODE: u32 = 0o600;

/// What a socket is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where.
    pub path: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// Its group, if not our own.
    pub gid: Option<u32>,
}

/// A socket that listens.
pub struct Listening {
    listener: AsyncFd<StdListener>,
    bound: Option<Bound>,
    look: Look,
}

impl Listening {
    /// Whoever connects is looked at like this.
    #[must_use]
    pub fn looking(self, look: Look) -> Self {
        Self { look, ..self }
    }
}

/// A socket's file that we made; it goes when this is dropped.
struct Bound {
    path: PathBuf,
    inode: (u64, u64),
    // Held for its lock: whoever binds next waits for us to be gone.
    _lock: File,
}

/// The sockets that the service manager hands over (`LISTEN_FDS`), if it does.
///
/// # Errors
/// If one of them is not a listening Unix socket.
pub fn inherited() -> Result<Vec<StdListener>, String> {
    let mut given = listenfd::ListenFd::from_env();
    (0..given.len())
        .map(|index| match given.take_unix_listener(index) {
            Ok(Some(listener)) => Ok(listener),
            Ok(None) | Err(_) => {
                Err(format!("inherited socket {}: must be a listening Unix stream socket", index + 1))
            }
        })
        .collect()
}

/// Takes the socket from `inherited` if it is there, by its path; else binds it.
///
/// # Errors
/// In words for the operator.
pub fn open(config: &Config, inherited: &mut Vec<StdListener>) -> Result<Listening, String> {
    let is_it =
        |listener: &StdListener| path_of(listener).is_some_and(|path| same_place(&path, &config.path));
    let Some(index) = inherited.iter().position(is_it) else { return bind(config) };
    let listener = inherited.remove(index);
    let mode = std::fs::metadata(&config.path).map_or(0, |metadata| metadata.mode() & 0o777);
    if mode & !config.mode != 0 && config.mode == ADMIN_MODE {
        return Err(format!(
            "{}: inherited with mode {mode:04o}, but whoever opens it may do everything: SocketMode=0600",
            config.path.display()
        ));
    }
    let listening = listen(listener);
    let failed = |error| format!("{}: can't be listened on: {error}", config.path.display());
    Ok(Listening { listener: listening.map_err(failed)?, bound: None, look: Look::default() })
}

/// What to say of an inherited socket that nobody wanted.
#[must_use]
pub fn not_ours(listener: &StdListener) -> String {
    let path = path_of(listener).unwrap_or_default();
    format!(
        "{}: inherited from the service manager, but neither [socket] path nor [admin] path names it; make both the same",
        path.display()
    )
}

fn path_of(listener: &StdListener) -> Option<PathBuf> {
    listener.local_addr().ok()?.as_pathname().map(Path::to_owned)
}

/// Whether two paths name one file, although a directory may have two names (`/run`, `/var/run`).
fn same_place(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    one == other || whole(one) == whole(other)
}

/// Binds a socket.
///
/// # Errors
/// In words for the operator: somebody listens there already, something else is there, or the system refuses.
pub fn bind(config: &Config) -> Result<Listening, String> {
    let path = &config.path;
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{}: {what}: {error}", path.display());
    make_directory(path)?;
    let directory = directory_of(path);
    check_directory(directory)?;
    let lock = lock(path)?;
    clear(path)?;
    let staging =
        Staging::make(directory).map_err(|error| failed("no private directory beside it", &error))?;
    let staged = staging.0.join("s");
    let listener = bind_at(&staging.0, &staged).map_err(|error| failed("can't be bound", &error))?;
    if let Some(gid) = config.gid {
        nix::unistd::chown(&staged, None, Some(Gid::from_raw(gid)))
            .map_err(|error| failed("can't be given to its group (are we a member?)", &error))?;
    }
    std::fs::set_permissions(&staged, Permissions::from_mode(config.mode))
        .map_err(|error| failed("can't be given its mode", &error))?;
    let metadata =
        std::fs::symlink_metadata(&staged).map_err(|error| failed("can't be looked at", &error))?;
    std::fs::rename(&staged, path).map_err(|error| failed("can't be moved into place", &error))?;
    let listener = listen(listener).map_err(|error| failed("can't be listened on", &error))?;
    let bound = Bound { path: path.clone(), inode: (metadata.dev(), metadata.ino()), _lock: lock };
    Ok(Listening { listener, bound: Some(bound), look: Look::default() })
}

/// Not tokio's own listener: that one puts every connection on its books before anybody has looked whose it is.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe for the sake of types that do not own their descriptor; a listener owns its own"
)]
fn listen(listener: StdListener) -> io::Result<AsyncFd<StdListener>> {
    listener.set_nonblocking(true)?;
    AsyncFd::with_interest(listener, Interest::READABLE)
}

/// The staging directory makes a path longer than the kernel takes where the final one just fits: then it is named by
/// its descriptor.
fn bind_at(directory: &Path, staged: &Path) -> io::Result<StdListener> {
    if staged.as_os_str().len() <= LONGEST_PATH {
        return StdListener::bind(staged);
    }
    let directory = File::open(directory)?;
    StdListener::bind(format!("/proc/self/fd/{}/s", directory.as_raw_fd()))
}

/// Makes the directory that a socket is to be in, unless it is there; workers must get through, whatever the umask.
///
/// # Errors
/// What the system says, with the socket's path.
pub fn make_directory(socket: &Path) -> Result<(), String> {
    let mut missing: Vec<&Path> = directory_of(socket).ancestors().collect();
    missing.retain(|directory| !directory.as_os_str().is_empty() && !directory.exists());
    let make = |directory: &Path| {
        match DirBuilder::new().mode(0o755).create(directory) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => std::fs::set_permissions(directory, Permissions::from_mode(0o755)),
        }
    };
    let made = missing.into_iter().rev().try_for_each(make);
    made.map_err(|error| format!("{}: its directory can't be made: {error}", socket.display()))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Nobody but us and root may put something else in the socket's place.
///
/// # Errors
/// In words for the operator.
pub fn check_directory(directory: &Path) -> Result<(), String> {
    let metadata =
        std::fs::metadata(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let ours = metadata.uid() == nix::unistd::geteuid().as_raw() || metadata.uid() == 0;
    // The sticky bit keeps others from replacing our file (as in a shared temporary directory).
    let writable_by_others = metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0;
    if !ours || writable_by_others {
        return Err(format!(
            "{}: others can write in it and put a socket of theirs in place of ours; make it ours alone, mode 0755",
            directory.display()
        ));
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, String> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
    let file = file.map_err(|error| format!("{}: {error}", lock_path.display()))?;
    file.try_lock().map_err(|_| format!("{}: another process is listening there", path.display()))?;
    Ok(file)
}

/// Removes what a process that is gone has left; anything else stays, and is an error.
fn clear(path: &Path) -> Result<(), String> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    if !metadata.file_type().is_socket() {
        return Err(format!("{}: something that is not a socket is there; move it away", path.display()));
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) => Err(format!("{}: another process is listening there", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// A directory that only we can enter; goes when dropped.
struct Staging(PathBuf);

impl Staging {
    fn make(beside: &Path) -> io::Result<Self> {
        let path = beside.join(format!(".bursar-{}", std::process::id()));
        // Left by a process of the same number that was killed.
        if std::fs::symlink_metadata(&path).is_ok() {
            let _absent = std::fs::remove_file(path.join("s"));
            std::fs::remove_dir(&path)?;
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _moved_away = std::fs::remove_file(self.0.join("s"));
        let _best_effort = std::fs::remove_dir(&self.0);
    }
}

impl Listener for Listening {
    type Guest = Local;

    async fn next(&self) -> io::Result<Local> {
        let accept = |listener: &StdListener| listener.accept();
        let (stream, _unnamed) = self.listener.async_io(Interest::READABLE, accept).await?;
        let uid = getsockopt(&stream, PeerCredentials)?.uid();
        Ok(Local { stream, uid, look: self.look.clone() })
    }

    /// The file goes, so that nobody else comes; who is in the queue already would find the door slammed. An inherited
    /// socket stays, with its queue, for the process that inherits it next.
    fn retire(&mut self) -> bool {
        self.bound.take().is_some()
    }
}

/// A local process that has connected.
pub struct Local {
    stream: StdStream,
    uid: u32,
    look: Look,
}

impl Guest for Local {
    type Stream = tokio::net::UnixStream;

    fn uid(&self) -> Option<u32> {
        Some(self.uid)
    }

    fn leave(self) -> io::Result<Self::Stream> {
        self.stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(self.stream)
    }

    fn enter(self) -> io::Result<(Self::Stream, Peer)> {
        let look = self.look.clone();
        let stream = self.leave()?;
        let caller = Caller::of(&stream, &look)?;
        Ok((stream, Peer::Local(caller)))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Only our own: another process may have taken the place.
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode);
        if is_ours {
            let _best_effort = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &Path) -> Config {
        Config { path: directory.join("run/b.sock"), mode: 0o660, gid: None }
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let listening = bind(&config).unwrap();
        let mode = std::fs::metadata(&config.path).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o660);
        let inside: Vec<_> = std::fs::read_dir(config.path.parent().unwrap()).unwrap().flatten().collect();
        assert_eq!(inside.len(), 2, "socket and lock, no staging directory");
        drop(listening);
        assert!(!config.path.exists());
    }

    #[tokio::test]
    async fn the_longest_path_that_clients_can_connect_to_can_be_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s".repeat(LONGEST_PATH - directory.path().as_os_str().len() - 1));
        let listening = bind(&Config { path: path.clone(), mode: 0o600, gid: None }).unwrap();
        assert!(StdStream::connect(&path).is_ok());
        drop(listening);
    }

    #[tokio::test]
    async fn a_live_socket_is_not_replaced_and_a_dead_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let first = bind(&config).unwrap();
        assert!(bind(&config).is_err_and(|error| error.contains("another process is listening")));
        drop(first);
        drop(StdListener::bind(&config.path).unwrap());
        assert!(config.path.exists(), "left behind, as by a killed process");
        assert!(bind(&config).is_ok());
        let _alive = StdListener::bind(&config.path).unwrap();
        assert!(bind(&config).is_err(), "alive, but without our lock");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        std::fs::create_dir(config.path.parent().unwrap()).unwrap();
        std::fs::write(&config.path, "precious").unwrap();
        assert!(bind(&config).is_err_and(|error| error.contains("not a socket")));
        assert_eq!(std::fs::read(&config.path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_directory_that_others_can_write_in_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let parent = config.path.parent().unwrap();
        std::fs::create_dir(parent).unwrap();
        std::fs::set_permissions(parent, Permissions::from_mode(0o777)).unwrap();
        assert!(bind(&config).is_err_and(|error| error.contains("others can write")));
    }
}
