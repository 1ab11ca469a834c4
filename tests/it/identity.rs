//! Who asks is what the kernel says.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::support::sidecar::PROGRAM;
use crate::support::{ALICE, World};

/// A uid that nobody has; the kernel takes any number.
const STRANGER: u32 = 54_321;

#[tokio::test]
async fn another_uid_is_denied_for_existing_and_missing_users_alike() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let world = World::start().await;
    // The way to the socket must be open to strangers, so that the rule is what keeps them out.
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    world.configure("[admin]", "mode = \"0666\"\n[admin]");
    open(world.path(), 0o755);
    let program = world.path().join("bursar");
    std::fs::copy(PROGRAM, &program).unwrap();
    open(&program, 0o755);
    let sidecar = world.connected().await;
    let operations = sidecar.counter("bursar_store_operations_total", &[]).await;
    for user in [ALICE, "nobody@example.com"] {
        let output = Command::new(&program)
            .args(["token", "--service", "snowflake", "--user", user, "--socket"])
            .arg(sidecar.socket())
            .uid(STRANGER)
            .gid(STRANGER)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(77), "{said}");
        assert!(said.contains("access_denied") && !said.contains(user), "{said}");
        assert!(output.stdout.is_empty());
        let admin = Command::new(&program)
            .args(["grant", "list", "--admin-socket"])
            .arg(sidecar.admin_socket())
            .uid(STRANGER)
            .gid(STRANGER)
            .output()
            .unwrap();
        assert_eq!(admin.status.code(), Some(69), "the admin socket is its owner's alone");
    }
    assert_eq!(
        sidecar.counter("bursar_store_operations_total", &[]).await.to_bits(),
        operations.to_bits(),
        "neither cache nor store was asked"
    );
    world.finish(sidecar).await;
}

#[tokio::test]
async fn sockets_have_their_mode_and_owner_whenever_they_can_be_seen() {
    let world = World::start().await;
    let (socket, admin) = (world.path().join("bursar.sock"), world.path().join("admin.sock"));
    let watch = |path: std::path::PathBuf, mode: u32| {
        std::thread::spawn(move || {
            let started = std::time::Instant::now();
            let mut seen = 0;
            // Looks without a pause from before the sockets exist.
            while seen < 200 && started.elapsed().as_secs() < 20 {
                if let Ok(metadata) = std::fs::symlink_metadata(&path) {
                    assert_eq!(metadata.mode() & 0o7777, mode, "{}", path.display());
                    assert_eq!(metadata.uid(), nix::unistd::geteuid().as_raw());
                    seen += 1;
                }
            }
            seen
        })
    };
    let watches = [watch(socket, 0o660), watch(admin, 0o600)];
    let sidecar = world.sidecar().await;
    for watch in watches {
        assert_eq!(watch.join().unwrap(), 200);
    }
    world.finish(sidecar).await;
}
