use super::*;
use crate::clock::{Clock as _, ManualClock};

const LEEWAY: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_mins(10);

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

struct Scene {
    clock: ManualClock,
    families: Families,
    id: FamilyId,
}

impl Scene {
    /// One family with the refresh token `first`, that ends an hour after the login.
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let mut families = Families::default();
        let at = clock.now();
        let id = families.open(Login {
            server: "here".into(),
            user: "alice".into(),
            scopes: vec!["offline_access".into()],
            at,
            acr: None,
            expires: Some(at.wall.plus(Duration::from_hours(1))),
        });
        families.add_token(id, secret("first"), at);
        Self { clock, families, id }
    }

    fn add(&mut self, token: &str) {
        self.families.add_token(self.id, secret(token), self.clock.now());
    }

    fn judge(&self, token: &str) -> Verdict {
        self.families.judge("here", &secret(token), &self.clock.now(), LEEWAY, IDLE)
    }
}

#[test]
fn a_retired_token_counts_until_the_leeway_is_over() {
    let mut scene = Scene::new();
    scene.add("second");
    scene.clock.advance(Duration::from_millis(29_999));
    assert_eq!(scene.judge("first"), Verdict::Good(scene.id));
    scene.clock.advance(Duration::from_millis(1));
    assert_eq!(scene.judge("first"), Verdict::Reused(scene.id));
    assert_eq!(scene.judge("second"), Verdict::Good(scene.id));
}

#[test]
fn without_leeway_a_retired_token_is_reuse_at_once() {
    let mut scene = Scene::new();
    scene.add("second");
    let verdict = scene.families.judge("here", &secret("first"), &scene.clock.now(), Duration::ZERO, IDLE);
    assert_eq!(verdict, Verdict::Reused(scene.id));
}

#[test]
fn a_further_token_retires_the_newest_and_not_the_older_ones_again() {
    let mut scene = Scene::new();
    scene.add("second");
    scene.clock.advance(Duration::from_secs(20));
    scene.add("third");
    scene.clock.advance(Duration::from_secs(15));
    assert_eq!(scene.judge("first"), Verdict::Reused(scene.id));
    assert_eq!(scene.judge("second"), Verdict::Good(scene.id));
}

#[test]
fn setting_the_wall_clock_changes_no_leeway_and_a_reboot_falls_back_to_it() {
    let mut scene = Scene::new();
    scene.add("second");
    scene.clock.set_wall(Timestamp::from_secs(1_800_000_900));
    assert_eq!(scene.judge("first"), Verdict::Good(scene.id));
    scene.clock.set_wall(Timestamp::from_secs(1_800_000_031));
    scene.clock.reboot();
    assert_eq!(scene.judge("first"), Verdict::Reused(scene.id));
}

#[test]
fn a_family_dies_of_idleness_of_its_age_and_of_being_ended() {
    let mut scene = Scene::new();
    scene.clock.advance(IDLE);
    assert_eq!(scene.judge("first"), Verdict::Dead);

    let mut used = Scene::new();
    for _ in 0..7 {
        used.clock.advance(Duration::from_mins(9));
        used.families.touch(used.id, used.clock.now());
    }
    assert_eq!(used.judge("first"), Verdict::Dead, "63 minutes after the login");

    scene = Scene::new();
    assert_eq!(scene.families.end(scene.id).unwrap().user, "alice");
    assert!(scene.families.end(scene.id).is_none(), "it ends once");
    assert_eq!(scene.judge("first"), Verdict::Dead);
    assert!(scene.families.of_user("alice").is_empty());
}

#[test]
fn another_servers_token_is_dead_and_does_no_harm() {
    let mut scene = Scene::new();
    scene.add("second");
    scene.clock.advance(LEEWAY);
    let verdict = scene.families.judge("there", &secret("first"), &scene.clock.now(), LEEWAY, IDLE);
    assert_eq!(verdict, Verdict::Dead);
}
