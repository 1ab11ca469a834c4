//! `bursar key …`

use std::path::Path;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::cli::client::Refused;
use crate::cli::{Exit, client, terminal};
use crate::entropy::SystemEntropy;
use crate::store::seal::generate_key;

const TARGET: &str = "/v1/keys/rotate";
/// Between two looks how far it is.
const STEP: Duration = Duration::from_secs(1);

pub(super) fn generate() -> Exit {
    terminal::out(&format!("{}\n", generate_key(&SystemEntropy).expose()));
    Exit::Done
}

pub(super) async fn rotate(socket: &Path, as_json: bool) -> Exit {
    let end = match until_the_end(socket).await {
        Ok(end) => end,
        Err(refused) => return refused.exit,
    };
    if as_json {
        terminal::out(&format!("{end}\n"));
    } else {
        tell(&end);
    }
    if end.get("state").and_then(Value::as_str) != Some("ended") {
        terminal::err("bursar: interrupted; what was sealed anew stays so: call it again");
        return Exit::Unavailable;
    }
    if number(&end, "damaged") > 0 { Exit::Failed } else { Exit::Done }
}

async fn until_the_end(socket: &Path) -> Result<Value, Refused> {
    let mut run = client::ask(socket, Method::POST, TARGET, None).await?;
    while run.get("state").and_then(Value::as_str) == Some("running") {
        terminal::err(&format!(
            "{} rows sealed anew, {} left",
            number(&run, "resealed"),
            number(&run, "left")
        ));
        tokio::time::sleep(STEP).await;
        run = client::ask(socket, Method::GET, TARGET, None).await?;
    }
    Ok(run)
}

fn tell(run: &Value) {
    let text = |of: &Value, member: &str| of.get(member).and_then(Value::as_str).unwrap_or("-").to_owned();
    let list = |member: &str| run.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
    terminal::out(&format!("{} rows sealed anew with key {}\n", number(run, "resealed"), text(run, "key")));
    let (left, damaged) = (number(run, "left"), number(run, "damaged"));
    if left > 0 {
        terminal::out(&format!("{left} rows are sealed with other keys: call it again\n"));
    }
    for one in list("no_longer_needed") {
        let (key, file) = (text(&one, "key"), text(&one, "file"));
        terminal::out(&format!(
            "no longer needed: key {key}; take {file} out of store.old_key_files and reload\n"
        ));
    }
    if damaged > 0 {
        terminal::err(&format!(
            "{damaged} rows can't be opened and were left as they are; whose they are must connect again:"
        ));
    }
    for row in list("damaged_rows") {
        terminal::err(&format!(
            "  {} of {}: {}",
            text(&row, "service"),
            text(&row, "user"),
            text(&row, "why")
        ));
    }
}

fn number(of: &Value, member: &str) -> u64 {
    of.get(member).and_then(Value::as_u64).unwrap_or(0)
}
