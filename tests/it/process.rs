//! What the real process gives away: to others of its user, to a crash, to the file system, and in its memory.

mod confinement;
mod memory;

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal::SIGABRT;

use crate::support::sidecar::{PROGRAM, Sidecar};
use crate::support::{ALICE, World};

/// A uid that nobody has.
const SOMEBODY: u32 = 12_345;

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can become another user, and read any process");
    }
    root
}

/// What a shell says first, and then it becomes the program.
fn after(prelude: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("{prelude}; exec \"$@\"")).arg("bash").arg(program).args(arguments);
    command.stdin(Stdio::null());
    command
}

fn serve_after(world: &World, prelude: &str) -> Command {
    let config = world.path().join("bursar.toml");
    after(prelude, PROGRAM, &["serve", "--config", config.to_str().unwrap()])
}

/// A line of `/proc/PID/status` or `/proc/PID/limits`, without its name.
fn said(sidecar: &Sidecar, file: &str, name: &str) -> String {
    let text = String::from_utf8(sidecar.proc(file)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn whoever_starts_it_it_gains_no_rights_makes_private_files_and_leaves_no_core() {
    let world = World::start().await;
    let sidecar = Sidecar::spawn_as(&mut serve_after(&world, "umask 0"), world.path()).ready().await;
    assert_eq!(said(&sidecar, "status", "NoNewPrivs:"), "1");
    assert_eq!(said(&sidecar, "status", "Umask:"), "0077");
    assert_eq!(said(&sidecar, "limits", "Max core file size"), "0 0 bytes");
    let as_root = sidecar.read_log().contains("runs as root");
    assert_eq!(as_root, nix::unistd::geteuid().is_root(), "{}", sidecar.read_log());
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_crash_leaves_no_core_where_other_programs_leave_one() {
    let world = World::start().await;
    let unlimited = format!("cd {}; ulimit -c unlimited 2>/dev/null", world.path().display());
    let mut other = after(&unlimited, "sleep", &["600"]).spawn().unwrap();
    while !std::fs::read_to_string(format!("/proc/{}/comm", other.id())).unwrap().contains("sleep") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(other.id().try_into().unwrap()), SIGABRT).unwrap();
    if !other.wait().unwrap().core_dumped() {
        eprintln!("skipped: no program leaves a core here");
    }
    let sidecar = Sidecar::spawn_as(&mut serve_after(&world, &unlimited), world.path()).ready().await;
    sidecar.signal(SIGABRT);
    let (status, _) = sidecar.ended().await;
    assert_eq!(status.signal(), Some(SIGABRT as i32));
    assert!(!status.core_dumped());
}

/// Starts a program as somebody, and gives what it says, if it succeeds.
fn as_somebody(program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new(program).args(arguments).uid(SOMEBODY).gid(SOMEBODY).output().unwrap();
    output.status.success().then_some(output.stdout)
}

/// A process of the same user that has the same secret in its environment.
struct Neighbour(Child);

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn another_process_of_its_user_reads_neither_its_environment_nor_its_memory() {
    if !is_root() {
        return;
    }
    let world = World::start().await;
    let secret_file = world.path().join("client-secret");
    let secret = std::fs::read_to_string(&secret_file).unwrap();
    let from = format!("client_secret_file = \"{}\"", secret_file.display());
    world.configure(&from, "client_secret_env = \"OKTA_SECRET\"");
    let program = world.path().join("bursar");
    std::fs::copy(PROGRAM, &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for path in std::fs::read_dir(world.path()).unwrap().flatten().map(|entry| entry.path()) {
        std::os::unix::fs::chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
    std::os::unix::fs::chown(world.path(), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let mut serve = Command::new(&program);
    serve.args(["serve", "--config"]).arg(world.path().join("bursar.toml")).env("OKTA_SECRET", &secret);
    let sidecar = Sidecar::spawn_as(serve.uid(SOMEBODY).gid(SOMEBODY), world.path()).ready().await;
    let mut sleep = Command::new("sleep");
    let neighbour =
        Neighbour(sleep.arg("600").env("OKTA_SECRET", &secret).uid(SOMEBODY).gid(SOMEBODY).spawn().unwrap());

    let environment = |pid: u32| as_somebody("cat", &[&format!("/proc/{pid}/environ")]);
    // Opening it takes the right to ptrace.
    let memory = |pid: u32| as_somebody("bash", &["-c", &format!(": <>/proc/{pid}/mem")]);
    let neighbours = environment(neighbour.0.id()).expect("an ordinary process can be read");
    assert!(neighbours.windows(secret.len()).any(|window| window == secret.as_bytes()));
    if memory(neighbour.0.id()).is_none() {
        eprintln!("skipped: here nobody reads another process' memory anyway (yama)");
    }
    assert_eq!(environment(sidecar.pid()), None);
    assert_eq!(memory(sidecar.pid()), None);
    let owner = std::fs::metadata(format!("/proc/{}/mem", sidecar.pid())).unwrap().uid();
    assert_eq!(owner, 0, "what the kernel does with a process that is not dumpable");
    assert!(!sidecar.read_log().contains("runs as root"));
    world.connect(&sidecar, ALICE).await;
    let metrics = sidecar.metrics().await;
    for name in ["process_open_fds ", "process_resident_memory_bytes ", "process_cpu_seconds_total "] {
        assert!(metrics.contains(name), "it reads about itself what it has to: {metrics}");
    }
    assert!(sidecar.stop().await.0.success());
}

#[tokio::test]
async fn whatever_the_umask_sockets_have_their_modes_and_files_are_private() {
    for umask in ["umask 0", "umask 077"] {
        let world = World::start().await;
        for socket in ["bursar", "admin"] {
            let place = world.path().display();
            world.configure(&format!("{place}/{socket}.sock"), &format!("{place}/made/run/{socket}.sock"));
        }
        world.configure("/bursar.db", "/data/bursar.db");
        let before = names(world.path());
        let sidecar = Sidecar::spawn_as(&mut serve_after(&world, umask), world.path()).ready().await;
        let mode = |path: &str| std::fs::metadata(world.path().join(path)).unwrap().mode() & 0o7777;
        for directory in ["made", "made/run"] {
            assert_eq!(mode(directory), 0o755, "{umask}: workers must get through");
        }
        assert_eq!((mode("made/run/bursar.sock"), mode("made/run/admin.sock")), (0o660, 0o600), "{umask}");
        assert_eq!(mode("data"), 0o700, "{umask}");
        for directory in ["data", "made/run"] {
            for entry in std::fs::read_dir(world.path().join(directory)).unwrap().flatten() {
                let metadata = entry.metadata().unwrap();
                if !metadata.file_type().is_socket() {
                    assert_eq!(metadata.mode() & 0o7777, 0o600, "{umask}: {}", entry.path().display());
                }
            }
        }
        let made: Vec<_> = names(world.path()).into_iter().filter(|name| !before.contains(name)).collect();
        assert_eq!(made.len(), 3, "and the log: {made:?}");
        assert!(sidecar.stop().await.0.success());
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}
