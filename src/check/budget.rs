//! Is `requests_per_minute` enough for the grants that there are? By the arithmetic of the engine's own start.

use std::collections::BTreeMap;
use std::time::Duration;

use humantime::format_duration;

use crate::check::Step;
use crate::check::store::Found;
use crate::model::Life;
use crate::settings::Settings;

/// Okta's default, where no token was seen.
const USUAL_LIFE: Duration = Duration::from_hours(1);

/// What a server is given: requests in a minute, and how often each grant in use is asked about.
type Limits = BTreeMap<String, (u32, Option<Duration>)>;

/// How many tokens there are: at least one of each grant, at most one for the default scopes and each role.
#[derive(Clone, Copy, Debug, Default)]
struct Tokens {
    grants: u64,
    most: u64,
}

pub(super) fn look(
    limits: &Limits,
    settings: &Settings,
    found: &Found,
    lives: &BTreeMap<String, Duration>,
) -> Vec<Step> {
    let judge = |(name, limits): (&String, &(u32, Option<Duration>))| {
        let subject = format!("authorization_servers.{name}.requests_per_minute");
        let Some(counts) = &found.grants else {
            return Step::untold("budget", subject, "how many grants there are can't be told");
        };
        let mut tokens = Tokens::default();
        for service in settings.services.iter().filter(|service| service.authorization_server == *name) {
            let grants = counts.get(service.name.as_str()).copied().unwrap_or(0);
            let each = u64::try_from(service.roles.len()).unwrap_or(u64::MAX).saturating_add(1);
            tokens.grants = tokens.grants.saturating_add(grants);
            tokens.most = tokens.most.saturating_add(grants.saturating_mul(each));
        }
        judge(subject, tokens, *limits, &settings.life, lives.get(name).copied())
    };
    limits.iter().map(judge).collect()
}

fn judge(
    subject: String,
    Tokens { grants, most }: Tokens,
    (per_minute, liveness): (u32, Option<Duration>),
    terms: &Life,
    life: Option<Duration>,
) -> Step {
    let every = terms.refresh_after(life.unwrap_or(USUAL_LIFE), 500);
    let in_a_minute =
        |count: u64, every: Duration| (u128::from(count) * 60_000).div_ceil(every.as_millis().max(1));
    // Whether a grant lives is asked once, however many tokens came of it.
    let questions = liveness.map_or(0, |every| in_a_minute(grants, every));
    let (least, most_needed) = (in_a_minute(grants, every) + questions, in_a_minute(most, every) + questions);
    // The rest is for callers who wait.
    let has = u128::from(per_minute) * 8 / 10;
    let assumed = if life.is_some() { "" } else { ", if tokens live for an hour" };
    let needed = if least == most_needed { least.to_string() } else { format!("{least} to {most_needed}") };
    let tokens = if grants == most { String::new() } else { format!(" with up to {most} tokens, by role") };
    let arithmetic = format!(
        "grants: {grants}{tokens}; if all are in use, each token is refreshed every {}{assumed}: {needed} requests a minute, \
         of {per_minute}",
        format_duration(Duration::from_secs(every.as_secs()))
    );
    if most_needed <= has {
        return Step::good("budget", subject, arithmetic);
    }
    let remedy = format!(
        "raise requests_per_minute above {}, as far as Okta's Reports > Rate limits allows this client; or have tokens live \
         longer: Security > API > the authorization server > Access Policies > the rule > Access token lifetime",
        most_needed * 10 / 8
    );
    let message = format!("{arithmetic}, less a fifth for callers who wait");
    if least <= has {
        let remedy = format!("if users ask for many roles at once: {remedy}");
        return Step::doubtful("budget", subject, message, remedy);
    }
    Step::bad("budget", subject, message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    const TERMS: Life = Life {
        ahead_percent: 75,
        floor: Duration::from_mins(1),
        ceiling: Duration::from_mins(10),
        min_ttl: Duration::from_mins(1),
        idle_after: Duration::from_hours(1),
        keep_alive: None,
    };

    fn verdict(grants: u64, most: u64, per_minute: u32, life: Option<Duration>) -> Verdict {
        judge(String::new(), Tokens { grants, most }, (per_minute, None), &TERMS, life).verdict
    }

    #[test]
    fn each_role_may_be_a_token_and_is_a_doubt_where_only_all_of_them_do_not_fit() {
        let life = Some(Duration::from_mins(5));
        assert_eq!(verdict(10, 10, 60, life), Verdict::Good);
        assert_eq!(verdict(10, 1000, 60, life), Verdict::Doubtful);
        assert_eq!(verdict(1000, 1000, 60, life), Verdict::Bad);
        assert_eq!(verdict(1000, 1000, 60, None), Verdict::Good, "an hour is enough");
    }
}
