//! What the last process could not commit is taken up before anything else.

use crate::store::spill::{self, Spilled};
use crate::store::sqlite::SqliteStore;
use crate::store::{Committed, Store as _, StoreError};

impl SqliteStore {
    pub(super) async fn absorb_spilled(&self) -> Result<(), StoreError> {
        for file in spill::files(&self.path)? {
            let Spilled { id, version, answer } = match spill::read(&self.keys(), &file) {
                Ok(spilled) => spilled,
                Err(error @ (StoreError::Seal(_) | StoreError::Inconsistent { .. })) => {
                    spill::put_aside(&file)?;
                    tracing::error!(%error, file = %file.display(), "an answer of the last process is damaged, and put aside");
                    continue;
                }
                Err(error) => return Err(error),
            };
            match self.commit(&id, version, &answer).await? {
                Committed::Done(_) => {
                    tracing::info!(grant = %id.key, "took up a refresh that the last process could not write");
                }
                Committed::Superseded | Committed::Revoked => {
                    tracing::warn!(grant = %id.key, "a refresh that the last process could not write is out of date; dropped");
                }
            }
            spill::remove(&file)?;
        }
        Ok(())
    }
}
