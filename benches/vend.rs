//! A vend beside a bare hyper server that answers the same bytes, both over a Unix socket, in one run on one core.
//!
//! `cargo bench --bench vend [-- --requests 30000 --rounds 6]`. The figure is the server's CPU per request and its ratio to
//! bare hyper's: absolute figures move with the machine, ratios within one run hold. `--short` only shows that it works.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a measurement fails by panicking, prints what it found, and is itself what measures time"
)]

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

const REQUEST: &[u8] =
    b"GET /v1/token?service=snowflake&user=alice%40example.com HTTP/1.1\r\nhost: bursar\r\naccept: */*\r\n\r\n";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, socket, answer] = arguments.as_slice()
        && flag == "--bare"
    {
        return runtime().block_on(bare(Path::new(socket), &std::fs::read(answer).unwrap()));
    }
    let number = |name: &str, default: usize| {
        let given =
            arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
        given.map_or(default, |text| text.parse().unwrap())
    };
    let short = arguments.iter().any(|argument| argument == "--short");
    let (requests, rounds) = if short { (500, 1) } else { (30_000, 6) };
    runtime().block_on(compare(number("--requests", requests), number("--rounds", rounds)));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// How clients come.
#[derive(Clone, Copy)]
enum Load {
    /// So many connections that are kept.
    Kept(usize),
    /// A connection for each request, one after the other.
    Anew,
}

/// One load on one server.
#[derive(Clone, Copy)]
struct Round {
    cpu: f64,
    per_second: f64,
    p99: f64,
}

async fn compare(requests: usize, rounds: usize) {
    let directory = tempfile::tempdir().unwrap();
    let bursar = Server::bursar(directory.path());
    let answer = one(&bursar.socket).await;
    let bare = Server::bare(directory.path(), &answer);
    assert_eq!(one(&bare.socket).await.len(), answer.len(), "the same bytes, but for the date");
    for server in [&bursar, &bare] {
        pin(Pid::from_raw(i32::try_from(server.child.id()).unwrap()));
    }
    pin(Pid::from_raw(0));
    println!("{} bytes an answer, {requests} requests a round, {rounds} rounds, one core\n", answer.len());
    println!(
        "load                         bare: us CPU   1/s     p99 us   bursar: us CPU   1/s     p99 us   CPU ratio"
    );
    let loads = [
        ("kept connection, 1 client", Load::Kept(1)),
        ("kept connections, 64 clients", Load::Kept(64)),
        ("a connection each", Load::Anew),
    ];
    for (name, load) in loads {
        let mut results = Vec::new();
        for _ in 0..rounds {
            // One after the other, so that the machine's moods meet both.
            results.push((bare.measure(load, requests).await, bursar.measure(load, requests).await));
        }
        let median = |pick: &dyn Fn(&(Round, Round)) -> f64| {
            let mut values: Vec<f64> = results.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        println!(
            "{name:28} {:12.2} {:8.0} {:9.0} {:14.2} {:8.0} {:9.0} {:10.2}x",
            median(&|round| round.0.cpu),
            median(&|round| round.0.per_second),
            median(&|round| round.0.p99),
            median(&|round| round.1.cpu),
            median(&|round| round.1.per_second),
            median(&|round| round.1.p99),
            median(&|round| round.1.cpu / round.0.cpu),
        );
    }
}

/// A server in a process of its own.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// The real program with its development set-up: the authorization server beside it is idle.
    fn bursar(directory: &Path) -> Self {
        let place = directory.join("dev");
        let child = Command::new(env!("CARGO_BIN_EXE_bursar"))
            .args(["dev", "--token-lifetime", "24h", "--dir"])
            .arg(&place)
            .arg("--ready-file")
            .arg(directory.join("ready"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, socket: place.join("bursar.sock") }.once_there(&directory.join("ready"));
        // What one uid may ask a second is less than what is measured.
        let configuration = place.join("bursar.toml");
        let text = std::fs::read_to_string(&configuration).unwrap();
        std::fs::write(&configuration, text + "\n[limits]\nrequests_per_second = 1000000\n").unwrap();
        let mut admin = std::os::unix::net::UnixStream::connect(place.join("admin.sock")).unwrap();
        admin.write_all(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        admin.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        server
    }

    fn bare(directory: &Path, answer: &[u8]) -> Self {
        let (socket, file) = (directory.join("bare.sock"), directory.join("answer"));
        std::fs::write(&file, answer).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let child = command.arg("--bare").arg(&socket).arg(&file).spawn().unwrap();
        Self { child, socket: socket.clone() }.once_there(&socket)
    }

    fn once_there(mut self, path: &Path) -> Self {
        for _ in 0..2000 {
            if path.exists() {
                return self;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not there: {}", path.display());
    }

    async fn measure(&self, load: Load, requests: usize) -> Round {
        let before = self.cpu();
        let started = Instant::now();
        let mut latencies = match load {
            Load::Kept(clients) => {
                let mut running = tokio::task::JoinSet::new();
                for _ in 0..clients {
                    running.spawn(kept(self.socket.clone(), requests / clients));
                }
                running.join_all().await.concat()
            }
            Load::Anew => {
                let mut latencies = Vec::with_capacity(requests);
                for _ in 0..requests {
                    latencies.extend(kept(self.socket.clone(), 1).await);
                }
                latencies
            }
        };
        let (took, cpu) = (started.elapsed(), self.cpu().saturating_sub(before));
        latencies.sort_unstable();
        let count = latencies.len() as f64;
        let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
        Round {
            cpu: cpu.as_secs_f64() * 1e6 / count,
            per_second: count / took.as_secs_f64(),
            p99: p99.as_secs_f64() * 1e6,
        }
    }

    /// Time on a processor, of all its threads, to the nanosecond.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
            .map(|text| Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap()))
            .sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Asks over one connection, again and again; how long each answer took.
async fn kept(socket: PathBuf, requests: usize) -> Vec<Duration> {
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let (mut buffer, mut latencies) = (vec![0; 16 * 1024], Vec::with_capacity(requests));
    for _ in 0..requests {
        let started = Instant::now();
        stream.write_all(REQUEST).await.unwrap();
        read_answer(&mut stream, &mut buffer).await;
        latencies.push(started.elapsed());
    }
    latencies
}

async fn one(socket: &Path) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let mut buffer = vec![0; 16 * 1024];
    let length = read_answer(&mut stream, &mut buffer).await;
    buffer.truncate(length);
    assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer));
    buffer
}

/// Reads one whole answer and says how long it is.
async fn read_answer(stream: &mut UnixStream, buffer: &mut [u8]) -> usize {
    let mut length = 0;
    loop {
        let read = stream.read(buffer.get_mut(length..).unwrap()).await.unwrap();
        assert_ne!(read, 0, "the server hung up");
        length += read;
        let seen = buffer.get(..length).unwrap();
        if let Some(head) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = std::str::from_utf8(seen.get(..head).unwrap()).unwrap();
            let body = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if length == head + 4 + body.trim().parse::<usize>().unwrap() {
                return length;
            }
        }
    }
}

/// Answers everything with the headers and body of `answer`.
async fn bare(socket: &Path, answer: &[u8]) {
    let text = std::str::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let headers: Vec<(HeaderName, HeaderValue)> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| !["date", "content-length"].contains(name))
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let body = Bytes::from(body.to_owned());
    let listener = UnixListener::bind(socket).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (headers, body) = (headers.clone(), body.clone());
        tokio::spawn(async move {
            let service = service_fn(move |_request| {
                let mut response = hyper::Response::new(Full::new(body.clone()));
                response.headers_mut().extend(headers.iter().cloned());
                async move { Ok::<_, Infallible>(response) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(None);
            let _ended = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// To the first processor: server and client on one is the least noisy way.
fn pin(process: Pid) {
    let mut first = CpuSet::new();
    first.set(0).unwrap();
    let tasks = std::fs::read_dir(format!(
        "/proc/{}/task",
        if process.as_raw() == 0 { std::process::id() } else { process.as_raw().unsigned_abs() }
    ));
    for task in tasks.unwrap().flatten() {
        let task = task.file_name().to_str().unwrap().parse().unwrap();
        sched_setaffinity(Pid::from_raw(task), &first).unwrap();
    }
}
