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

pub(super) fn look(limits: &Limits, settings: &Settings, found: &Found, life: Option<Duration>) -> Vec<Step> {
    let judge = |(name, (per_minute, liveness)): (&String, &(u32, Option<Duration>))| {
        let subject = format!("authorization_servers.{name}.requests_per_minute");
        let Some(counts) = &found.grants else {
            return Step::untold("budget", subject, "how many grants there are can't be told");
        };
        let of_this = settings.services.iter().filter(|service| service.authorization_server == *name);
        let grants = of_this.filter_map(|service| counts.get(service.name.as_str())).sum();
        judge(subject, grants, (*per_minute, *liveness), &settings.life, life)
    };
    limits.iter().map(judge).collect()
}

fn judge(
    subject: String,
    grants: u64,
    (per_minute, liveness): (u32, Option<Duration>),
    terms: &Life,
    life: Option<Duration>,
) -> Step {
    let every = terms.refresh_after(life.unwrap_or(USUAL_LIFE), 500);
    let in_a_minute = |every: Duration| (u128::from(grants) * 60_000).div_ceil(every.as_millis().max(1));
    let needed = in_a_minute(every) + liveness.map_or(0, in_a_minute);
    // The rest is for callers who wait.
    let has = u128::from(per_minute) * 8 / 10;
    let assumed = if life.is_some() { "" } else { ", if tokens live for an hour" };
    let arithmetic = format!(
        "grants: {grants}; if all are in use, each is refreshed every {}{assumed}: {needed} requests a minute, of {per_minute}",
        format_duration(Duration::from_secs(every.as_secs()))
    );
    if needed <= has {
        return Step::good("budget", subject, arithmetic);
    }
    let remedy = format!(
        "raise requests_per_minute above {}, as far as Okta's Reports > Rate limits allows this client; or have tokens live \
         longer: Security > API > the authorization server > Access Policies > the rule > Access token lifetime",
        needed * 10 / 8
    );
    Step::bad("budget", subject, format!("{arithmetic}, less a fifth for callers who wait"), remedy)
}
