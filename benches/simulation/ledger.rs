//! What happened, counted the same way for everybody who answers requests.

use crate::day::{At, HOUR, MINUTE};

/// How long an access token lives.
pub(crate) const LIFE: At = HOUR;
/// Who asked within this time has its token in use.
pub(crate) const IDLE_AFTER: At = 2 * HOUR;
/// No token is replaced before this much of its life is over, in percent.
const AHEAD_PERCENT: u64 = 75;
/// Between falling due and reaching the server, a second role's turn included.
const UNDER_WAY: At = MINUTE;

/// One token key's story so far.
#[derive(Clone, Copy, Default)]
struct Key {
    asked: Option<At>,
    /// The time before.
    asked_before: Option<At>,
    issued: Option<At>,
    /// Somebody has had the token that was issued last.
    had: bool,
}

/// The counts.
pub(crate) struct Ledger {
    from: At,
    keys: Vec<Key>,
    /// Requests that reached the server's token endpoint in each minute.
    pub(crate) minutes: Vec<u32>,
    /// Of default scopes, of second roles: requests to the server.
    pub(crate) exchanges: [u64; 2],
    /// The lifetimes in use that these fetched: the first token of a key that is asked for, and each successor of one that is
    /// due while the key is in use. What is fetched before it is due, or for a key that nobody asked for, is none.
    pub(crate) lifetimes: [u64; 2],
    /// Tokens that were replaced or died without anybody having had them.
    pub(crate) never_had: u64,
    pub(crate) requests: u64,
    /// Those that waited for the server.
    pub(crate) waits: u64,
    /// Of them, those for a token in use.
    pub(crate) waits_in_use: u64,
    /// Those whose token was not in the cache, but in the store.
    pub(crate) recalls: u64,
    pub(crate) limited: u64,
    pub(crate) errors: Vec<Error>,
    /// Refresh tokens that were presented after they had been replaced.
    pub(crate) reused: u64,
    /// Requests that did not reach the server.
    pub(crate) in_vain: u64,
    /// From due to the request to the server, in milliseconds.
    pub(crate) lateness: Vec<u32>,
}

/// A caller that got none.
#[derive(Clone, Copy)]
pub(crate) struct Error {
    pub(crate) at: At,
    /// When the key's newest token ends, if there ever was one.
    pub(crate) token_ends: Option<At>,
    /// What it was told, as the metrics call it.
    pub(crate) word: &'static str,
}

impl Ledger {
    pub(crate) fn new(users: usize, from: At, until: At) -> Self {
        let minutes = usize::try_from((until - from).div_ceil(MINUTE)).unwrap_or(0);
        Self {
            from,
            keys: vec![Key::default(); users * 2],
            minutes: vec![0; minutes],
            exchanges: [0; 2],
            lifetimes: [0; 2],
            never_had: 0,
            requests: 0,
            waits: 0,
            waits_in_use: 0,
            recalls: 0,
            limited: 0,
            errors: Vec::new(),
            reused: 0,
            in_vain: 0,
            lateness: Vec::new(),
        }
    }

    /// Somebody asks. Answers whether the token was in use already.
    pub(crate) fn asked(&mut self, at: At, key: usize) -> bool {
        self.requests += 1;
        let Some(key) = self.keys.get_mut(key) else { return false };
        let in_use = key.asked.is_some_and(|asked| at - asked <= IDLE_AFTER);
        (key.asked_before, key.asked) = (key.asked, Some(at));
        in_use
    }

    /// Whether the key was in use at `due`, which is not long ago; who came later only brought it back.
    pub(crate) fn was_in_use(&self, key: usize, due: At) -> bool {
        let Some(key) = self.keys.get(key) else { return false };
        let last = if key.asked.is_some_and(|asked| asked <= due) { key.asked } else { key.asked_before };
        last.is_some_and(|asked| asked + IDLE_AFTER >= due)
    }

    /// Somebody has got a token.
    pub(crate) fn had(&mut self, key: usize) {
        if let Some(key) = self.keys.get_mut(key) {
            key.had = true;
        }
    }

    /// Somebody who asked was not answered at once.
    pub(crate) fn waits(&mut self, in_use: bool) {
        self.waits += 1;
        self.waits_in_use += u64::from(in_use);
    }

    pub(crate) fn failed(&mut self, at: At, key: usize, word: &'static str) {
        let token_ends = self.issued_at(key).map(|issued| issued + LIFE);
        self.errors.push(Error { at, token_ends, word });
    }

    /// The server is asked.
    pub(crate) fn exchange(&mut self, at: At, key: usize) {
        let minute = usize::try_from((at - self.from) / MINUTE).unwrap_or(usize::MAX);
        if let Some(count) = self.minutes.get_mut(minute) {
            *count += 1;
            self.exchanges[key % 2] += 1;
        }
    }

    /// The server has given a token; its life counts from `at`.
    pub(crate) fn issued(&mut self, at: At, number: usize) {
        let Some(key) = self.keys.get_mut(number) else { return };
        let in_use = key.asked.is_some_and(|asked| at - asked <= IDLE_AFTER + UNDER_WAY);
        let due = key.issued.is_none_or(|issued| at - issued >= LIFE * AHEAD_PERCENT / 100);
        self.lifetimes[number % 2] += u64::from(in_use && due);
        self.never_had += u64::from(key.issued.is_some() && !key.had);
        (key.issued, key.had) = (Some(at), false);
    }

    pub(crate) fn issued_at(&self, key: usize) -> Option<At> {
        self.keys.get(key).and_then(|key| key.issued)
    }

    /// Requests to the server for each lifetime in use, of default scopes or second roles.
    pub(crate) fn per_lifetime(&self, role: usize) -> f64 {
        ratio(self.exchanges[role & 1], self.lifetimes[role & 1])
    }

    /// Minutes from `first` on, each with its count and the mean of the hour around it.
    pub(crate) fn around(&self, first: usize) -> impl Iterator<Item = (usize, u32, f64)> {
        let settled = self.minutes.get(first..).unwrap_or_default();
        settled.iter().enumerate().map(move |(index, count)| {
            let around = settled.get(index.saturating_sub(30)..(index + 31).min(settled.len()));
            let around = around.unwrap_or_default();
            let sum: u64 = around.iter().map(|count| u64::from(*count)).sum();
            (first + index, *count, ratio(sum, around.len() as u64))
        })
    }

    /// The minute that stands out most from the hour around it, and how far.
    pub(crate) fn steepest(&self, first: usize) -> (usize, u32, f64) {
        let ratios = self.around(first).map(|(minute, count, mean)| (minute, count, f64::from(count) / mean));
        ratios
            .filter(|(.., ratio)| ratio.is_finite())
            .max_by(|one, other| one.2.total_cmp(&other.2))
            .unwrap_or_default()
    }

    pub(crate) fn peak(&self) -> u32 {
        self.minutes.iter().copied().max().unwrap_or_default()
    }

    pub(crate) fn mean(&self) -> f64 {
        ratio(self.minutes.iter().map(|count| u64::from(*count)).sum(), self.minutes.len() as u64)
    }
}

pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
