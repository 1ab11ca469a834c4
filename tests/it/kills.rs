//! Ten thousand kills at random steps, in virtual time: the real engine on a store and a server that outlive it.
//!
//! A history has many lives. Each is killed at a step drawn from its seed: before or after an operation of the store, before
//! a request, after it has left, after its answer has come. From that step on nothing of that life gets through to the store
//! or the server any more, and after a while, sometimes with a reboot between, the next one starts on what is there.
//!
//! `BURSAR_KILLS_SEED=…` lives one history again; `BURSAR_KILLS=…` is the number of kills for each mode.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bursar::audit::Audit;
use bursar::cache::TokenCache;
use bursar::clock::{BootId, Clock, Moment, Timestamp};
use bursar::entropy::{Entropy, SeededEntropy};
use bursar::metrics::Metrics;
use bursar::model::{
    EndReason, Failure, GrantId, GrantKey, Kind, Life as Lifetime, RoleName, Scope, Service, ServiceName,
    SpeaksFor, TokenKey, UserName,
};
use bursar::ready::Ready;
use bursar::refresh::plan::Recovery;
use bursar::refresh::setup::{ServerSetup, Setup};
use bursar::refresh::{Engine, Parts};
use bursar::secret::Secret;
use bursar::tasks::Tasks;
use tokio::time::Instant;

use crate::support::ALICE;
use crate::support::store::Hooked;
use crate::vending::join_all;
use life::{Life, Reach};
use server::Okta;
use store::Memory;

mod life;
mod server;
mod store;

const DEADLINE: Duration = Duration::from_secs(5);
const KILLS_PER_HISTORY: u64 = 50;
/// Between two lives: well inside the leeway, at its end, in the one after it, and whatever.
const PAUSES: [(Duration, Duration); 4] = [
    (Duration::ZERO, Duration::from_secs(3)),
    (Duration::from_secs(15), Duration::from_secs(30)),
    (Duration::from_secs(30), Duration::from_mins(1)),
    (Duration::ZERO, Duration::from_mins(2)),
];
const ROLES: [Option<&str>; 3] = [None, Some("ANALYST"), Some("LOADER")];

#[derive(Clone, Copy)]
struct Mode {
    rotating: bool,
    leeway: Duration,
}

/// The virtual clock of the machine; a reboot begins its boot clock anew.
#[derive(Clone)]
struct MachineClock(Arc<Mutex<(Instant, u128)>>, Instant);

impl MachineClock {
    fn reboot(&self, booted: Instant) {
        let mut boot = self.0.lock().unwrap();
        *boot = (booted, boot.1 + 1);
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Moment {
        let (booted, id) = *self.0.lock().unwrap();
        let boot_id = BootId::parse(&format!("{id:032x}")).unwrap();
        let wall = Timestamp::from_secs(1_800_000_000).plus(self.1.elapsed());
        Moment { wall, boot: booted.elapsed(), boot_id }
    }
}

struct History {
    seed: u64,
    mode: Mode,
    entropy: Arc<SeededEntropy>,
    okta: Arc<Okta>,
    store: Arc<Memory>,
    clock: MachineClock,
    metrics: Arc<Metrics>,
    /// When each life began, and whether the machine had been started anew before it.
    began: Mutex<Vec<(Timestamp, bool)>>,
    /// What the user has consented to, and whether it is a grant here.
    consented: Mutex<(Secret, bool)>,
    lost: AtomicU64,
}

impl History {
    fn new(seed: u64, mode: Mode) -> Arc<Self> {
        let entropy = Arc::new(SeededEntropy::new(seed));
        let okta = Okta::new(mode.rotating, mode.leeway, Arc::clone(&entropy));
        let (start, metrics) = (Instant::now(), Arc::new(Metrics::new().unwrap()));
        let clock = MachineClock(Arc::new(Mutex::new((start, 1))), start);
        let consented = Mutex::new((okta.consent(), false));
        let (store, began, lost) = (Arc::default(), Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { seed, mode, entropy, okta, store, clock, metrics, began, consented, lost })
    }

    fn service() -> Service {
        let role = |name: &str| (RoleName::parse(name).unwrap(), Scope::from_wire(name));
        Service {
            name: ServiceName::parse("warehouse").unwrap(),
            speaks_for: SpeaksFor::Users,
            authorization_server: "okta".into(),
            audience: "warehouse".into(),
            scopes: Scope::from_wire("PUBLIC"),
            roles: [role("ANALYST"), role("LOADER")].into(),
            user_claim: "sub".into(),
            opaque: true,
            kind: Kind::Generic,
            acr_values: None,
            max_age: None,
            password_grant: false,
        }
    }

    fn grant() -> GrantKey {
        GrantKey { service: Self::service().name, user: UserName::parse(ALICE).unwrap() }
    }

    fn token(role: Option<&str>) -> TokenKey {
        TokenKey { grant: Self::grant(), role: role.and_then(RoleName::parse) }
    }

    fn start(&self, life: &Arc<Life>, tasks: &Tasks) -> Engine {
        self.store.opened();
        let recovery = Recovery { leeway: self.mode.leeway, deadline: DEADLINE };
        let reach = Reach { okta: Arc::clone(&self.okta), life: Arc::clone(life) };
        let liveness = self.seed.is_multiple_of(2).then_some(Duration::from_mins(2));
        let server = ServerSetup { server: Arc::new(reach), recovery, requests_per_minute: 600, liveness };
        let service = Self::service();
        let setup = Setup {
            servers: HashMap::from([("okta".to_owned(), server)]),
            services: HashMap::from([(service.name.clone(), Arc::new(service))]),
            life: Lifetime {
                ahead_percent: 75,
                floor: Duration::from_secs(30),
                ceiling: Duration::from_mins(20),
                min_ttl: Duration::from_mins(1),
                idle_after: Duration::from_mins(20),
                keep_alive: Some(Duration::from_mins(30)),
            },
            lease: Duration::from_secs(10),
            warn_before: Duration::from_hours(72),
        };
        let parts = Parts {
            store: Arc::new(Hooked { inner: Arc::clone(&self.store) as _, hook: Arc::new(Arc::clone(life)) }),
            cache: TokenCache::default(),
            owner: "us".into(),
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::clone(&self.entropy) as _,
            tasks: tasks.clone(),
            ready: Ready::default(),
            metrics: Arc::clone(&self.metrics),
            audit: Audit::none(),
        };
        Engine::new(parts, setup)
    }

    /// Between 0 and 1.
    fn share(&self) -> f64 {
        f64::from(u32::try_from(self.entropy.below(1001)).unwrap()) / 1000.0
    }

    async fn live_through(self: &Arc<Self>) {
        for _ in 0..KILLS_PER_HISTORY {
            // Half of them die young, while they see to what the one before has left.
            let steps = if self.entropy.below(2) == 0 { 12..40 } else { 1..90 };
            self.live(steps.start + self.entropy.below(steps.end - steps.start)).await;
            let (least, most) = PAUSES[usize::try_from(self.entropy.below(4)).unwrap()];
            let pause = least + most.saturating_sub(least).mul_f64(self.share());
            let (rebooted, died) = (self.entropy.below(3) == 0, Instant::now());
            tokio::time::sleep(pause).await;
            if rebooted {
                self.clock.reboot(died + pause.mul_f64(self.share()));
            }
            self.began.lock().unwrap().push((self.clock.now().wall, rebooted));
        }
        // The last one is left alone: everything works in the end.
        let last = self.live(u64::MAX);
        tokio::time::timeout(Duration::from_hours(2), last).await.expect_err("it lives on");
    }

    /// One process, until its last step.
    async fn live(self: &Arc<Self>, last_step: u64) {
        let life = Life::new(last_step, Arc::clone(&self.entropy));
        let tasks = Tasks::new();
        let engine = self.start(&life, &tasks);
        tokio::select! {
            biased;
            () = life.killed.notified() => {}
            () = self.use_it(&engine) => {}
        }
        // What is left of it reaches nothing any more; this only spares the next ones its timers.
        tasks.stop();
        assert!(life.most_requests() <= 1, "one exchange of a grant at a time");
        assert_eq!(self.okta.violations(), Vec::<String>::new());
    }

    async fn use_it(&self, engine: &Engine) {
        engine.recover().await.unwrap();
        engine.look_after().await.unwrap();
        loop {
            self.connect(engine).await;
            let asked = 1 + usize::try_from(self.entropy.below(3)).unwrap();
            let by_force = self.entropy.below(2) == 0;
            let asks = ROLES.iter().cycle().skip(usize::try_from(self.entropy.below(3)).unwrap()).take(asked);
            join_all(asks.map(|role| self.ask(engine, *role, by_force))).await;
            let rest = if self.entropy.below(2) == 0 { 2_000 } else { 400_000 };
            tokio::time::sleep(Duration::from_millis(self.entropy.below(rest))).await;
        }
    }

    /// Until the user's consent is a grant here, if need be after asking for another consent.
    async fn connect(&self, engine: &Engine) {
        loop {
            let (token, is_here) = self.consented.lock().unwrap().clone();
            if is_here {
                return;
            }
            match engine.import(Self::grant(), token.clone()).await {
                Ok(_) => self.consented.lock().unwrap().1 = true,
                Err(failure) => {
                    self.judge(&failure, &token);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Until there is a token for the role, or the grant is lost.
    async fn ask(&self, engine: &Engine, role: Option<&str>, by_force: bool) {
        let (id, asked_at) = (GrantId::current(Self::grant()), Instant::now());
        loop {
            let key = Self::token(role);
            let result = if by_force { engine.refresh(&key).await } else { engine.token(&key, None).await };
            match result {
                Ok(token) => {
                    let scope = format!("{} offline_access", role.unwrap_or("PUBLIC"));
                    assert!(self.okta.honours(token.token(), &scope), "a token that lives, for {scope}");
                    assert!(self.store.version(&id) >= Some(token.version), "durable before visible");
                    return;
                }
                Err(failure) => {
                    let newest = self.store.refresh_token(&id).expect("there is a grant");
                    if self.judge(&failure, &newest) {
                        return;
                    }
                    assert!(asked_at.elapsed() < Duration::from_mins(5), "never answered: {failure:?}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Whether the grant is over, which it may only be if the model says that it could not be helped.
    fn judge(&self, failure: &Failure, newest: &Secret) -> bool {
        if matches!(failure, Failure::ServerUnavailable { .. }) {
            return false;
        }
        let Failure::LoginRequired { reason: EndReason::Lost, since: Some(since) } = failure else {
            panic!("{failure:?}");
        };
        let retired = self.okta.retired_for(newest.expose());
        let retired = retired.unwrap_or_else(|| panic!("it was not used up, and ended as lost"));
        assert!(retired >= self.mode.leeway, "{retired:?} after it was used up it was still good");
        let used_up_at = self.clock.now().wall.minus(retired);
        // Which process found that, and did one have the time to present the token again inside the leeway?
        let began = self.began.lock().unwrap().clone();
        let up_at = began.iter().rev().find(|(began, _)| began <= since).map(|(began, _)| *began);
        let in_time = up_at.is_none_or(|up_at| up_at < used_up_at.plus(Duration::from_secs(10)));
        let rebooted = began.iter().any(|(began, rebooted)| *rebooted && *began > used_up_at);
        assert!(self.mode.leeway.is_zero() || rebooted || !in_time, "it could have been recovered");
        self.lost.fetch_add(1, Ordering::Relaxed);
        // The user consents anew.
        *self.consented.lock().unwrap() = (self.okta.consent(), false);
        true
    }
}

/// Names the history that failed.
struct Failed(u64);

impl Drop for Failed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again: BURSAR_KILLS_SEED={}", self.0);
        }
    }
}

fn kill(mode: Mode, kills: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let only = number("BURSAR_KILLS_SEED");
    let histories = number("BURSAR_KILLS").unwrap_or(kills).div_ceil(KILLS_PER_HISTORY);
    let (mut exchanges, mut replays, mut lost) = (0, 0, 0);
    for seed in only.map_or(1..histories + 1, |seed| seed..seed + 1) {
        let _name = Failed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let history = History::new(seed, mode);
            history.live_through().await;
            let (more, replayed) = history.okta.counts();
            (exchanges, replays) = (exchanges + more, replays + replayed);
            lost += history.lost.load(Ordering::Relaxed);
        });
    }
    eprintln!("{exchanges} exchanges, {replays} replays inside the leeway, {lost} grants lost");
    assert!(only.is_some() || exchanges > kills, "the kills hit exchanges");
    assert_eq!(replays > 0, mode.rotating && !mode.leeway.is_zero(), "replays only where there is a leeway");
    assert!(mode.rotating || lost == 0, "a persistent token is never lost");
}

#[test]
fn four_thousand_kills_end_no_grant_that_the_leeway_could_save() {
    kill(Mode { rotating: true, leeway: Duration::from_secs(30) }, 4000);
}

#[test]
fn three_thousand_kills_without_a_leeway_lose_only_what_was_used_up_and_present_nothing_twice() {
    kill(Mode { rotating: true, leeway: Duration::ZERO }, 3000);
}

#[test]
fn two_thousand_kills_cost_no_persistent_grant() {
    kill(Mode { rotating: false, leeway: Duration::from_secs(30) }, 2000);
}

#[test]
fn a_thousand_kills_cost_no_persistent_grant_without_a_leeway() {
    kill(Mode { rotating: false, leeway: Duration::ZERO }, 1000);
}
