//! `bursar status`

use std::path::Path;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::cli::{Exit, client, terminal};

pub(super) async fn status(socket: &Path, as_json: bool) -> Exit {
    match client::ask(socket, Method::GET, "/v1/status", None).await {
        Ok(status) if as_json => terminal::out(&format!("{status}\n")),
        Ok(status) => terminal::out(&glance(&status)),
        Err(refused) => return refused.exit,
    }
    Exit::Done
}

fn glance(status: &Value) -> String {
    let text = |of: &Value, member: &str| of.get(member).and_then(Value::as_str).unwrap_or("-").to_owned();
    let number = |of: &Value, member: &str| of.get(member).and_then(Value::as_u64).unwrap_or(0);
    let list = |member: &str| status.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
    let time = |seconds: u64| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let waiting: Vec<String> =
        list("waiting_for").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let ready =
        if waiting.is_empty() { "ready".to_owned() } else { format!("waiting for {}", waiting.join(", ")) };
    let mut out = format!(
        "bursar {}, up {}, {ready}\n\n",
        text(status, "version"),
        time(number(status, "uptime_seconds"))
    );
    for server in list("authorization_servers") {
        let state = match server.get("waiting_seconds").and_then(Value::as_u64) {
            Some(seconds) => format!("{}: asked again in {}", text(&server, "why"), time(seconds)),
            None => text(&server, "state"),
        };
        let used = server.get("budget_used").and_then(Value::as_f64).unwrap_or(0.0) * 100.0;
        out.push_str(&format!(
            "authorization server {}: {state}, {used:.0} % of {} requests a minute\n",
            text(&server, "name"),
            number(&server, "requests_per_minute"),
        ));
    }
    for (service, states) in status.get("grants").and_then(Value::as_object).into_iter().flatten() {
        let states: Vec<String> = states
            .as_object()
            .into_iter()
            .flatten()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        out.push_str(&format!("grants of {service}: {}\n", states.join(", ")));
    }
    out.push_str(&format!(
        "access tokens in memory: {}, looked after: {}\n",
        number(status, "access_tokens_cached"),
        number(status, "tokens_in_use")
    ));
    let revocations = number(status, "waiting_to_be_revoked");
    if revocations > 0 {
        out.push_str(&format!("waiting to be revoked at their authorization server: {revocations}\n"));
    }
    if let Some(audit) = status.get("audit").filter(|audit| audit.is_object()) {
        let failing = audit.get("failing").and_then(Value::as_bool).unwrap_or(false);
        let state =
            if failing { "CAN'T BE WRITTEN".to_owned() } else { format!("line {}", number(audit, "seq")) };
        out.push_str(&format!("audit log {}: {state}\n", text(audit, "file")));
    }
    let old_rows = number(status, "rows_sealed_with_old_keys");
    if old_rows > 0 {
        out.push_str(&format!(
            "sealed with an older key, to be sealed anew by `bursar key rotate`: {old_rows}\n"
        ));
    }
    let next = list("next_refreshes");
    if !next.is_empty() {
        out.push_str("\nnext refreshes, of what is still in use then:\n");
    }
    for refresh in next {
        let due = number(&refresh, "due_in_seconds");
        let role = refresh.get("role").and_then(Value::as_str);
        let role = role.map(|role| format!(", role {role}")).unwrap_or_default();
        let when = if due == 0 { "due".to_owned() } else { format!("in {}", time(due)) };
        out.push_str(&format!(
            "  {when:14} {} of {}{role}\n",
            text(&refresh, "service"),
            text(&refresh, "user")
        ));
    }
    out
}
