//! The outbox of the store (`src/store/notices.rs`), and how long its notices are tried to be delivered.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bursar::audit::Audit;
use bursar::authorization_server::http::{HttpClient, Proxies};
use bursar::clock::{Clock as _, ManualClock, Moment, Timestamp};
use bursar::dev::write_private;
use bursar::entropy::SystemEntropy;
use bursar::metrics::Metrics;
use bursar::model::{EndReason, Expiry, GrantId, GrantKey, ServiceName, UserName};
use bursar::notify::webhook::Webhook;
use bursar::notify::{Notifier, Parts, Terms};
use bursar::secret::Secret;
use bursar::store::notices::{Dropped, EndedBy, Notice, NoticeKind, NoticeStore, What};
use bursar::store::seal::{Sealer, generate_key};
use bursar::store::sqlite::{OpenError, SqliteStore};
use bursar::store::{Begun, Candidate, Lease, Settled, Store, StoreError};
use bursar::tasks::Tasks;
use tokio::sync::Notify;

struct Scene {
    directory: tempfile::TempDir,
    key: Secret,
    clock: ManualClock,
}

impl Scene {
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        Self { directory: tempfile::tempdir().unwrap(), key: generate_key(&SystemEntropy), clock }
    }

    /// A store whose notices are kept.
    async fn open(&self) -> SqliteStore {
        let path = self.directory.path().join("bursar.db");
        loop {
            match SqliteStore::open(&path, Sealer::from_text(&self.key).unwrap()).await {
                Ok(store) => {
                    store.keep_notices(true).await.unwrap();
                    return store;
                }
                // A child that another test begins to start has all our files, locks too, for a moment.
                Err(OpenError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(OpenError::Failed(error)) => panic!("{error}"),
            }
        }
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }

    /// One at work that posts to where nobody is.
    async fn notifier(&self, store: Arc<dyn NoticeStore>) -> Running {
        let secret_file = self.directory.path().join("notify.key");
        write_private(&secret_file, "a-secret-of-the-webhook").unwrap();
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let url = url::Url::parse(&format!("http://{nobody}/")).unwrap();
        let http = HttpClient::new(None, Proxies::none()).unwrap();
        let (metrics, news) = (Arc::new(Metrics::new().unwrap()), Arc::new(Notify::new()));
        let parts = Parts {
            store,
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::new(SystemEntropy),
            metrics: Arc::clone(&metrics),
            audit: Audit::none(),
            news: Arc::clone(&news),
        };
        let terms = Terms {
            warn_before: Duration::from_hours(72),
            webhook: Some(Webhook::new(url, secret_file, http)),
            login: None,
        };
        let tasks = Tasks::new();
        tasks.spawn_until_stop(Notifier::new(parts, terms).run());
        Running { tasks, metrics, news }
    }
}

struct Running {
    tasks: Tasks,
    metrics: Arc<Metrics>,
    news: Arc<Notify>,
}

impl Running {
    fn count(&self, event: &str, result: &str) -> u64 {
        self.metrics.notifications.with_label_values(&[event, result]).get()
    }

    async fn stop(self) {
        self.tasks.stop();
        self.tasks.stopped().await;
    }
}

fn id(user: &str) -> GrantId {
    let service = ServiceName::parse("snowflake").unwrap();
    GrantId::current(GrantKey { service, user: UserName::parse(user).unwrap() })
}

async fn candidate(store: &dyn Store, text: &str, now: Timestamp) -> GrantId {
    let refresh_token = Secret::new(text.to_owned());
    let candidate = GrantId::candidate(id("x").key.service, refresh_token.digest());
    let handed_in =
        Candidate { refresh_token, registration: "client at issuer".to_owned(), consented: false };
    assert!(store.add_candidate(&candidate, &handed_in, now).await.unwrap());
    candidate
}

async fn connect(store: &dyn Store, user: &str, text: &str, now: Timestamp) {
    let candidate = candidate(store, text, now).await;
    assert!(store.promote(&candidate, &id(user).key.user).await.unwrap());
}

/// As a refused refresh ends it.
async fn end(store: &dyn Store, id: &GrantId, reason: EndReason, now: &Moment) {
    let lease = Lease { owner: "us".to_owned(), duration: Duration::from_secs(10) };
    let Begun::Attempt(attempt) = store.begin(id, &lease, now).await.unwrap() else { panic!("{id:?}") };
    assert!(store.settle(id, attempt.version, &Settled::Ended(reason, now.wall)).await.unwrap());
}

async fn ends_at(store: &dyn Store, user: &str, end: Timestamp) {
    store.note_expiry(&id(user), Expiry::At(end)).await.unwrap();
}

async fn kept(store: &SqliteStore) -> Vec<Notice> {
    store.notices(0, 100).await.unwrap()
}

fn whats(notices: &[Notice]) -> Vec<(&str, What)> {
    notices.iter().map(|notice| (notice.key.user.as_str(), notice.what)).collect()
}

#[tokio::test]
async fn an_end_is_put_down_with_the_end_itself_once_and_survives_a_restart() {
    let scene = Scene::new();
    let (store, now) = (scene.open().await, scene.now());
    for user in ["alice", "bob"] {
        connect(&store, user, user, now.wall).await;
    }
    end(&store, &id("alice"), EndReason::Lost, &now).await;
    store.revoke(&id("bob"), &id("bob").key, now.wall).await.unwrap();
    // Already over, and neither was ever anybody's grant.
    store.revoke(&id("alice"), &id("alice").key, now.wall).await.unwrap();
    store.revoke(&id("bob"), &id("bob").key, now.wall).await.unwrap();
    let worthless = candidate(&store, "worthless", now.wall).await;
    end(&store, &worthless, EndReason::Revoked, &now).await;
    let unwanted = candidate(&store, "unwanted", now.wall).await;
    store.revoke(&unwanted, &id("carol").key, now.wall).await.unwrap();
    store.close().await;
    drop(store);
    let store = scene.open().await;
    let ends = [
        ("alice", What::Ended { reason: EndReason::Lost, by: EndedBy::AuthorizationServer }),
        ("bob", What::Ended { reason: EndReason::Revoked, by: EndedBy::Us }),
    ];
    let notices = kept(&store).await;
    assert_eq!(whats(&notices), ends);
    assert_eq!(notices[0].at, now.wall);
    assert_eq!(whats(&store.notices(notices[0].number, 9).await.unwrap()), ends[1..]);
    assert_eq!(whats(&store.notices(0, 1).await.unwrap()), ends[..1]);
    store.forget_notice(notices[0].number).await.unwrap();
    assert_eq!(whats(&kept(&store).await), ends[1..]);
}

#[tokio::test]
async fn an_end_to_come_is_foreseen_once_for_each_day_that_it_moves() {
    let scene = Scene::new();
    let (store, now) = (scene.open().await, scene.now().wall);
    let hours = |hours| now.plus(Duration::from_hours(hours));
    for (user, end) in [("alice", 50), ("bob", 40), ("carol", 100), ("dave", 30)] {
        connect(&store, user, user, now).await;
        ends_at(&store, user, hours(end)).await;
    }
    end(&store, &id("dave"), EndReason::Revoked, &scene.now()).await;
    let foresee = async |limit| {
        let notices = store.foresee_ends(hours(72), now, limit).await.unwrap();
        notices.into_iter().map(|notice| notice.key.user.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(foresee(1).await, ["bob"], "the first to end");
    assert_eq!(foresee(9).await, ["alice"]);
    assert!(foresee(9).await.is_empty());
    ends_at(&store, "alice", hours(51)).await;
    assert!(foresee(9).await.is_empty(), "a server that moves it at each use");
    assert!(!kept(&store).await[2].overtaken, "what was said is still so");
    ends_at(&store, "bob", hours(65)).await;
    assert_eq!(foresee(9).await, ["bob"]);
    let overtaken: Vec<_> =
        kept(&store).await.iter().map(|notice| (notice.key.user.to_string(), notice.overtaken)).collect();
    let expected = [("dave", false), ("bob", true), ("alice", false), ("bob", false)];
    assert_eq!(overtaken, expected.map(|(user, overtaken)| (user.to_owned(), overtaken)));
    ends_at(&store, "alice", hours(500)).await;
    assert!(kept(&store).await[2].overtaken, "it ends much later by now");
    connect(&store, "alice", "again", now).await;
    assert!(kept(&store).await[2].overtaken, "another grant");
    ends_at(&store, "alice", hours(50)).await;
    assert_eq!(foresee(9).await, ["alice"], "and it ends, too");
    end(&store, &id("alice"), EndReason::Expired, &scene.now()).await;
    assert!(kept(&store).await[4].overtaken, "it has ended");
}

#[tokio::test]
async fn who_has_connected_again_overtakes_the_notice_of_the_end() {
    let scene = Scene::new();
    let (store, now) = (scene.open().await, scene.now());
    connect(&store, "alice", "one", now.wall).await;
    end(&store, &id("alice"), EndReason::Revoked, &now).await;
    assert!(!kept(&store).await[0].overtaken);
    connect(&store, "alice", "two", now.wall).await;
    assert!(kept(&store).await[0].overtaken);
    store.revoke(&id("alice"), &id("alice").key, now.wall).await.unwrap();
    assert!(store.erase(&id("alice").key).await.unwrap());
    assert!(!kept(&store).await[1].overtaken, "forgotten, and still over");
}

#[tokio::test]
async fn too_many_and_too_old_ones_go_and_all_where_nobody_is_told() {
    let scene = Scene::new();
    let store = scene.open().await;
    for user in ["alice", "bob", "carol", "dave"] {
        connect(&store, user, user, scene.now().wall).await;
        end(&store, &id(user), EndReason::Revoked, &scene.now()).await;
        scene.clock.advance(Duration::from_secs(1));
    }
    assert!(store.drop_notices(Dropped::Beyond(4)).await.unwrap().is_empty());
    assert_eq!(store.drop_notices(Dropped::Beyond(3)).await.unwrap(), [NoticeKind::Ended]);
    let users = |notices: Vec<Notice>| {
        notices.into_iter().map(|notice| notice.key.user.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(users(kept(&store).await), ["bob", "carol", "dave"]);
    let before = Dropped::OlderThan(scene.now().wall.minus(Duration::from_secs(1)));
    assert_eq!(store.drop_notices(before).await.unwrap().len(), 2);
    assert_eq!(users(kept(&store).await), ["dave"]);
    store.keep_notices(false).await.unwrap();
    assert!(kept(&store).await.is_empty());
    connect(&store, "alice", "again", scene.now().wall).await;
    ends_at(&store, "alice", scene.now().wall).await;
    let soon = scene.now().wall.plus(Duration::from_secs(1));
    assert_eq!(store.foresee_ends(soon, scene.now().wall, 9).await.unwrap().len(), 1, "said all the same");
    end(&store, &id("alice"), EndReason::Revoked, &scene.now()).await;
    assert!(kept(&store).await.is_empty());
}

/// More notices than are kept, whatever is asked.
struct Overfull;

#[async_trait]
impl NoticeStore for Overfull {
    async fn keep_notices(&self, _keep: bool) -> Result<(), StoreError> {
        Ok(())
    }
    async fn foresee_ends(&self, _: Timestamp, _: Timestamp, _: u32) -> Result<Vec<Notice>, StoreError> {
        Ok(Vec::new())
    }
    async fn notices(&self, _after: i64, _limit: u32) -> Result<Vec<Notice>, StoreError> {
        Ok(Vec::new())
    }
    async fn forget_notice(&self, _number: i64) -> Result<(), StoreError> {
        Ok(())
    }
    async fn wipe_notices(&self) -> Result<(), StoreError> {
        Ok(())
    }
    async fn drop_notices(&self, which: Dropped) -> Result<Vec<NoticeKind>, StoreError> {
        assert!(matches!(which, Dropped::Beyond(10_000)), "{which:?}");
        Ok(vec![NoticeKind::Ended, NoticeKind::Ending, NoticeKind::Ended])
    }
}

#[tokio::test]
async fn those_beyond_ten_thousand_are_counted() {
    let scene = Scene::new();
    let running = scene.notifier(Arc::new(Overfull)).await;
    until("they are counted", || running.count("grant.ended", "dropped") > 0).await;
    assert!(running.count("grant.ended", "dropped").is_multiple_of(2));
    assert!(running.count("grant.ending", "dropped") > 0);
    running.stop().await;
}

/// Real time until the next try, which is seconds away at most.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect(what);
}

#[tokio::test]
async fn what_nobody_takes_for_a_day_is_given_up_and_not_because_the_process_was_down_for_one() {
    let scene = Scene::new();
    let store = Arc::new(scene.open().await);
    for user in ["alice", "bob"] {
        connect(&*store, user, user, scene.now().wall).await;
    }
    end(&*store, &id("alice"), EndReason::Revoked, &scene.now()).await;
    scene.clock.advance(Duration::from_hours(30));
    let running = scene.notifier(store.clone()).await;
    let count = |result: &str| running.count("grant.ended", result);
    until("it is tried", || count("failed") > 0).await;
    assert_eq!((count("gave_up"), kept(&store).await.len()), (0, 1), "a day old, and tried for moments");
    scene.clock.advance(Duration::from_hours(25));
    end(&*store, &id("bob"), EndReason::Revoked, &scene.now()).await;
    running.news.notify_one();
    until("it is given up", || count("gave_up") > 0).await;
    assert_eq!(kept(&store).await[0].key, id("bob").key, "that one is new");
    running.stop().await;
}
