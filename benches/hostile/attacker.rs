//! The hostile process: so many connections at the same time, each of which does one thing that is not done, and comes again
//! as soon as it is thrown out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::sleep;

const VALID: &str = "GET /v1/token?service=snowflake&user=alice%40example.com HTTP/1.1\r\nhost: x\r\n\r\n";
const DENIED: &str = "GET /v1/token?service=snowflake&user=somebody%40elsewhere HTTP/1.1\r\nhost: x\r\n\r\n";
const MALFORMED: &str = "GET /v1/token?service=snowflake&user=a&user=b HTTP/1.1\r\nhost: x\r\n\r\n";
const GRANTS: &str = "GET /v1/grants HTTP/1.1\r\nhost: x\r\n\r\n";
const EVENTS: &str =
    "GET /v1/token/events?service=snowflake&user=alice%40example.com HTTP/1.1\r\nhost: x\r\n\r\n";
const ENDLESS: &str = "POST /v1/introspect HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                       transfer-encoding: chunked\r\n\r\n";
const ENDLESS_GET: &str = "GET /v1/token?service=snowflake&user=alice%40example.com HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";

#[derive(Clone, Copy)]
enum Kind {
    /// A head, a byte a second.
    SlowHead,
    /// A head that is never large enough to be refused and never ends.
    HugeHead,
    /// A body that never ends: chunk after chunk, after so many milliseconds each.
    EndlessBody(&'static str, u64),
    /// Connects, and that is all.
    HalfOpen,
    /// The same request as fast as it is answered.
    Flood(&'static str),
    /// So many requests at once.
    Pipelined(&'static str, usize),
    /// Connects and leaves.
    Storm,
    /// Asks and asks and reads nothing.
    NeverReads,
    /// A stream that it does not read.
    Stream,
}

const KINDS: [Kind; 16] = [
    Kind::SlowHead,
    Kind::HugeHead,
    Kind::EndlessBody(ENDLESS, 100),
    Kind::EndlessBody(ENDLESS, 0),
    Kind::EndlessBody(ENDLESS_GET, 0),
    Kind::HalfOpen,
    Kind::Flood(VALID),
    Kind::Flood(DENIED),
    Kind::Flood(MALFORMED),
    Kind::Flood(GRANTS),
    Kind::Pipelined(VALID, 64),
    Kind::Pipelined(DENIED, 16),
    Kind::Storm,
    Kind::Storm,
    Kind::NeverReads,
    Kind::Stream,
];

pub(crate) fn attack(socket: &Path, time: Duration, connections: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut attacking = tokio::task::JoinSet::new();
        for kind in KINDS.iter().cycle().take(connections) {
            attacking.spawn(again_and_again(socket.to_owned(), *kind));
        }
        sleep(time).await;
        attacking.abort_all();
        while attacking.join_next().await.is_some() {}
    });
}

async fn again_and_again(socket: PathBuf, kind: Kind) {
    loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                let _thrown_out = misbehave(stream, kind).await;
            }
            // The queue is full, as it should be for nobody.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
        tokio::task::yield_now().await;
    }
}

async fn misbehave(mut stream: UnixStream, kind: Kind) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    match kind {
        Kind::SlowHead => {
            for byte in VALID.bytes().cycle() {
                stream.write_all(&[byte]).await?;
                sleep(Duration::from_secs(1)).await;
            }
        }
        Kind::HugeHead => {
            stream.write_all(b"GET / HTTP/1.1\r\nx: ").await?;
            for _ in 0..60 {
                stream.write_all(&[b'x'; 1000]).await?;
                sleep(Duration::from_millis(20)).await;
            }
            while stream.read(&mut buffer).await? > 0 {}
        }
        Kind::EndlessBody(head, pause) => {
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(format!("400\r\n{}\r\n", "x".repeat(0x400)).as_bytes()).await?;
                if pause > 0 {
                    sleep(Duration::from_millis(pause)).await;
                }
            }
        }
        Kind::HalfOpen | Kind::Stream => {
            if matches!(kind, Kind::Stream) {
                stream.write_all(EVENTS.as_bytes()).await?;
            }
            while stream.read(&mut buffer).await? > 0 {}
        }
        Kind::Flood(request) => loop {
            stream.write_all(request.as_bytes()).await?;
            if stream.read(&mut buffer).await? == 0 {
                return Ok(());
            }
        },
        Kind::Pipelined(request, count) => {
            let requests = request.repeat(count);
            loop {
                stream.write_all(requests.as_bytes()).await?;
                if stream.read(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
        }
        Kind::Storm => {}
        Kind::NeverReads => loop {
            stream.write_all(VALID.as_bytes()).await?;
        },
    }
    Ok(())
}
