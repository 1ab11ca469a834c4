//! Who asks, by the kernel's word: real processes of other users, in groups and units, that die, exec and hand connections
//! on. All of this takes root; without it the tests say so and pass.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};

use crate::import::text;
use crate::support::sidecar::{PROGRAM, Sidecar};
use crate::support::{ALICE, BOB, World};

/// Ids that nobody has.
const ANALYST: &str = "54001";
const STRANGER: &str = "54002";
const GROUP: &str = "54100";

/// The system's: another may lie where other users can't look.
const PYTHON: &str = "/usr/bin/python3";

/// Connects as argv says and asks on that connection, in one of several ways.
const CLIENT: &str = r#"
import array, os, socket, subprocess, sys, time
path, query, way, *rest = sys.argv[1:]

def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return s

def ask(s):
    s.sendall(b"GET /v1/token?" + query.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while chunk := s.recv(65536):
        answer += chunk
    return answer.split(b" ", 2)[1].decode()

def become(uid, groups=()):
    os.setgroups(groups)
    os.setgid(uid)
    os.setuid(uid)

def hand_over(uid, then):
    """Another process connects as uid and hands the connection to us."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        become(uid)
        s = connect()
        theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
        os._exit(0)
    _, ancillary, _, _ = ours.recvmsg(1, 1024)
    os.waitpid(child, 0)
    then(child)
    return socket.socket(fileno=array.array("i", bytes(ancillary[0][2]))[0])

def nothing(_):
    pass

if way == "plain":
    print(ask(connect()))
elif way == "exec":
    # Connects as itself, then becomes another program of another user, which finds the connection open.
    s = connect()
    os.set_inheritable(s.fileno(), True)
    become(int(rest[0]))
    os.execv(sys.executable, [sys.executable, __file__, path, query, "inherited", str(s.fileno())])
elif way == "inherited":
    print(ask(socket.socket(fileno=int(rest[0]))))
elif way == "handed":
    s = hand_over(int(rest[0]), nothing)
    become(int(rest[1]))
    print(ask(s))
elif way == "reused":
    # The one who connected is gone, and its number is another's, who is in a group that may.
    def reuse(pid):
        for _ in range(2000):
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(pid - 1))
            child = os.fork()
            if child == 0:
                if os.getpid() == pid:
                    become(int(rest[0]), [int(rest[1])])
                    print("reused", flush=True)
                    time.sleep(60)
                os._exit(0)
            if child == pid:
                global impostor
                impostor = child
                return
            os.waitpid(child, 0)
        sys.exit("the number could not be had again")
    s = hand_over(int(rest[0]), reuse)
    sys.stdout.write("stopped\n")
    sys.stdout.flush()
    sys.stdin.readline()
    print(ask(s))
    os.kill(impostor, 9)
"#;

/// What it takes: to be root, and the programs that become somebody else.
fn can(what: &str) -> bool {
    let able = nix::unistd::geteuid().is_root()
        && std::path::Path::new(PYTHON).exists()
        && Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success());
    if !able {
        eprintln!("skipped: {what}: it takes root, {PYTHON} and setpriv");
    }
    able
}

/// A world into which others can look, with these rules.
async fn world(rules: &str) -> World {
    let world = World::start().await;
    let uid = nix::unistd::geteuid();
    world.configure(
        &format!(
            "[[callers]]\nuid      = {uid}\nservices = [\"*\"]\nusers    = [\"*\"]\nrun_pass = \"none\"\n"
        ),
        rules,
    );
    world.configure("[socket]\n", "[socket]\nmode = \"0666\"\n");
    std::fs::set_permissions(world.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(world.path().join("client.py"), CLIENT).unwrap();
    std::fs::copy(PROGRAM, world.path().join("bursar")).unwrap();
    world
}

fn rule(whom: &str, users: &str) -> String {
    format!("[[callers]]\n{whom}\nservices = [\"snowflake\"]\nusers = [\"{users}\"]\nrun_pass = \"none\"\n")
}

struct Client(Command);

impl Client {
    /// With these ids, by setpriv's options.
    fn of(world: &World, ids: &[&str], query: &str, way: &[&str]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(ids).arg(PYTHON).arg(world.path().join("client.py"));
        command.arg(world.path().join("bursar.sock")).arg(query).args(way);
        Self(command)
    }

    async fn run(mut self) -> String {
        let output: Output = tokio::task::spawn_blocking(move || self.0.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }
}

fn of(user: &str) -> String {
    format!("service=snowflake&user={user}")
}

fn only(id: &str) -> Vec<String> {
    vec![format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".into()]
}

async fn plain(world: &World, ids: &[String], query: &str) -> String {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    Client::of(world, &ids, query, &["plain"]).run().await
}

#[tokio::test]
async fn two_users_get_what_their_own_rules_allow_and_learn_nothing_else() {
    if !can("two users") {
        return;
    }
    let rules = rule(&format!("uid = {ANALYST}"), ALICE) + &rule(&format!("uid = {STRANGER}"), BOB);
    let world = world(&rules).await;
    let sidecar = world.connected().await;
    let (analyst, stranger) = (only(ANALYST), only(STRANGER));
    assert_eq!(plain(&world, &analyst, &of(ALICE)).await, "200");
    assert_eq!(plain(&world, &stranger, &of(BOB)).await, "409", "may, and has not connected");
    let counted = async || {
        let asked = async |operation: &str| {
            let label = format!("operation=\"{operation}\"");
            sidecar.counter("bursar_store_operations_total", &[&label]).await
        };
        let store = asked("grant").await + asked("access_token").await + asked("begin").await;
        let tokens = sidecar.counter("bursar_token_request_duration_seconds_count", &[]).await;
        (store.to_bits(), tokens.to_bits())
    };
    let before = counted().await;
    let mut answers = Vec::new();
    // A user who has a grant, one who has none, one who does not exist, a service that does not exist.
    for query in [of(ALICE), of("carol@example.com"), of("nobody@nowhere"), "service=nosuch&user=x".into()] {
        answers.push(body(&world, STRANGER, &query).await);
    }
    for (ids, query) in [(&analyst, of(BOB)), (&only("54003"), of(ALICE)), (&only("65534"), of(ALICE))] {
        assert_eq!(plain(&world, ids, &query).await, "403", "{ids:?} {query}");
    }
    assert_eq!(counted().await, before, "neither store nor cache was asked");
    assert!(answers[0].contains("access_denied"), "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    world.finish(sidecar).await;
}

/// What `bursar token` says to this user, without the request's name.
async fn body(world: &World, id: &str, query: &str) -> String {
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap().to_owned()
    };
    let mut command = Command::new("setpriv");
    command
        .args(only(id))
        .arg(world.path().join("bursar"))
        .args(["token", "--service", &parameter("service"), "--user", &parameter("user"), "--socket"])
        .arg(world.path().join("bursar.sock"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = text(&output.stderr);
    let kept = said.lines().filter(|line| !line.contains("request_id"));
    format!("{:?} {}", output.status.code(), kept.collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn a_rule_for_a_group_is_for_all_who_are_in_it() {
    if !can("groups") {
        return;
    }
    let world = world(&rule(&format!("gid = {GROUP}"), ALICE)).await;
    let sidecar = world.connected().await;
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let user = format!("--reuid={ANALYST}");
    let primary = ids(&[&user, &format!("--regid={GROUP}"), "--clear-groups"]);
    let among = ids(&[&user, &format!("--regid={ANALYST}"), &format!("--groups=4,{GROUP},24")]);
    let outside = ids(&[&user, &format!("--regid={ANALYST}"), "--groups=4,24"]);
    assert_eq!(plain(&world, &primary, &of(ALICE)).await, "200");
    assert_eq!(plain(&world, &among, &of(ALICE)).await, "200");
    assert_eq!(plain(&world, &outside, &of(ALICE)).await, "403");
    world.finish(sidecar).await;
}

/// Where units are groups of processes: the hierarchy that systemd would use.
fn unit_directory(unit: &str) -> Option<PathBuf> {
    let directory = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"]
        .iter()
        .map(PathBuf::from)
        .find(|root| root.join("cgroup.procs").exists())?;
    let directory = directory.join("system.slice").join(unit);
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory)
}

#[tokio::test]
async fn a_rule_for_a_unit_is_for_what_runs_in_it() {
    if !can("units") {
        return;
    }
    let unit = format!("bursar-test-{}.service", std::process::id());
    let Some(directory) = unit_directory(&unit) else {
        eprintln!("skipped: units: no control group can be made here");
        return;
    };
    let world = world(&rule(&format!("uid = {ANALYST}\nsystemd_unit = \"{unit}\""), ALICE)).await;
    let sidecar = world.connected().await;
    let inside = async |user: &str| {
        let client =
            Client::of(&world, &[&format!("--reuid={user}"), "--clear-groups"], &of(ALICE), &["plain"]);
        let mut command = Command::new("bash");
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", directory.display());
        command.args(["-c", &enter, "enter", "setpriv"]).args(client.0.get_args());
        Client(command).run().await
    };
    assert_eq!(inside(ANALYST).await, "200");
    assert_eq!(inside(STRANGER).await, "403", "all that a rule names must hold");
    assert_eq!(plain(&world, &only(ANALYST), &of(ALICE)).await, "403", "the same user outside");
    let _goes = std::fs::remove_dir(&directory);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn who_has_connected_stays_who_it_was_whoever_asks_on_the_connection() {
    if !can("handed connections") {
        return;
    }
    let world = world(&rule(&format!("uid = {ANALYST}"), ALICE)).await;
    let sidecar = world.connected().await;
    let way = async |ids: &[&str], way: &[&str]| Client::of(&world, ids, &of(ALICE), way).run().await;
    // As root: connects, then execs as somebody who may. The connection is still root's.
    assert_eq!(way(&["--reuid=0"], &["exec", ANALYST]).await, "403");
    assert_eq!(way(&["--reuid=0"], &["handed", STRANGER, ANALYST]).await, "403", "handed to one who may");
    // Admitted in docs/threat-model.md: whoever is given a connection speaks as the one who made it.
    assert_eq!(way(&["--reuid=0"], &["handed", ANALYST, STRANGER]).await, "200");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_number_that_is_used_again_brings_no_groups_along() {
    if !can("numbers used again") || std::fs::write("/proc/sys/kernel/ns_last_pid", "300").is_err() {
        return;
    }
    let world = world(&rule(&format!("gid = {GROUP}"), ALICE)).await;
    let sidecar = world.connected().await;
    // Nobody is accepted until the number has changed hands.
    sidecar.signal(SIGSTOP);
    let reused = reuse(&world, &sidecar).await;
    assert_eq!(reused, "403");
    world.finish(sidecar).await;
}

async fn reuse(world: &World, sidecar: &Sidecar) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut client = Client::of(world, &["--reuid=0"], &of(ALICE), &["reused", ANALYST, GROUP]).0;
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(lines.next().expect("the number can be had again").unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["reused", "stopped"]);
    sidecar.signal(SIGCONT);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let answer = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap()).await.unwrap();
    child.wait().unwrap();
    answer
}
