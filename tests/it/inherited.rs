//! The vending socket comes from a service manager, which keeps it while the program is started again: nobody who asks
//! meanwhile notices.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal::SIGTERM;
use tokio::net::UnixDatagram;

use crate::support::sidecar::{PROGRAM, Sidecar};
use crate::support::{ALICE, World};

/// A service manager with one socket.
struct Manager {
    listener: UnixListener,
    notify: UnixDatagram,
    directory: std::path::PathBuf,
}

impl Manager {
    fn new(world: &World) -> Self {
        let directory = world.path().to_owned();
        let listener = UnixListener::bind(directory.join("bursar.sock")).unwrap();
        let notify = UnixDatagram::bind(directory.join("notify.sock")).unwrap();
        Self { listener, notify, directory }
    }

    /// Starts the program with the socket as descriptor 3, and waits until it says that it is ready.
    async fn start(&self) -> Sidecar {
        let sidecar = self.spawn();
        assert_eq!(self.told().await, "READY=1");
        sidecar
    }

    fn spawn(&self) -> Sidecar {
        let listener: OwnedFd = self.listener.try_clone().unwrap().into();
        let mut command = Command::new("bash");
        command
            .args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "bash"])
            .args([PROGRAM, "serve", "--config"])
            .arg(self.directory.join("bursar.toml"))
            .env("NOTIFY_SOCKET", self.directory.join("notify.sock"))
            .env("WATCHDOG_USEC", "400000")
            .stdin(Stdio::from(listener));
        Sidecar::spawn_as(&mut command, &self.directory)
    }

    /// The next thing that the program says, the watchdog's meal aside.
    async fn told(&self) -> String {
        loop {
            let message = self.hear().await;
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    async fn hear(&self) -> String {
        let mut message = [0; 256];
        let heard = tokio::time::timeout(Duration::from_secs(20), self.notify.recv(&mut message));
        let length = heard.await.expect("it says something").unwrap();
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    }
}

/// Asks over a connection of its own; what came, or what became of the connection.
async fn ask(socket: &std::path::Path) -> Result<u16, String> {
    let stream =
        tokio::net::UnixStream::connect(socket).await.map_err(|error| format!("connect: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(format!("/v1/token?service=snowflake&user={ALICE}"))
        .header("host", "x")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let reply = sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
    let status = reply.status().as_u16();
    reply.into_body().collect().await.map_err(|error| format!("broken body: {error}"))?;
    drop(sender);
    let _closed = connection.await;
    Ok(status)
}

#[tokio::test]
async fn twenty_restarts_under_load_lose_no_request() {
    let world = World::start().await;
    let manager = Manager::new(&world);
    let mut sidecar = manager.start().await;
    world.connect(&sidecar, ALICE).await;
    let socket = sidecar.socket();
    let stop = Arc::new(AtomicBool::new(false));
    let (asked_to_stop, path) = (Arc::clone(&stop), socket.clone());
    // A hundred a second, whatever becomes of the earlier ones.
    let load = tokio::spawn(async move {
        let mut asked = tokio::task::JoinSet::new();
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !asked_to_stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let path = path.clone();
            asked.spawn(async move { ask(&path).await });
        }
        asked.join_all().await
    });
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sidecar.signal(SIGTERM);
        let (status, log) = sidecar.ended().await;
        assert!(status.success(), "{log}");
        assert_eq!(manager.told().await, "STOPPING=1");
        assert!(socket.exists(), "the socket is not ours to remove");
        sidecar = manager.start().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    let results =
        tokio::time::timeout(Duration::from_secs(30), load).await.expect("all are answered").unwrap();
    assert!(results.len() > 200, "{}", results.len());
    let lost: Vec<_> = results.iter().filter(|result| **result != Ok(200)).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), results.len());
    world.finish(sidecar).await;
}

#[tokio::test]
async fn who_has_connected_before_a_stop_is_heard_once() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::start().await;
    let sidecar = world.connected().await;
    let mut early = tokio::net::UnixStream::connect(sidecar.socket()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    sidecar.signal(SIGTERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let head = format!("GET /v1/token?service=snowflake&user={ALICE} HTTP/1.1\r\nhost: x\r\n\r\n");
    early.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    let (status, log) = sidecar.ended().await;
    assert!(status.success(), "{log}");
}

#[tokio::test]
async fn the_service_manager_is_told_and_its_watchdog_is_fed() {
    let world = World::start().await;
    let manager = Manager::new(&world);
    let sidecar = manager.start().await;
    let mut meals = 0;
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert_eq!(manager.hear().await, "WATCHDOG=1");
        meals += 1;
    }
    assert!(meals >= 3, "{meals} in a second and a half, every 0.2 s");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_inherited_socket_that_nobody_configured_stops_the_start() {
    let world = World::start().await;
    let manager = Manager::new(&world);
    world.configure("bursar.sock", "elsewhere.sock");
    let (status, log) = manager.spawn().ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("inherited from the service manager") && log.contains("bursar.sock"), "{log}");
}
