//! The file system of the confined process ends where its configuration does.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use bursar::dev::write_private;

use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, World};

/// Whether this kernel keeps a process to its paths; the log says so in any case.
fn is_confined(sidecar: &Sidecar) -> bool {
    let log = sidecar.read_log();
    assert!(log.contains("landlock="), "{log}");
    let confined = !log.contains("landlock=\"none\"");
    if !confined {
        eprintln!("skipped: this kernel has no Landlock");
    }
    confined
}

async fn reload(sidecar: &Sidecar) -> Reply {
    request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await
}

fn problem(reply: &Reply) -> String {
    assert_eq!(reply.error(), (400, "invalid_request".to_owned()));
    reply.json()["problems"][0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_reload_that_names_a_file_elsewhere_is_told_that_this_takes_a_restart() {
    let world = World::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("client-secret");
    std::fs::copy(world.path().join("client-secret"), &secret).unwrap();
    let sidecar = world.connected().await;
    if is_confined(&sidecar) {
        let named = |path: &std::path::Path| format!("\"{}\"", path.join("client-secret").display());
        world.configure(&named(world.path()), &named(elsewhere.path()));
        let said = problem(&reload(&sidecar).await);
        assert!(said.contains("a restart takes this one in") && !said.contains("denied"), "{said}");
        world.configure(&named(elsewhere.path()), &named(world.path()));
        // By another way to the same place.
        std::fs::rename(world.path().join("client-secret"), world.path().join("old")).unwrap();
        symlink(&secret, world.path().join("client-secret")).unwrap();
        let said = problem(&reload(&sidecar).await);
        assert!(said.contains("a restart takes this one in"), "{said}");
        std::fs::rename(world.path().join("old"), world.path().join("client-secret")).unwrap();
    }
    assert_eq!(reload(&sidecar).await.status, 200, "replaced by renaming");
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn the_kernel_keeps_it_from_a_secret_that_lies_elsewhere() {
    let world = World::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let sidecar = world.connected().await;
    assert!(sidecar.stop().await.0.success());
    let right = world.spoil_secret();
    let sidecar = world.sidecar().await;
    let path = world.path().join("client-secret");
    std::fs::remove_file(&path).unwrap();
    write_private(&elsewhere.path().join("right"), &right).unwrap();
    symlink(elsewhere.path().join("right"), &path).unwrap();
    if is_confined(&sidecar) {
        // After `invalid_client` the secret's file is read again.
        assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 502);
        let log = sidecar.read_log();
        assert!(log.contains("can't be read again") && log.contains("Permission denied"), "{log}");
    }
    assert!(sidecar.stop().await.0.success());
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200, "a restart takes it in");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_secret_that_everybody_can_read_is_refused_at_a_reload_and_at_a_start() {
    let world = World::start().await;
    std::fs::set_permissions(world.path(), Permissions::from_mode(0o755)).unwrap();
    let sidecar = world.connected().await;
    for file in ["client-secret", "store.key"] {
        let path = world.path().join(file);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let said = problem(&reload(&sidecar).await);
        assert!(said.contains("everybody can read it (mode 0644): chmod o= "), "{said}");
        let start = std::process::Command::new(crate::support::sidecar::PROGRAM)
            .args(["serve", "--config"])
            .arg(world.path().join("bursar.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8(start.stderr).unwrap();
        assert_eq!(start.status.code(), Some(64), "{said}");
        assert!(said.contains("everybody can read it") && !said.contains("sentinel"), "{said}");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    }
    let config = world.path().join("bursar.toml");
    std::fs::set_permissions(&config, Permissions::from_mode(0o606)).unwrap();
    assert!(problem(&reload(&sidecar).await).contains("everybody can change it"));
    std::fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(reload(&sidecar).await.status, 200);
    world.finish(sidecar).await;
}

#[test]
fn where_bursar_is_the_first_process_there_are_no_others_and_a_platforms_mode_is_taken_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let text = bursar::store::seal::generate_key(&bursar::entropy::SystemEntropy);
    let key = directory.path().join("store.key");
    std::fs::write(&key, text.expose()).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let config = directory.path().join("bursar.toml");
    let text = format!(
        "[store]\nkey_file = {key:?}\n[authorization_servers.a]\nissuer = \"https://id.example.com\"\nclient_id = \"c\"\n\
         client_authentication = \"none\"\n\
         [services.s]\nauthorization_server = \"a\"\naudience = \"s\"\nscopes = [\"s\"]\n"
    );
    write_private(&config, &text).unwrap();
    let check = |before: &[&str]| {
        let whole = [before, &[crate::support::sidecar::PROGRAM, "config", "check", "--config"]].concat();
        let output = std::process::Command::new(whole[0]).args(&whole[1..]).arg(&config).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = check(&["env"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("everybody can read it"), "{said}");
    let container = ["unshare", "--pid", "--fork", "--mount-proc"];
    if !std::process::Command::new("unshare")
        .args([&container[1..], &["true"]].concat())
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: no pid namespace can be made here");
        return;
    }
    let (code, said) = check(&container);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning: ") && said.contains("taken all the same"), "{said}");
}
