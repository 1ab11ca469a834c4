//! What is on this machine: configuration, secrets, sockets, store, rules, budget.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use bursar::check::Verdict;
use bursar::entropy::SystemEntropy;
use bursar::store::seal::generate_key;

use super::{assert_each_is_found, good, steps, wrong};
use crate::support::World;

fn open_to_all(world: &World, file: &str) {
    for path in [world.path().to_owned(), world.path().join(file)] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test]
async fn a_configuration_that_does_not_read_is_found() {
    assert_each_is_found(vec![
        wrong("a key that nobody knows", "configuration", &["socket.pth", "unknown key", "bursar.toml, line "])
            .edit("[socket]", "[socket]\npth = \"x\""),
        wrong("a path too long", "configuration", &["socket.path", "at most 107 bytes"])
            .edit("bursar.sock", "a-path-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on.sock"),
        wrong("a secret that is missing", "configuration", &["client_secret_file", "No such file"])
            .edit("/client-secret\"", "/client-secret-of-last-year\""),
        wrong("a key that can't be read", "configuration", &["store.key_file", "bursar key generate"])
            .edit("/store.key\"", "/nosuch.key\""),
        wrong("a leeway too short", "configuration", &["request_timeout", "lengthen the leeway (in Okta and here)"])
            .edit("refresh_token_leeway = \"30s\"", "refresh_token_leeway = \"15s\""),
        wrong("a user who is not there", "configuration", &["callers[1].user", "there is no user"])
            .edit("[[callers]]\nuid      = 0", "[[callers]]\nuser = \"nobody-has-this-name\""),
    ])
    .await;
}

#[tokio::test]
async fn a_secret_that_everybody_can_read_and_one_that_is_empty_are_found() {
    let world = good().await;
    open_to_all(&world, "client-secret");
    wrong("world-readable", "configuration", &["client_secret_file", "everybody can read it", "chmod o= "])
        .assert_found(&steps(&world, None).await);
    let world = good().await;
    std::fs::write(world.path().join("client-secret"), "\n").unwrap();
    wrong("empty", "configuration", &["client_secret_file", "is empty"])
        .assert_found(&steps(&world, None).await);
}

#[tokio::test]
async fn sockets_without_a_place_are_found() {
    let world = good().await;
    std::fs::write(world.path().join("bursar.sock"), "").unwrap();
    wrong("a file in the way", "socket", &["not a socket is there", "move "])
        .assert_found(&steps(&world, None).await);

    let world = good().await;
    world.configure("/bursar.sock", "/client-secret/bursar.sock");
    wrong("no directory", "socket", &["is not a directory", "RuntimeDirectory=bursar"])
        .assert_found(&steps(&world, None).await);

    let world = good().await;
    let directory = world.path().join("shared");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    world.configure("/admin.sock", "/shared/admin.sock");
    wrong("a shared directory", "socket", &["admin.path", "others can write in it", "mode 0755"])
        .assert_found(&steps(&world, None).await);
}

/// A store with alice's grants, and no sidecar any more.
async fn used() -> World {
    let world = good().await;
    let sidecar = world.connected().await;
    assert!(sidecar.stop().await.0.success());
    world
}

#[tokio::test]
async fn a_store_whose_rows_the_key_does_not_open_is_found() {
    let world = used().await;
    let fresh = generate_key(&SystemEntropy);
    bursar::dev::write_private(&world.path().join("store.key"), fresh.expose()).unwrap();
    wrong("another key", "store", &["store.key_file", "store.old_key_files"])
        .assert_found(&steps(&world, None).await);
}

#[tokio::test]
async fn a_store_that_is_none_or_somebody_elses_is_found() {
    let world = good().await;
    std::fs::write(
        world.path().join("bursar.db"),
        "no database, but long enough to be taken for one".repeat(40),
    )
    .unwrap();
    wrong("no database", "store", &["bursar.db", "goes out of the way"])
        .assert_found(&steps(&world, None).await);

    let world = used().await;
    if nix::unistd::chown(&world.path().join("bursar.db"), Some(12_345.into()), None).is_err() {
        eprintln!("not root: another user's store is not looked at");
        return;
    }
    wrong("another user's", "store", &["belongs to uid 12345", "chown", "bursar.db-wal"])
        .only(Verdict::Untold)
        .assert_found(&steps(&world, None).await);
}

#[tokio::test]
async fn a_store_that_another_process_has_is_left_alone() {
    let world = good().await;
    let sidecar = world.connected().await;
    world.configure("/admin.sock", "/another-admin.sock");
    wrong("in use", "store", &["in use by process", "that process's configuration"])
        .only(Verdict::Untold)
        .assert_found(&steps(&world, None).await);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn rows_that_wait_for_a_rotation_are_told() {
    let world = good().await;
    let sidecar = world.connected().await;
    assert!(sidecar.stop().await.0.success());
    std::fs::rename(world.path().join("store.key"), world.path().join("old.key")).unwrap();
    let fresh = generate_key(&SystemEntropy);
    bursar::dev::write_private(&world.path().join("store.key"), fresh.expose()).unwrap();
    let old = format!("[store]\nold_key_files = [{:?}]\n", world.path().join("old.key"));
    world.configure("[store]\n", &old);
    let sidecar = world.sidecar().await;
    wrong("an old key", "store", &["older keys", "bursar key rotate"])
        .only(Verdict::Doubtful)
        .assert_found(&steps(&world, None).await);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn rules_that_match_nobody_are_found() {
    let world = used().await;
    world.configure("users    = [\"*\"]", "users    = [\"@example.com\"]");
    wrong("nobody's name", "callers", &["matches none of the users", "such as \"alice@example.com\""])
        .only(Verdict::Doubtful)
        .assert_found(&steps(&world, None).await);
    let us = format!("uid      = {}", nix::unistd::geteuid());
    world.configure(&us, "uid      = 987654");
    wrong("nobody's uid", "callers", &["no account here has uid 987654", "ps -o uid"])
        .only(Verdict::Doubtful)
        .assert_found(&steps(&world, None).await);

    let world = good().await;
    let text = std::fs::read_to_string(world.path().join("bursar.toml")).unwrap();
    let rule = text.split("[[callers]]").nth(1).unwrap().split("\n\n").next().unwrap();
    world.configure(&format!("[[callers]]{rule}"), "");
    wrong("no rule", "callers", &["nobody may have a token", "add [[callers]]"])
        .assert_found(&steps(&world, None).await);
}

#[tokio::test]
async fn a_budget_that_is_too_small_is_found_with_and_without_a_sidecar() {
    let world = good().await;
    world.configure("refresh_token_leeway", "requests_per_minute = 1\nrefresh_token_leeway");
    let sidecar = world.connected().await;
    let small = wrong(
        "too small",
        "budget",
        &["grants: 1 with up to 3 tokens", "raise requests_per_minute above 1", "Rate limits"],
    );
    small.assert_found(&steps(&world, None).await);
    assert!(sidecar.stop().await.0.success());
    small.assert_found(&steps(&world, None).await);
}
