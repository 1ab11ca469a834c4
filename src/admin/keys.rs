//! `/v1/keys/rotate`: everything that an older key seals is sealed anew, while the rest goes on.
//!
//! The rows say themselves what is left to do, so a run may end anywhere: the next goes on from there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::api::answer;
use crate::api::error::Problem;
use crate::fail_point;
use crate::store::StoreError;
use crate::store::keys::{Damaged, Keys, Place, Retired};
use crate::store::seal::KeyId;
use crate::tasks::Tasks;

/// Rows that are sealed anew in one transaction; whoever else wants to write waits for it.
const BATCH: u32 = 200;
/// Damaged rows that are named; the others are counted.
const NAMED: usize = 100;
/// How long the answer waits for the end; the run goes on.
const PATIENCE: Duration = Duration::from_secs(5);

/// One run at a time, which outlives whoever asked for it.
pub struct KeyRotation {
    keys: Arc<dyn Keys>,
    tasks: Tasks,
    run: Mutex<watch::Receiver<Run>>,
}

/// How far a run has got.
#[derive(Clone, Default)]
struct Run {
    stage: Stage,
    resealed: u64,
    left: u64,
    damaged: u64,
    /// The first of them.
    named: Vec<Damaged>,
    retired: Vec<Retired>,
}

#[derive(Clone, Default)]
enum Stage {
    /// There has been none since the start.
    #[default]
    None,
    Running,
    Ended,
    Failed(StoreError),
}

impl KeyRotation {
    /// With no run yet.
    #[must_use]
    pub fn new(keys: Arc<dyn Keys>, tasks: Tasks) -> Self {
        let (_, none) = watch::channel(Run::default());
        Self { keys, tasks, run: Mutex::new(none) }
    }

    /// How many rows are sealed with another key than the newest.
    pub(super) async fn left(&self) -> Result<u64, StoreError> {
        self.keys.count_old().await
    }

    /// Begins a run, unless one is under way, and waits for its end for a while: 200 then, else 202.
    pub(super) async fn rotate(&self) -> Result<Response<Full<Bytes>>, Problem> {
        let mut run = self.begin_or_join();
        let over = run.wait_for(|run| !matches!(run.stage, Stage::Running));
        let _either_way_it_says_where_it_is = tokio::time::timeout(PATIENCE, over).await.map(|_| ());
        self.answer(&run)
    }

    /// How far it is, or how it ended.
    pub(super) fn progress(&self) -> Result<Response<Full<Bytes>>, Problem> {
        let run = self.run.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.answer(&run)
    }

    fn begin_or_join(&self) -> watch::Receiver<Run> {
        let mut current = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if word(&current) != "running" {
            let (tell, run) = watch::channel(Run { stage: Stage::Running, ..Run::default() });
            let keys = Arc::clone(&self.keys);
            // A stop ends it between two batches, or undoes the one that it is in.
            self.tasks.spawn_until_stop(async move {
                let end = rotate(&*keys, &tell).await.map_or_else(Stage::Failed, |()| Stage::Ended);
                tell.send_modify(|run| run.stage = end);
            });
            *current = run;
        }
        current.clone()
    }

    fn answer(&self, current: &watch::Receiver<Run>) -> Result<Response<Full<Bytes>>, Problem> {
        let word = word(current);
        let run = current.borrow();
        if let Stage::Failed(error) = &run.stage {
            return Err(error.clone().into());
        }
        let named = |row: &Damaged| json!({ "service": row.service, "user": row.user, "why": row.why });
        let retired =
            |one: &Retired| json!({ "key": one.key.to_string(), "file": one.file.display().to_string() });
        let body = json!({
            "state": word,
            "key": self.keys.sealing_key().to_string(),
            "resealed": run.resealed,
            "left": run.left,
            "damaged": run.damaged,
            "damaged_rows": run.named.iter().map(named).collect::<Vec<Value>>(),
            "no_longer_needed": run.retired.iter().map(retired).collect::<Vec<Value>>(),
        });
        let status = if word == "running" { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(answer::json(status, &body))
    }
}

/// The state as the outside sees it. Who was to tell how it ends may have gone without: the process stops, or it panicked.
fn word(run: &watch::Receiver<Run>) -> &'static str {
    match run.borrow().stage {
        Stage::None => "none",
        Stage::Running if run.has_changed().is_err() => "interrupted",
        Stage::Running => "running",
        Stage::Ended => "ended",
        Stage::Failed(_) => "failed",
    }
}

async fn rotate(keys: &dyn Keys, tell: &watch::Sender<Run>) -> Result<(), StoreError> {
    let all = keys.count_old().await?;
    tell.send_modify(|run| run.left = all);
    let mut damaged: HashMap<KeyId, u64> = HashMap::new();
    let mut place = Some(Place::default());
    while let Some(from) = place {
        let batch = keys.reseal(&from, BATCH).await?;
        fail_point::reached("resealed");
        for row in &batch.damaged {
            tracing::error!(service = row.service, user = row.user, why = row.why, "left as it is");
            if let Some(key) = row.key {
                *damaged.entry(key).or_default() += 1;
            }
        }
        tell.send_modify(|run| {
            run.resealed += batch.resealed;
            run.damaged += batch.damaged.len() as u64;
            run.left = all.saturating_sub(run.resealed + run.damaged);
            let room = NAMED - run.named.len();
            run.named.extend(batch.damaged.into_iter().take(room));
        });
        place = batch.next;
    }
    let retired = keys.retire(&damaged).await?;
    let left = keys.count_old().await?;
    tell.send_modify(|run| {
        run.left = left.saturating_sub(run.damaged);
        run.retired = retired;
    });
    let run = tell.borrow();
    let (key, resealed, damaged, left) = (keys.sealing_key(), run.resealed, run.damaged, run.left);
    tracing::info!(%key, resealed, damaged, left, "a key rotation ended");
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use http_body_util::BodyExt as _;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::store::keyring::Keyring;
    use crate::store::keys::Batch;
    use crate::store::seal::{Sealer, generate_key};

    /// Three batches of ten rows, each as soon as it may.
    struct Slow {
        key: KeyId,
        may: Semaphore,
        batches: Mutex<u64>,
    }

    #[async_trait]
    impl Keys for Slow {
        async fn take(&self, _keyring: Keyring) -> Result<(), StoreError> {
            Ok(())
        }
        fn sealing_key(&self) -> KeyId {
            self.key
        }
        async fn count_old(&self) -> Result<u64, StoreError> {
            Ok(30 - 10 * *self.batches.lock().unwrap())
        }
        async fn reseal(&self, _from: &Place, _limit: u32) -> Result<Batch, StoreError> {
            self.may.acquire().await.unwrap().forget();
            let mut batches = self.batches.lock().unwrap();
            if *batches == 3 {
                return Err(StoreError::Unavailable("database or disk is full".to_owned()));
            }
            *batches += 1;
            let next = (*batches < 3).then(Place::default);
            Ok(Batch { resealed: 10, damaged: Vec::new(), next })
        }
        async fn retire(&self, _damaged: &HashMap<KeyId, u64>) -> Result<Vec<Retired>, StoreError> {
            Ok(Vec::new())
        }
    }

    fn slow() -> (Arc<Slow>, KeyRotation, Tasks) {
        let key = Sealer::from_text(&generate_key(&SystemEntropy)).unwrap().id();
        let keys = Arc::new(Slow { key, may: Semaphore::new(0), batches: Mutex::default() });
        let tasks = Tasks::new();
        (Arc::clone(&keys), KeyRotation::new(keys, tasks.clone()), tasks)
    }

    async fn told(answer: Result<Response<Full<Bytes>>, Problem>) -> (u16, Value) {
        let answer = answer.unwrap_or_else(|problem| panic!("{}", problem.error()));
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_goes_on_without_whoever_began_it_and_the_next_to_ask_joins_it() {
        let (keys, rotation, _tasks) = slow();
        assert_eq!(told(rotation.progress()).await.1["state"], "none");
        keys.may.add_permits(1);
        let (status, run) = told(rotation.rotate().await).await;
        assert_eq!((status, &run["state"]), (202, &json!("running")), "it takes longer than is waited");
        assert_eq!((&run["resealed"], &run["left"]), (&json!(10), &json!(20)));
        keys.may.add_permits(2);
        let (status, run) = told(rotation.rotate().await).await;
        assert_eq!((status, &run["resealed"], &run["left"]), (200, &json!(30), &json!(0)), "the same run");
        assert_eq!(told(rotation.progress()).await, (200, run), "and how it ended can be asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_fails_says_so_and_can_be_begun_again() {
        let (keys, rotation, _tasks) = slow();
        *keys.batches.lock().unwrap() = 3;
        keys.may.add_permits(1);
        assert_eq!(rotation.rotate().await.err().map(|problem| problem.error()), Some("store_unavailable"));
        *keys.batches.lock().unwrap() = 2;
        keys.may.add_permits(1);
        assert_eq!(told(rotation.rotate().await).await.1["state"], "ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_interrupts_it_between_two_batches() {
        let (keys, rotation, tasks) = slow();
        keys.may.add_permits(1);
        assert_eq!(told(rotation.rotate().await).await.0, 202);
        tasks.stop();
        tasks.stopped().await;
        let (_, run) = told(rotation.progress()).await;
        assert_eq!((&run["state"], &run["resealed"]), (&json!("interrupted"), &json!(10)));
    }
}
