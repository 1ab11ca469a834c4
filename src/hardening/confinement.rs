//! Landlock: of the file system only what the configuration names, and what name look-ups and TLS need. The kernel keeps
//! it, for this thread and those that it starts; nothing takes it back.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

/// All that this code knows of; an older kernel keeps what it can.
const KNOWN: ABI = ABI::V6;

/// What libraries read that are loaded on demand, and where users, groups, hosts and root certificates are found. Whole
/// directories: what is in them is replaced by renaming.
const SYSTEM: [&str; 22] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/opt/etc/ssl",
    "/var/lib/ca-certificates",
    "/var/lib/sss",
    "/var/lib/extrausers",
    "/var/lib/misc",
    "/run/systemd/resolve",
    "/run/systemd/userdb",
    "/run/systemd/machines",
    "/run/userdb",
    "/run/host/userdb",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/connman",
    "/run/netconfig",
    // Callers' units and groups, and our own metrics; the ids change, so it is all of it.
    "/proc",
    "/sys/devices/system/cpu",
];

/// Links that lead out of `/etc`.
const LINKS: [&str; 5] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group"];

/// The last one is how an operator tries out what becomes of the audit log on a full disk.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/urandom", "/dev/random", "/dev/full"];

/// The directories beneath which files can be opened, as the kernel knows them: by what they are and not by their names.
#[derive(Debug)]
pub struct Reach(HashSet<(u64, u64)>);

impl Reach {
    /// What to say of a file that can't be opened however its mode is, because it lies outside.
    #[must_use]
    pub fn beyond(&self, file: &Path) -> Option<String> {
        let outside = places(file).into_iter().any(|directory| !self.holds(&directory));
        outside.then(|| {
            format!(
                "{}: the process opens nothing outside of the directories that it was started with: a restart takes \
                 this one in",
                file.display()
            )
        })
    }

    fn holds(&self, directory: &Path) -> bool {
        directory.ancestors().filter_map(identity).any(|id| self.0.contains(&id))
    }
}

/// Confines this thread, and the threads that it starts, to the directories of the files in `read` and, for making and
/// removing files, of those in `change`. The log says what the kernel keeps of it; `None` if nothing.
pub fn confine<'a>(
    read: impl IntoIterator<Item = &'a Path>,
    change: impl IntoIterator<Item = &'a Path>,
) -> Option<Reach> {
    let mut read: Vec<PathBuf> = read.into_iter().flat_map(places).collect();
    read.extend(system());
    let change: Vec<PathBuf> = change.into_iter().flat_map(places).collect();
    let reach = Reach(read.iter().chain(&change).filter_map(|directory| identity(directory)).collect());
    match restrict(&read, &change) {
        Ok(RulesetStatus::FullyEnforced) if !has_other_threads() => {
            tracing::info!(landlock = "full", "confined to the paths that the configuration names");
            Some(reach)
        }
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => {
            tracing::info!(
                landlock = "partial",
                "confined to the paths that the configuration names, as far as this kernel can"
            );
            Some(reach)
        }
        Ok(RulesetStatus::NotEnforced) => {
            tracing::warn!(
                landlock = "none",
                "not confined to any paths: this kernel has no Landlock, or too old a one"
            );
            None
        }
        Err(error) => {
            tracing::warn!(landlock = "none", %error, "not confined to any paths");
            None
        }
    }
}

fn restrict(read: &[PathBuf], change: &[PathBuf]) -> Result<RulesetStatus, RulesetError> {
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let changing = AccessFs::from_all(KNOWN)
        & !(AccessFs::Execute
            | AccessFs::MakeBlock
            | AccessFs::MakeChar
            | AccessFs::MakeFifo
            | AccessFs::MakeSym
            | AccessFs::IoctlDev);
    // Sockets are moved into place from a directory of their own, which the first Landlock forbids: rather none than that.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(scopes())?
        .create()?;
    let ruleset = allow(ruleset, read.iter().map(PathBuf::as_path), reading)?;
    let ruleset = allow(ruleset, change.iter().map(PathBuf::as_path), changing)?;
    let ruleset = allow(ruleset, DEVICES.iter().map(Path::new), AccessFs::ReadFile | AccessFs::WriteFile)?;
    // A panic names lines by what the program's own file says.
    let program = std::env::current_exe().ok();
    let ruleset = allow(ruleset, program.as_deref(), AccessFs::ReadFile.into())?;
    Ok(ruleset.restrict_self()?.ruleset)
}

fn allow<'a>(
    mut ruleset: landlock::RulesetCreated,
    paths: impl IntoIterator<Item = &'a Path>,
    access: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    for path in paths {
        // What is not there can't be allowed, and need not.
        if let Ok(place) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(place, access))?;
        }
    }
    Ok(ruleset)
}

/// No signals to others, and no abstract sockets of theirs, unless that is where the service manager listens.
fn scopes() -> BitFlags<Scope> {
    #[expect(clippy::disallowed_methods, reason = "systemd says this way where it listens")]
    let notify = std::env::var_os("NOTIFY_SOCKET");
    let is_abstract = notify.is_some_and(|path| path.as_encoded_bytes().starts_with(b"@"));
    if is_abstract { Scope::Signal.into() } else { Scope::from_all(KNOWN) }
}

/// What is not ours and still needed.
fn system() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    directories.extend(LINKS.iter().flat_map(|link| places(Path::new(link))));
    #[expect(
        clippy::disallowed_methods,
        reason = "these variables of systemd and OpenSSL name paths that are read"
    )]
    let variables = ["CREDENTIALS_DIRECTORY", "SSL_CERT_DIR", "SSL_CERT_FILE"].map(std::env::var_os);
    let [credentials, certificates, certificate] = variables;
    directories.extend(credentials.map(PathBuf::from));
    directories.extend(certificates.iter().flat_map(|list| std::env::split_paths(list)));
    directories.extend(certificate.iter().flat_map(|file| places(Path::new(file))));
    directories
}

/// Where a file lies: by its name, and by where links lead.
fn places(file: &Path) -> Vec<PathBuf> {
    let named = std::path::absolute(file).ok();
    let of_name = named.as_deref().and_then(Path::parent).and_then(|parent| parent.canonicalize().ok());
    let of_file = file.canonicalize().ok().and_then(|file| file.parent().map(Path::to_owned));
    of_name.into_iter().chain(of_file).collect()
}

fn identity(directory: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(directory).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Threads that are there already would not be confined.
fn has_other_threads() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count) > 1
}

#[cfg(test)]
mod tests;
