//! A strict authorization server in virtual time: a refresh token that was rotated away is good for the leeway after that,
//! and one that comes later is a replay, after which everything of its login is dead.
//!
//! Whoever sends a request may be killed right after: it arrives all the same, at most a deadline later, and in the order in
//! which requests were sent. Answers get lost, but never two in a row, so that a test can say what must be recovered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bursar::authorization_server::{Exchange, Introspection, Refusal, Tokens};
use bursar::entropy::{Entropy as _, SeededEntropy};
use bursar::model::Scope;
use bursar::secret::Secret;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(super) const TOKEN_LIFETIME: Duration = Duration::from_mins(5);

pub(super) struct Okta {
    rotating: bool,
    leeway: Duration,
    entropy: Arc<SeededEntropy>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    refresh_tokens: HashMap<String, RefreshToken>,
    access_tokens: HashMap<String, (Instant, String)>,
    /// The newest refresh token of each login.
    newest: Vec<String>,
    made: u64,
    lost_the_last: bool,
    last_arrival: Option<Instant>,
    exchanges: u64,
    replays_in_time: u64,
    violations: Vec<String>,
}

struct RefreshToken {
    login: usize,
    retired: Option<Instant>,
}

/// What becomes of a request and its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Good,
    CutBefore,
    CutAfter,
    Slow,
}

impl Okta {
    pub(super) fn new(rotating: bool, leeway: Duration, entropy: Arc<SeededEntropy>) -> Arc<Self> {
        Arc::new(Self { rotating, leeway, entropy, state: Mutex::default() })
    }

    /// The refresh token of a new login.
    pub(super) fn consent(&self) -> Secret {
        let mut state = self.state.lock().unwrap();
        let login = state.newest.len();
        let token = state.new_token(login);
        state.newest.push(token.clone());
        Secret::new(token)
    }

    /// One that arrives, whatever becomes of the sender.
    pub(super) fn refresh(
        self: &Arc<Self>,
        token: &Secret,
        scope: &Scope,
        deadline: Duration,
    ) -> oneshot::Receiver<Exchange> {
        let (this, token, scope) = (Arc::clone(self), token.expose().to_owned(), scope.to_string());
        self.send(deadline, move || this.exchange(&token, &scope))
    }

    pub(super) fn introspect(
        self: &Arc<Self>,
        token: &Secret,
        deadline: Duration,
    ) -> oneshot::Receiver<Introspection> {
        let (this, token) = (Arc::clone(self), token.expose().to_owned());
        self.send(deadline, move || match this.retired_for(&token) {
            Some(age) if age >= this.leeway => Introspection::Inactive,
            _ => Introspection::Active { expires_at: None, scope: None },
        })
    }

    fn send<T: Send + 'static>(
        &self,
        deadline: Duration,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let wire = self.wire();
        let (answer, answered) = oneshot::channel();
        let most = if wire == Wire::Slow { deadline } else { Duration::from_millis(100) };
        let arrival = {
            let mut state = self.state.lock().unwrap();
            let arrival =
                (Instant::now() + self.up_to(most)).max(state.last_arrival.unwrap_or_else(Instant::now));
            state.last_arrival = Some(arrival);
            arrival
        };
        let back = self.up_to(most);
        tokio::spawn(async move {
            if wire == Wire::CutBefore {
                return;
            }
            tokio::time::sleep_until(arrival).await;
            let result = act();
            tokio::time::sleep(back).await;
            if wire != Wire::CutAfter {
                let _sender_lives = answer.send(result);
            }
        });
        answered
    }

    fn wire(&self) -> Wire {
        let mut state = self.state.lock().unwrap();
        let wire = match self.entropy.below(24) {
            _ if state.lost_the_last => Wire::Good,
            0 => Wire::CutBefore,
            1 => Wire::CutAfter,
            2 => Wire::Slow,
            _ => Wire::Good,
        };
        state.lost_the_last = wire != Wire::Good;
        wire
    }

    fn up_to(&self, most: Duration) -> Duration {
        Duration::from_millis(self.entropy.below(u64::try_from(most.as_millis()).unwrap() + 1))
    }

    fn exchange(&self, token: &str, scope: &str) -> Exchange {
        let age = self.retired_for(token);
        let mut state = self.state.lock().unwrap();
        state.exchanges += 1;
        if let Some(age) = age {
            if age >= self.leeway {
                state.violations.push(format!("{token} came {age:?} after it was rotated away"));
                return Exchange::Refused(Refusal::InvalidGrant);
            }
            state.replays_in_time += 1;
        }
        let login = state.refresh_tokens[token].login;
        let newest = if self.rotating { state.rotate(login) } else { token.to_owned() };
        state.made += 1;
        let access_token = format!("access-{}", state.made);
        state.access_tokens.insert(access_token.clone(), (Instant::now(), scope.to_owned()));
        Exchange::Answered(Box::new(Tokens {
            access_token: Secret::new(access_token),
            token_type: "Bearer".to_owned(),
            expires_in: TOKEN_LIFETIME,
            refresh_token: Some(Secret::new(newest)),
            scope: None,
            id_token: None,
        }))
    }

    /// How long ago a refresh token was rotated away, if it was.
    pub(super) fn retired_for(&self, token: &str) -> Option<Duration> {
        let state = self.state.lock().unwrap();
        state.refresh_tokens[token].retired.map(|retired| Instant::now() - retired)
    }

    /// Whether an access token lives, and is for `scope`.
    pub(super) fn honours(&self, token: &Secret, scope: &str) -> bool {
        let state = self.state.lock().unwrap();
        let known = state.access_tokens.get(token.expose());
        known.is_some_and(|(issued, of)| issued.elapsed() < TOKEN_LIFETIME && of == scope)
    }

    /// What was done to it that must never be.
    pub(super) fn violations(&self) -> Vec<String> {
        self.state.lock().unwrap().violations.clone()
    }

    /// Exchanges, and how many of them were replays inside the leeway.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.exchanges, state.replays_in_time)
    }
}

impl State {
    fn new_token(&mut self, login: usize) -> String {
        self.made += 1;
        let token = format!("refresh-{}", self.made);
        self.refresh_tokens.insert(token.clone(), RefreshToken { login, retired: None });
        token
    }

    /// The newest one is retired, whichever was presented.
    fn rotate(&mut self, login: usize) -> String {
        let token = self.new_token(login);
        let before = std::mem::replace(&mut self.newest[login], token.clone());
        self.refresh_tokens.get_mut(&before).unwrap().retired = Some(Instant::now());
        token
    }
}
