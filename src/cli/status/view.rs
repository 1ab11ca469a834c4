//! What the sidecar says of itself as text: plain functions, no colour, nothing wider than it is told.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::cli::status::table::{Column, cut, table};
use crate::cli::terminal::printable;

/// Columns that a line takes at least, however narrow the terminal.
const NARROWEST: usize = 40;
/// How long a bar is.
const BAR: usize = 10;

/// The whole answer, what matters most first.
pub(super) fn glance(status: &Value, width: usize) -> String {
    let width = width.max(NARROWEST);
    let parts = [
        headline(status),
        servers(status, width),
        grants(status, width),
        warnings(status),
        counts(status),
        next_refreshes(status, width),
    ];
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let lines: Vec<String> = parts.join("\n").lines().map(|line| cut(line, width)).collect();
    lines.join("\n") + "\n"
}

/// Version, age, and whether it is ready.
fn headline(status: &Value) -> String {
    let waiting: Vec<&str> = list(status, "waiting_for").filter_map(Value::as_str).collect();
    let ready = if waiting.is_empty() {
        "ready".to_owned()
    } else {
        format!("waiting for {}", printable(&waiting.join(", ")))
    };
    let up = time(number(status, "uptime_seconds"));
    format!("bursar {}, up {up}, {ready}\n", text(status, "version"))
}

/// Each authorization server: whether it may be asked, and how much of its budget the last minute took.
fn servers(status: &Value, width: usize) -> String {
    let row = |server: &Value| {
        let state = match server.get("waiting_seconds").and_then(Value::as_u64) {
            Some(seconds) => format!("waiting {}: {}", time(seconds), text(server, "why")),
            None => text(server, "state").into_owned(),
        };
        let per_minute = number(server, "requests_per_minute");
        let used = server.get("budget_used").and_then(Value::as_f64).unwrap_or(0.0);
        vec![text(server, "name").into_owned(), state, budget(used, per_minute)]
    };
    let rows: Vec<Vec<String>> = list(status, "authorization_servers").map(row).collect();
    let columns = [Column::text("AUTHORIZATION SERVER"), Column::text("STATE"), Column::whole("BUDGET")];
    table(&columns, &rows, width)
}

/// `[##        ] 123/600 a minute 20%`
fn budget(used: f64, per_minute: u64) -> String {
    let requests = share(used, per_minute);
    let percent = (requests * 100).checked_div(per_minute).unwrap_or(0);
    // What there is of it is seen, be it ever so little.
    let filled =
        usize::try_from(share(used.min(1.0), BAR as u64)).unwrap_or(BAR).max(usize::from(requests > 0));
    format!("[{:BAR$}] {requests}/{per_minute} a minute {percent}%", "#".repeat(filled))
}

/// So much of `whole`, to the next whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of some hundreds that is shown, and is not negative"
)]
fn share(used: f64, whole: u64) -> u64 {
    (used.max(0.0) * whole as f64).round() as u64
}

/// Grants by service and state.
fn grants(status: &Value, width: usize) -> String {
    let services = status.get("grants").and_then(Value::as_object);
    let services: Vec<(&String, &Value)> = services.into_iter().flatten().collect();
    let ended: BTreeSet<&str> =
        services.iter().flat_map(|(_, states)| states_of(states)).map(|(state, _)| state).collect();
    let states: Vec<&str> =
        std::iter::once("active").chain(ended.into_iter().filter(|state| *state != "active")).collect();
    let row = |(service, counts): &(&String, &Value)| {
        let counts = states.iter().map(|state| match number(counts, state) {
            0 => "-".to_owned(),
            count => count.to_string(),
        });
        std::iter::once((*service).clone()).chain(counts).collect()
    };
    let rows: Vec<Vec<String>> = services.iter().map(row).collect();
    let names: Vec<String> = states.iter().map(|state| state.to_uppercase()).collect();
    let numbers = names.iter().map(|name| Column::number(name));
    let columns: Vec<Column<'_>> = std::iter::once(Column::text("GRANTS OF")).chain(numbers).collect();
    table(&columns, &rows, width)
}

fn states_of(states: &Value) -> impl Iterator<Item = (&str, u64)> {
    let states = states.as_object().into_iter().flatten();
    states.map(|(state, count)| (state.as_str(), count.as_u64().unwrap_or(0)))
}

/// What somebody should do something about.
fn warnings(status: &Value) -> String {
    let mut out = String::new();
    let services = status.get("grants").and_then(Value::as_object).into_iter().flatten();
    let ended: Vec<(&str, u64)> = services
        .flat_map(|(_, states)| states_of(states))
        .filter(|(state, count)| *state != "active" && *count > 0)
        .collect();
    let states: BTreeSet<&str> = ended.iter().map(|(state, _)| *state).collect();
    for state in states {
        let count: u64 = ended.iter().filter(|(other, _)| *other == state).map(|(_, count)| count).sum();
        let state = printable(state);
        let noun = if count == 1 { "grant" } else { "grants" };
        out.push_str(&format!("needs you: {count} {noun} {state}: bursar grant list --state {state}\n"));
    }
    if audit(status).is_some_and(|log| log.get("failing").and_then(Value::as_bool).unwrap_or(false)) {
        out.push_str("needs you: the audit log can't be written\n");
    }
    let old_rows = number(status, "rows_sealed_with_old_keys");
    if old_rows > 0 {
        out.push_str(&format!(
            "sealed with an older key, to be sealed anew by `bursar key rotate`: {old_rows}\n"
        ));
    }
    let revocations = number(status, "waiting_to_be_revoked");
    if revocations > 0 {
        out.push_str(&format!("waiting to be revoked at their authorization server: {revocations}\n"));
    }
    out
}

fn counts(status: &Value) -> String {
    let mut out = format!(
        "access tokens: {} cached, {} in use\n",
        number(status, "access_tokens_cached"),
        number(status, "tokens_in_use")
    );
    if let Some(log) = audit(status) {
        let failing = log.get("failing").and_then(Value::as_bool).unwrap_or(false);
        let state =
            if failing { "CAN'T BE WRITTEN".to_owned() } else { format!("line {}", number(log, "seq")) };
        out.push_str(&format!("audit log {}: {state}\n", text(log, "file")));
    }
    out
}

fn audit(status: &Value) -> Option<&Value> {
    status.get("audit").filter(|audit| audit.is_object())
}

/// The tokens whose time comes next, if they are still in use then.
fn next_refreshes(status: &Value, width: usize) -> String {
    let row = |refresh: &Value| {
        let due = match number(refresh, "due_in_seconds") {
            0 => "now".to_owned(),
            seconds => format!("in {}", time(seconds)),
        };
        let name = |member| text(refresh, member).into_owned();
        vec![due, name("service"), name("user"), name("role")]
    };
    let rows: Vec<Vec<String>> = list(status, "next_refreshes").map(row).collect();
    let columns =
        [Column::whole("NEXT REFRESH"), Column::text("SERVICE"), Column::text("USER"), Column::text("ROLE")];
    table(&columns, &rows, width)
}

/// The two largest units of it.
fn time(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let parts: Vec<String> = units
        .iter()
        .filter_map(|(size, unit)| {
            let count = left / size;
            left %= size;
            (count > 0).then(|| format!("{count}{unit}"))
        })
        .take(2)
        .collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

fn text<'a>(of: &'a Value, member: &str) -> Cow<'a, str> {
    printable(of.get(member).and_then(Value::as_str).unwrap_or("-"))
}

fn number(of: &Value, member: &str) -> u64 {
    of.get(member).and_then(Value::as_u64).unwrap_or(0)
}

fn list<'a>(of: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    of.get(member).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests;
