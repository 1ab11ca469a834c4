//! The real program beside a development authorization server, and what `/proc` and its metrics tell of it.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::worker::Latencies;
use crate::{ATTACKER, WORKER};

pub(crate) struct Daemon {
    serve: Process,
    _server: Process,
    /// A copy of this program where every uid can start it.
    us: PathBuf,
    metrics: String,
    /// Whether it and the worker go before everybody else on this machine.
    is_first: bool,
    directory: tempfile::TempDir,
}

/// What it holds.
#[derive(Clone, Copy)]
pub(crate) struct Footprint {
    pub(crate) memory_mb: f64,
    /// The most that it ever was.
    pub(crate) peak_mb: f64,
    pub(crate) descriptors: usize,
    pub(crate) connections: f64,
}

impl Footprint {
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            memory_mb: self.memory_mb.max(other.memory_mb),
            peak_mb: self.peak_mb.max(other.peak_mb),
            descriptors: self.descriptors.max(other.descriptors),
            connections: self.connections.max(other.connections),
        }
    }
}

/// One that ends with its owner.
pub(crate) struct Process(Child);

impl Process {
    /// Waits for its end.
    pub(crate) fn end(mut self) {
        assert!(self.0.wait().unwrap().success());
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Daemon {
    pub(crate) fn start(is_first: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (place, ready) = (directory.path().join("dev"), directory.path().join("ready"));
        let us = directory.path().join("hostile");
        std::fs::copy(std::env::current_exe().unwrap(), &us).unwrap();
        let program = env!("CARGO_BIN_EXE_bursar");
        let mut server = Command::new(program);
        server.args(["dev", "--server-only", "--token-lifetime", "24h", "--dir"]).arg(&place);
        server.arg("--ready-file").arg(&ready);
        let server = spawn(server.stdout(Stdio::null()).stderr(Stdio::null()));
        until(|| ready.exists());
        let configuration = place.join("bursar.toml");
        let text = std::fs::read_to_string(&configuration).unwrap();
        let text = text.replace("[admin]", "mode = \"0666\"\n[admin]");
        let rule = |uid, users| {
            format!(
                "[[callers]]\nuid = {uid}\nservices = [\"*\"]\nusers = [\"{users}\"]\nrun_pass = \"none\"\n"
            )
        };
        let rules = rule(WORKER, "*") + &rule(ATTACKER, "*@example.com");
        std::fs::write(&configuration, text + &rules).unwrap();
        for path in [directory.path(), &place, &us] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let log = place.join("log");
        let mut serve = Command::new(program);
        serve.args(["serve", "--config"]).arg(&configuration);
        let serve = spawn(serve.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap()));
        let said = || std::fs::read_to_string(&log).unwrap();
        until(|| said().contains(" ready "));
        let metrics = said().split("metrics=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        for service in ["snowflake", "databricks"] {
            let mut import = Command::new(program);
            import.args(["grant", "import", "--service", service, "--user", "alice@example.com"]);
            import.arg("--admin-socket").arg(place.join("admin.sock"));
            import
                .arg("--refresh-token-file")
                .arg(place.join(format!("{service}-alice@example.com.refresh-token")));
            assert!(import.stdout(Stdio::null()).status().unwrap().success());
        }
        pin(serve.pid(), 0);
        // Whoever is started from here on.
        pin(Pid::from_raw(0), 1);
        Self { serve, _server: server, us, metrics, is_first, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("dev/bursar.sock")
    }

    /// What a worker sees for so long.
    pub(crate) fn work(&self, time: Duration) -> Latencies {
        let mut worker = Command::new(&self.us);
        worker.arg("--worker").arg(self.socket()).arg(time.as_secs_f64().to_string());
        let output = worker.uid(WORKER).gid(WORKER).output().unwrap();
        assert!(output.status.success());
        Latencies::read(&String::from_utf8(output.stdout).unwrap())
    }

    pub(crate) fn attack(&self, time: Duration) -> Process {
        let (program, how) = if self.is_first { ("chrt", ["--other", "0"]) } else { ("nice", ["-n", "19"]) };
        let mut attacker = Command::new(program);
        attacker.args(how);
        attacker.arg(&self.us).arg("--attacker").arg(self.socket()).arg(time.as_secs_f64().to_string());
        spawn(attacker.uid(ATTACKER).gid(ATTACKER))
    }

    /// Time on a processor.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.serve.pid())).unwrap();
        tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
            .map(|text| Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap()))
            .sum()
    }

    pub(crate) fn footprint(&self) -> Footprint {
        let process = PathBuf::from(format!("/proc/{}", self.serve.pid()));
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
        };
        Footprint {
            memory_mb: megabytes("VmRSS"),
            peak_mb: megabytes("VmHWM"),
            descriptors: std::fs::read_dir(process.join("fd")).unwrap().count(),
            connections: self.sum("bursar_connections{listener=\"vending\"}"),
        }
    }

    /// The footprint once everybody has left, or after half a minute.
    pub(crate) fn at_rest(&self, before: &Footprint) -> Footprint {
        for _ in 0..300 {
            let now = self.footprint();
            if now.descriptors <= before.descriptors && now.connections <= before.connections {
                return now;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.footprint()
    }

    fn sum(&self, name: &str) -> f64 {
        let scraped = self.scrape();
        let samples = scraped.lines().filter_map(|line| line.strip_prefix(name));
        samples.map(|value| value.trim().parse::<f64>().unwrap()).sum()
    }

    /// How often which limit was hit.
    pub(crate) fn refused(&self) -> String {
        let scraped = self.scrape();
        let samples =
            scraped.lines().filter_map(|line| line.strip_prefix("bursar_requests_refused_total{reason="));
        samples.map(|sample| sample.replace(['"', '}'], "")).collect::<Vec<_>>().join(", ")
    }

    fn scrape(&self) -> String {
        let mut stream = std::net::TcpStream::connect(&self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

fn spawn(command: &mut Command) -> Process {
    Process(command.stdin(Stdio::null()).spawn().unwrap())
}

fn until(there: impl Fn() -> bool) {
    for _ in 0..2000 {
        if there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not start");
}

/// To one processor, if there is more than one.
fn pin(process: Pid, processor: usize) {
    if std::thread::available_parallelism().is_ok_and(|there_are| there_are.get() < 2) && processor == 1 {
        return;
    }
    let mut set = CpuSet::new();
    set.set(processor).unwrap();
    let id = if process.as_raw() == 0 { Pid::this() } else { process };
    for task in std::fs::read_dir(Path::new("/proc").join(id.to_string()).join("task")).unwrap().flatten() {
        let task = task.file_name().to_str().unwrap().parse().unwrap();
        sched_setaffinity(Pid::from_raw(task), &set).unwrap();
    }
}
