use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

/// A directory that everybody can enter, and a file in it.
fn place(mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    chmod(directory.path(), 0o755);
    let path = directory.path().join("secret");
    std::fs::write(&path, "s").unwrap();
    chmod(&path, mode);
    (directory, path)
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn refused(path: &Path, holds: Holds) -> String {
    let error = read(path, holds).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    error.to_string()
}

#[test]
fn a_secret_is_its_owners_and_groups_and_nobody_elses() {
    for mode in [0o400, 0o440, 0o600, 0o640, 0o660] {
        let (_directory, path) = place(mode);
        assert_eq!(*read(&path, Holds::Secret).unwrap(), "s", "{mode:o}");
    }
    for mode in [0o444, 0o644, 0o604] {
        let (_directory, path) = place(mode);
        let said = refused(&path, Holds::Secret);
        assert!(said.contains("everybody can read it") && said.contains("chmod o= /"), "{said}");
        assert!(read(&path, Holds::Decisions).is_ok(), "who may have what is no secret");
    }
    for holds in [Holds::Secret, Holds::Decisions] {
        let (_directory, path) = place(0o602);
        assert!(refused(&path, holds).contains("everybody can change it (mode 0602)"));
    }
}

#[test]
fn a_directory_that_others_can_not_enter_is_enough() {
    let (directory, path) = place(0o666);
    chmod(directory.path(), 0o750);
    assert!(read(&path, Holds::Secret).is_ok());
}

#[test]
fn a_file_that_others_can_replace_is_refused_unless_the_sticky_bit_keeps_them_from_it() {
    let (directory, path) = place(0o600);
    chmod(directory.path(), 0o777);
    assert!(refused(&path, Holds::Secret).contains("everybody can write in"));
    assert!(refused(&path, Holds::Decisions).contains("chmod o-w"));
    chmod(directory.path(), 0o1777);
    assert!(read(&path, Holds::Secret).is_ok());
}

#[test]
fn a_link_is_as_good_as_what_it_leads_to_and_where_it_lies() {
    let (_there, path) = place(0o600);
    let (here, _) = place(0o600);
    let link = here.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(read(&link, Holds::Secret).is_ok());
    chmod(&path, 0o644);
    assert!(refused(&link, Holds::Secret).contains("everybody can read it"));
    chmod(&path, 0o600);
    chmod(here.path(), 0o777);
    assert!(refused(&link, Holds::Secret).contains("everybody can write in"));
}

#[test]
fn another_owner_is_doubtful_and_our_own_is_not() {
    let (_directory, path) = place(0o640);
    assert_eq!(doubt(&path, Holds::Secret), None);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        assert!(doubt(&path, Holds::Secret).unwrap().contains("uid 12345 owns it"));
        assert!(read(&path, Holds::Secret).is_ok());
    }
}
