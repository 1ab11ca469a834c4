//! The well-behaved worker: a request over a kept connection, one over a new one, a rest; again.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Four hundred requests a second.
const REST: Duration = Duration::from_millis(5);
const REQUEST: &[u8] =
    b"GET /v1/token?service=snowflake&user=alice%40example.com HTTP/1.1\r\nhost: bursar\r\naccept: */*\r\n\r\n";

/// How long answers took, in nanoseconds.
#[derive(Default)]
pub(crate) struct Latencies {
    kept: Vec<u64>,
    new: Vec<u64>,
    /// Requests that were not answered, or not with a token.
    pub(crate) failed: usize,
}

impl Latencies {
    pub(crate) fn add(&mut self, other: Self) {
        self.kept.extend(other.kept);
        self.new.extend(other.new);
        self.failed += other.failed;
    }

    /// As the worker's process prints them.
    pub(crate) fn read(text: &str) -> Self {
        let mut latencies = Self::default();
        for line in text.lines() {
            match line.split_once(' ').unwrap() {
                ("kept", nanos) => latencies.kept.push(nanos.parse().unwrap()),
                ("new", nanos) => latencies.new.push(nanos.parse().unwrap()),
                ("failed", count) => latencies.failed += count.parse::<usize>().unwrap(),
                (other, _) => panic!("{other}"),
            }
        }
        latencies
    }

    /// Microseconds: p50 and p99 of each way.
    pub(crate) fn percentiles(&self) -> [(f64, f64); 2] {
        [&self.kept, &self.new].map(|latencies| {
            let mut sorted = latencies.clone();
            sorted.sort_unstable();
            let at = |percent: usize| sorted[sorted.len() * percent / 100] as f64 / 1000.0;
            (at(50), at(99))
        })
    }
}

pub(crate) fn work(socket: &Path, time: Duration) {
    let (started, mut latencies) = (Instant::now(), Latencies::default());
    let mut kept = None;
    while started.elapsed() < time {
        let begun = Instant::now();
        let connection = match kept.take() {
            Some(connection) => ask(connection),
            // The first time, and after a failure.
            None => UnixStream::connect(socket).ok().and_then(ask),
        };
        match connection {
            Some(connection) => {
                latencies.kept.push(nanos(begun));
                kept = Some(connection);
            }
            None => latencies.failed += 1,
        }
        std::thread::sleep(REST / 2);
        let begun = Instant::now();
        match UnixStream::connect(socket).ok().and_then(ask) {
            Some(_connection) => latencies.new.push(nanos(begun)),
            None => latencies.failed += 1,
        }
        std::thread::sleep(REST / 2);
    }
    for (name, all) in [("kept", &latencies.kept), ("new", &latencies.new)] {
        for nanos in all {
            println!("{name} {nanos}");
        }
    }
    println!("failed {}", latencies.failed);
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap()
}

/// The connection, if it gave a token.
fn ask(mut stream: UnixStream) -> Option<UnixStream> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(REQUEST).ok()?;
    let (mut buffer, mut length) = ([0; 16 * 1024], 0);
    loop {
        let read = stream.read(buffer.get_mut(length..)?).ok()?;
        length += read;
        if read == 0 || !buffer.starts_with(b"HTTP/1.1 200") {
            return None;
        }
        if buffer.get(..length)?.ends_with(b"}") {
            return Some(stream);
        }
    }
}
