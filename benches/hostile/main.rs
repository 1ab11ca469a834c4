//! What a well-behaved worker notices of a hostile one: its latencies while nobody else is there and while another uid holds
//! a thousand connections that do everything that is not done, in turns, in one run; and what that costs the daemon, and
//! whether it has it back afterwards.
//!
//! `cargo bench --bench hostile [-- --seconds 20 --turns 3]`; `--quick` is for the tests,
//! and lenient about time. Takes root, for two uids. Ends with 1
//! if the worker's p99 is more than three times the undisturbed one, on kept or on new connections; if memory or
//! descriptors exceed their bound; or if anything stays behind.
//!
//! What is measured is the daemon and not the scheduler: the daemon has the first processor, worker and hostile process share
//! the second one, and daemon and worker run as soon as they want to, the hostile process whenever they do not (real-time
//! priority by chrt, else `nice`), while it is there as while it is not. That takes nothing from the attack: it has a
//! processor for all but the few hundredths of it that the worker uses. With all at one priority, the figure would be the
//! time for which the kernel lets a busy process run, and whatever else this machine is doing.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a measurement fails by panicking, prints what it found, and is itself what measures time"
)]

mod attacker;
mod daemon;
mod worker;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use daemon::{Daemon, Footprint};
use worker::Latencies;

/// Neither is root's, nor anybody's whom a machine is likely to have.
const WORKER: u32 = 47_001;
const ATTACKER: u32 = 47_002;

const CONNECTIONS: usize = 1000;
/// The worker's p99 may become so many times what it was; in a short run on whatever machine, with a program that was not
/// optimized, only what is far off says something.
const MOST_SLOWER: f64 = 3.0;
/// A few seconds of an unoptimised build beside other work say nothing of time: it is told and not judged.
const MOST_SLOWER_IF_QUICK: f64 = f64::INFINITY;
/// By `docs/limits.md`, 256 connections of one uid: each with the largest head and the largest body.
const MOST_MEMORY_MB: f64 = 48.0;
/// What the allocator may keep for the next time.
const MOST_KEPT_MB: f64 = 24.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, socket, seconds] = arguments.as_slice() {
        let (socket, seconds) = (Path::new(socket), || Duration::from_secs_f64(seconds.parse().unwrap()));
        match role.as_str() {
            "--worker" => {
                worker::work(socket, seconds());
                return ExitCode::SUCCESS;
            }
            "--attacker" => {
                attacker::attack(socket, seconds(), CONNECTIONS);
                return ExitCode::SUCCESS;
            }
            _ => {}
        }
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: two uids take root");
        return ExitCode::SUCCESS;
    }
    let priority = arguments.last().map(String::as_str);
    if !matches!(priority, Some("--real-time" | "--nice")) {
        return with_priority(&arguments);
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let number = |name: &str, default: u32| {
        let given =
            arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
        given.map_or(default, |text| text.parse().unwrap())
    };
    let (seconds, turns) = if quick { (4, 3) } else { (20, 3) };
    let daemon = Daemon::start(priority == Some("--real-time"));
    let most_slower = if quick { MOST_SLOWER_IF_QUICK } else { MOST_SLOWER };
    compare(&daemon, most_slower, number("--seconds", seconds), number("--turns", turns))
}

/// This program again, before whatever else the machine is doing.
fn with_priority(arguments: &[String]) -> ExitCode {
    let may = Command::new("chrt").args(["--rr", "1", "true"]).status().is_ok_and(|ended| ended.success());
    let (program, how, word) =
        if may { ("chrt", ["--rr", "1"], "--real-time") } else { ("nice", ["-n", "-15"], "--nice") };
    let ended = Command::new(program).args(how).args(arguments).arg(word).status().unwrap();
    if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compare(daemon: &Daemon, most_slower: f64, seconds: u32, turns: u32) -> ExitCode {
    let phase = Duration::from_secs(seconds.into());
    // Whatever is done once is done.
    daemon.work(Duration::from_secs(1));
    let before = daemon.footprint();
    let (mut quiet, mut disturbed) = (Latencies::default(), Latencies::default());
    let mut most = before;
    println!(
        "{turns} x {seconds} s undisturbed and {seconds} s beside {CONNECTIONS} hostile connections; us\n"
    );
    println!(
        "                    kept: p50     p99      new: p50     p99   daemon's CPU  RSS MB  descriptors"
    );
    for _ in 0..turns {
        let cpu = daemon.cpu();
        let alone = daemon.work(phase);
        tell("undisturbed", &alone, daemon.cpu().saturating_sub(cpu), phase, daemon.footprint());
        quiet.add(alone);
        let attack = daemon.attack(phase + Duration::from_secs(2));
        // Until all of its connections have been tried.
        std::thread::sleep(Duration::from_secs(1));
        let cpu = daemon.cpu();
        let beside = daemon.work(phase);
        let now = daemon.footprint();
        tell("beside the hostile", &beside, daemon.cpu().saturating_sub(cpu), phase, now);
        most = most.max(now);
        disturbed.add(beside);
        attack.end();
    }
    let after = daemon.at_rest(&before);
    println!("\nrefused: {}", daemon.refused());
    judge(most_slower, &quiet, &disturbed, [before, most, after])
}

fn tell(what: &str, latencies: &Latencies, cpu: Duration, of: Duration, footprint: Footprint) {
    let [(kept_50, kept_99), (new_50, new_99)] = latencies.percentiles();
    println!(
        "{what:18} {kept_50:10.0} {kept_99:7.0} {new_50:13.0} {new_99:7.0} {:13.0} % {:7.1} {:12}",
        cpu.as_secs_f64() * 100.0 / of.as_secs_f64(),
        footprint.memory_mb,
        footprint.descriptors,
    );
}

fn judge(
    most_slower: f64,
    quiet: &Latencies,
    disturbed: &Latencies,
    [before, most, after]: [Footprint; 3],
) -> ExitCode {
    let mut met = true;
    let mut judge = |what: &str, is: f64, bound: f64| {
        let word = if is <= bound { "met   " } else { "MISSED" };
        met &= is <= bound;
        println!("{word}  {what}: {is:.2}, at most {bound:.2}");
    };
    let ways = quiet.percentiles().into_iter().zip(disturbed.percentiles());
    for (way, ((_, quiet), (_, disturbed))) in ["kept connections", "new connections"].into_iter().zip(ways) {
        judge(&format!("p99 over {way}, {disturbed:.0} us / {quiet:.0} us"), disturbed / quiet, most_slower);
    }
    let answered = disturbed.failed as f64;
    judge("of the worker's requests not answered 200", answered, 0.0);
    judge("memory at most, MB more than before", most.peak_mb - before.memory_mb, MOST_MEMORY_MB);
    judge("memory afterwards, MB more than before", after.memory_mb - before.memory_mb, MOST_KEPT_MB);
    let descriptors = |footprint: Footprint| footprint.descriptors as f64;
    judge("descriptors at most, more than before", descriptors(most) - descriptors(before), 256.0 + 300.0);
    judge("descriptors afterwards, more than before", descriptors(after) - descriptors(before), 0.0);
    judge("connections afterwards", after.connections, before.connections);
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
