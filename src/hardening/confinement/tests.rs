use std::io::ErrorKind::PermissionDenied;

use super::*;

/// In a thread of its own, for a confined one stays so.
fn confined<T: Send>(read: &Path, change: &Path, then: impl FnOnce(&Reach) -> T + Send) -> Option<T> {
    let (read, change) = (read.join("a"), change.join("a"));
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let reach = confine([read.as_path()], [change.as_path()]);
            if reach.is_none() {
                eprintln!("skipped: this kernel has no Landlock");
            }
            reach.map(|reach| then(&reach))
        });
        inside.join().unwrap()
    })
}

#[test]
fn what_is_named_can_be_used_and_nothing_else() {
    let [read, change, other] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    for directory in [&read, &change, &other] {
        std::fs::write(directory.path().join("secret"), "s").unwrap();
    }
    let denied = |error: std::io::Error| assert_eq!(error.kind(), PermissionDenied, "{error}");
    confined(read.path(), change.path(), |_| {
        assert!(std::fs::read(read.path().join("secret")).is_ok());
        denied(std::fs::write(read.path().join("secret"), "").unwrap_err());
        denied(std::fs::remove_file(read.path().join("secret")).unwrap_err());
        std::fs::create_dir(change.path().join("staging")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(change.path().join("staging/s")).unwrap();
        std::fs::rename(change.path().join("staging/s"), change.path().join("s")).unwrap();
        std::fs::remove_dir(change.path().join("staging")).unwrap();
        std::fs::write(change.path().join("secret"), "t").unwrap();
        std::fs::remove_file(change.path().join("secret")).unwrap();
        denied(std::fs::read(other.path().join("secret")).unwrap_err());
        denied(std::fs::read_dir(other.path()).unwrap_err());
        denied(std::fs::write(other.path().join("new"), "").unwrap_err());
        denied(std::os::unix::net::UnixListener::bind(other.path().join("s")).unwrap_err());
    });
    assert!(std::fs::read(other.path().join("secret")).is_ok(), "only that thread");
}

#[test]
fn no_program_can_be_started() {
    let directory = tempfile::tempdir().unwrap();
    confined(directory.path(), directory.path(), |_| {
        let error = std::process::Command::new("/bin/sh").arg("-c").arg("exit").status().unwrap_err();
        assert_eq!(error.kind(), PermissionDenied);
        let own = directory.path().join("own");
        std::fs::write(&own, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(std::process::Command::new(&own).status().unwrap_err().kind(), PermissionDenied);
    });
}

#[test]
fn names_certificates_and_callers_can_still_be_looked_up_and_the_service_manager_told() {
    let [directory, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let notify = elsewhere.path().join("notify");
    let _manager = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    confined(directory.path(), directory.path(), |_| {
        assert_eq!(nix::unistd::User::from_name("root").unwrap().unwrap().uid.as_raw(), 0);
        assert!(std::net::ToSocketAddrs::to_socket_addrs("localhost:1").is_ok());
        assert!(std::fs::read_to_string("/proc/1/status").unwrap().contains("Groups:"));
        assert!(std::fs::read_to_string("/proc/1/cgroup").is_ok());
        assert!(std::fs::read("/etc/nsswitch.conf").is_ok() || !Path::new("/etc/nsswitch.conf").exists());
        assert!(std::fs::File::open("/dev/urandom").is_ok());
        assert!(
            !rustls_native_certs::load_native_certs().certs.is_empty()
                || !Path::new("/etc/ssl/certs").exists()
        );
        std::os::unix::net::UnixDatagram::unbound().unwrap().send_to(b"READY=1", &notify).unwrap();
    });
}

#[test]
fn a_file_outside_is_known_by_where_it_really_is() {
    let [inside, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for directory in [&inside, &other] {
        std::fs::write(directory.path().join("secret"), "s").unwrap();
    }
    std::os::unix::fs::symlink(other.path().join("secret"), inside.path().join("link")).unwrap();
    confined(inside.path(), inside.path(), |reach| {
        assert_eq!(reach.beyond(&inside.path().join("secret")), None);
        assert_eq!(reach.beyond(&inside.path().join("missing")), None, "that is said by whoever opens it");
        std::fs::create_dir(inside.path().join("new")).unwrap();
        std::fs::write(inside.path().join("new/secret"), "s").unwrap();
        assert_eq!(reach.beyond(&inside.path().join("new/secret")), None);
        for file in [other.path().join("secret"), inside.path().join("link")] {
            assert!(reach.beyond(&file).unwrap().contains("restart"), "{}", file.display());
            assert_eq!(std::fs::read(&file).unwrap_err().kind(), PermissionDenied);
        }
    });
}

#[test]
fn a_directory_that_is_another_one_under_the_same_name_is_outside() {
    let place = tempfile::tempdir().unwrap();
    let (directory, file) = (place.path().join("d"), place.path().join("d/secret"));
    std::fs::create_dir(&directory).unwrap();
    let (replace, replaced) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (confined_now, is_confined) = std::sync::mpsc::channel();
        let inside = scope.spawn({
            let file = file.clone();
            move || {
                let reach = confine([file.as_path()], []);
                confined_now.send(()).unwrap();
                replaced.recv().unwrap();
                reach.is_none_or(|reach| reach.beyond(&file).is_some() && std::fs::read(&file).is_err())
            }
        });
        is_confined.recv().unwrap();
        std::fs::rename(&directory, place.path().join("old")).unwrap();
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(&file, "s").unwrap();
        replace.send(()).unwrap();
        assert!(inside.join().unwrap());
    });
}
