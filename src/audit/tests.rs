use std::cell::RefCell;

use super::chain::Link;
use super::verify::{Finding, Verifier};
use super::*;
use crate::caller::Caller;
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::model::{RequestId, TokenMark};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open_at(&self, file: &Path, terms: Terms, ready: &Ready) -> (Audit, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let config = Config { file: file.to_owned(), key_file: None };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(0));
        let sources = (clock, &SystemEntropy as &dyn Entropy);
        let audit =
            Audit::open(&config, terms, &self.path("db"), sources, Arc::clone(&metrics), ready.clone());
        (audit.unwrap(), metrics)
    }

    fn open(&self, terms: Terms) -> (Audit, Arc<Metrics>) {
        self.open_at(&self.path("log"), terms, &Ready::default())
    }

    fn lines(&self, name: &str) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
    }

    fn key(&self) -> Key {
        Key::from_file(&beside(&self.path("db"), OWN_KEY)).unwrap()
    }

    fn head(&self) -> Link {
        let Head::Is(link) = Head::read(&beside(&self.path("db"), HEAD), &self.key()) else { panic!() };
        link
    }

    /// What is wrong with these files, and what is worth knowing.
    fn verify(&self, names: &[&str]) -> (Vec<String>, Vec<String>) {
        let found = RefCell::new((Vec::new(), Vec::new()));
        let keys = [self.key()];
        let mut verifier = Verifier::new(&keys, true, |finding: Finding| {
            let mut found = found.borrow_mut();
            let list = if finding.is_problem { &mut found.0 } else { &mut found.1 };
            list.push(format!("{}:{} {}", finding.file, finding.line, finding.what));
        });
        verifier.expect(self.head());
        for name in names {
            verifier.read(name, std::fs::read(self.path(name)).unwrap().as_slice()).unwrap();
        }
        let _summary = verifier.finish();
        found.into_inner()
    }
}

const LONG: Duration = Duration::from_secs(30);

fn vend(token: &str, uid: u32) -> Event {
    Event::new(Kind::Vend, "ok")
        .by(&Caller::invented(uid, uid), &RequestId::parse("r").unwrap())
        .token(TokenMark::new(Some("id"), Digest::of(token.as_bytes())))
}

fn counted(metrics: &Metrics, word: &str) -> u64 {
    metrics.audit_events.with_label_values(&[word]).get()
}

#[tokio::test]
async fn the_chain_goes_on_over_restarts_and_rotation() {
    let place = Place::new();
    for _ in 0..2 {
        let (audit, _) = place.open(Terms::default());
        audit.record(vend("a", 1));
        audit.record(vend("a", 1));
        audit.close(LONG).await;
    }
    std::fs::rename(place.path("log"), place.path("log.1")).unwrap();
    let (audit, _) = place.open(Terms::default());
    audit.record(vend("b", 1));
    audit.close(LONG).await;
    let seqs: Vec<_> = place.lines("log").iter().map(|line| line["seq"].as_u64()).collect();
    assert_eq!(seqs, [Some(5)]);
    assert_eq!(place.verify(&["log.1", "log"]), (vec![], vec![]));
}

#[tokio::test]
async fn a_file_that_was_moved_is_followed_by_a_new_one_when_that_is_asked_for() {
    let place = Place::new();
    let (audit, _) = place.open(Terms { refuse: true, ..Terms::default() });
    audit.vend(vend("a", 1), LONG).await.unwrap();
    std::fs::rename(place.path("log"), place.path("log.1")).unwrap();
    audit.vend(vend("b", 1), LONG).await.unwrap();
    audit.reopen();
    audit.vend(vend("c", 1), LONG).await.unwrap();
    audit.reopen();
    audit.vend(vend("d", 1), LONG).await.unwrap();
    audit.close(LONG).await;
    assert_eq!((place.lines("log.1").len(), place.lines("log").len()), (2, 2));
    assert_eq!(place.verify(&["log.1", "log"]), (vec![], vec![]));
}

#[tokio::test]
async fn a_file_that_was_cut_while_it_is_written_is_noticed() {
    let place = Place::new();
    let (audit, _) = place.open(Terms { refuse: true, ..Terms::default() });
    audit.vend(vend("a", 1), LONG).await.unwrap();
    std::fs::copy(place.path("log"), place.path("log.1")).unwrap();
    std::fs::write(place.path("log"), "").unwrap();
    audit.vend(vend("b", 1), LONG).await.unwrap();
    audit.close(LONG).await;
    let (problems, notes) = place.verify(&["log.1", "log"]);
    assert!(problems.is_empty() && notes[0].contains("copytruncate"), "{problems:?} {notes:?}");
    assert_eq!(place.verify(&["log"]).0, ["log:1 begins at line 2 of the log"]);
}

#[tokio::test]
async fn lines_that_are_cut_off_while_nothing_runs_are_missed_at_the_start_and_ever_after() {
    let place = Place::new();
    let (audit, _) = place.open(Terms::default());
    (0..3).for_each(|_| audit.record(vend("a", 1)));
    audit.close(LONG).await;
    let text = std::fs::read_to_string(place.path("log")).unwrap();
    std::fs::write(place.path("log"), text.split_inclusive('\n').take(2).collect::<String>()).unwrap();
    let (audit, _) = place.open(Terms::default());
    audit.record(vend("a", 1));
    audit.close(LONG).await;
    let trouble = place.lines("log")[2]["trouble"].clone();
    assert_eq!(trouble, "line 3 was the last one, but the file ends with line 2");
    assert_eq!(place.verify(&["log"]).0, ["log:3 line 3 is missing before this one"]);
}

#[tokio::test]
async fn a_line_that_was_torn_by_a_crash_is_no_forgery() {
    use std::io::Write as _;
    let place = Place::new();
    let (audit, _) = place.open(Terms::default());
    audit.record(vend("a", 1));
    audit.close(LONG).await;
    let mut log = std::fs::OpenOptions::new().append(true).open(place.path("log")).unwrap();
    log.write_all(br#"{"time":"2026-"#).unwrap();
    let (audit, _) = place.open(Terms::default());
    audit.record(vend("a", 1));
    audit.close(LONG).await;
    let (problems, notes) = place.verify(&["log"]);
    assert!(problems.is_empty() && notes[0].starts_with("log:2 is not finished"), "{problems:?} {notes:?}");
}

#[tokio::test]
async fn on_a_full_disk_events_are_lost_and_counted_and_the_next_line_says_how_many() {
    let place = Place::new();
    let link = place.path("log");
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    let ready = Ready::default();
    let (audit, metrics) = place.open_at(&link, Terms::default(), &ready);
    for _ in 0..5 {
        audit.vend(vend("a", 1), LONG).await.unwrap();
    }
    while counted(&metrics, "lost") < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(audit.status().unwrap().failing && ready.waiting_for().is_empty());
    std::fs::remove_file(&link).unwrap();
    audit.reopen();
    while audit.status().unwrap().failing {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    audit.record(vend("b", 1));
    audit.close(LONG).await;
    let lines = place.lines("log");
    assert_eq!((&lines[0]["event"], &lines[0]["count"]), (&"lost".into(), &5.into()), "{lines:?}");
    assert_eq!((counted(&metrics, "written"), counted(&metrics, "lost")), (2, 5));
    let (problems, notes) = place.verify(&["log"]);
    assert!(problems.is_empty() && notes.len() == 1, "{problems:?} {notes:?}");
}

#[tokio::test]
async fn where_that_is_wanted_no_token_leaves_without_its_line() {
    let place = Place::new();
    let link = place.path("log");
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    let ready = Ready::default();
    let (audit, metrics) = place.open_at(&link, Terms { refuse: true, first_only: true }, &ready);
    assert_eq!(audit.vend(vend("a", 1), LONG).await, Err(NotWritten));
    assert_eq!(audit.vend(vend("a", 1), LONG).await, Err(NotWritten), "not taken for one that was written");
    assert_eq!(ready.waiting_for(), ["audit"]);
    assert_eq!((counted(&metrics, "refused"), counted(&metrics, "lost")), (2, 0));
    std::fs::remove_file(&link).unwrap();
    audit.reopen();
    while !ready.waiting_for().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    audit.vend(vend("a", 1), LONG).await.unwrap();
    audit.close(LONG).await;
    let lines = place.lines("log");
    assert_eq!((&lines[0]["count"], &lines[0]["refused"]), (&0.into(), &2.into()), "{lines:?}");
    assert_eq!(lines[1]["event"], "vend");
}

#[tokio::test]
async fn once_per_token_and_caller_means_that() {
    let place = Place::new();
    let (audit, _) = place.open(Terms { first_only: true, ..Terms::default() });
    for (token, uid) in [("a", 1), ("a", 1), ("b", 1), ("a", 2), ("b", 1)] {
        audit.vend(vend(token, uid), LONG).await.unwrap();
    }
    audit.set(Terms::default());
    audit.vend(vend("a", 1), LONG).await.unwrap();
    audit.close(LONG).await;
    assert_eq!(place.lines("log").len(), 4);
}

#[tokio::test]
async fn refusals_beyond_reason_become_one_line_with_their_number() {
    let place = Place::new();
    let (audit, _) = place.open(Terms::default());
    for _ in 0..50 {
        audit.refusal(Event { kind: Kind::Refusal, result: "access_denied".into(), ..vend("a", 1) });
    }
    audit.close(LONG).await;
    let lines = place.lines("log");
    assert_eq!((lines.len(), &lines[10]["count"]), (11, &40.into()));
    assert_eq!(place.verify(&["log"]), (vec![], vec![]));
}

#[tokio::test]
async fn a_log_that_can_not_be_opened_says_so() {
    let place = Place::new();
    let config = Config { file: place.path("no/such/directory/log"), key_file: None };
    let metrics = Arc::new(Metrics::new().unwrap());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(0));
    let sources = (clock, &SystemEntropy as &dyn Entropy);
    let opened =
        Audit::open(&config, Terms::default(), &place.path("db"), sources, metrics, Ready::default());
    assert!(opened.err().unwrap().contains("audit.file"));
}

/// A log whose writer does nothing, with room for one message.
fn stuck(terms: Terms) -> (Audit, Arc<Metrics>, std::sync::mpsc::Receiver<Message>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (queue, receiver) = sync_channel(1);
    let shared = Shared {
        path: PathBuf::new(),
        first_only: AtomicBool::new(terms.first_only),
        refuse: AtomicBool::new(terms.refuse),
        reopen: AtomicBool::new(false),
        failing: AtomicBool::new(false),
        seq: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        floods: Mutex::default(),
    };
    let inner = Inner {
        shared: Arc::new(shared),
        queue,
        vended: Cache::new(10),
        clock: Arc::new(SystemClock::new(0)),
        metrics: Arc::clone(&metrics),
    };
    (Audit(Some(Arc::new(inner))), metrics, receiver)
}

#[tokio::test]
async fn a_writer_that_hangs_holds_up_nobody_and_what_has_no_room_is_counted() {
    let (audit, metrics, _receiver) = stuck(Terms::default());
    for _ in 0..3 {
        audit.vend(vend("a", 1), LONG).await.unwrap();
    }
    audit.reopen();
    assert_eq!(counted(&metrics, "lost"), 2);
    assert_eq!(audit.0.as_ref().unwrap().shared.unwritten(), (2, 0));
    audit.close(Duration::from_millis(30)).await;
}

#[tokio::test]
async fn a_token_waits_for_a_writer_that_hangs_as_long_as_its_caller_does() {
    let (audit, metrics, _receiver) = stuck(Terms { refuse: true, ..Terms::default() });
    assert_eq!(audit.vend(vend("a", 1), Duration::from_millis(30)).await, Err(NotWritten));
    assert_eq!(audit.vend(vend("a", 1), LONG).await, Err(NotWritten), "no room, so at once");
    assert_eq!((counted(&metrics, "refused"), counted(&metrics, "lost")), (2, 0));
}
