//! One thing that was looked at.

use serde::Serialize;

/// What was found of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which step; a word of a closed list.
    pub step: &'static str,
    /// What of the configuration it is about.
    pub subject: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do, and where.
    pub remedy: Option<String>,
}

/// How it stands with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Right.
    Good,
    /// Maybe not what is meant, but nothing that must be mended.
    Doubtful,
    /// Wrong.
    Bad,
    /// Not applicable here, or not to be told from here.
    Untold,
}

impl Step {
    pub(super) fn good(step: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        let (subject, message) = (subject.into(), message.into());
        Self { step, subject, verdict: Verdict::Good, message, remedy: None }
    }

    pub(super) fn bad(
        step: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (subject, message) = (subject.into(), message.into());
        Self { step, subject, verdict: Verdict::Bad, message, remedy: Some(remedy.into()) }
    }

    pub(super) fn doubtful(
        step: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Doubtful, ..Self::bad(step, subject, message, remedy) }
    }

    pub(super) fn untold(step: &'static str, subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Untold, ..Self::good(step, subject, why) }
    }

    /// With something to do about it.
    pub(super) fn and_do(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

impl Verdict {
    /// The mark at the beginning of a line.
    #[must_use]
    pub fn mark(self) -> char {
        match self {
            Self::Good => '✓',
            Self::Doubtful => '!',
            Self::Bad => '✗',
            Self::Untold => '–',
        }
    }

    /// `ok` for machines: a doubt is no failure, and what can't be told is neither.
    #[must_use]
    pub fn is_ok(self) -> Option<bool> {
        match self {
            Self::Good | Self::Doubtful => Some(true),
            Self::Bad => Some(false),
            Self::Untold => None,
        }
    }
}

impl Serialize for Step {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut object = serializer.serialize_struct("Step", 5)?;
        object.serialize_field("step", self.step)?;
        object.serialize_field("subject", &self.subject)?;
        object.serialize_field("ok", &self.verdict.is_ok())?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("remedy", &self.remedy)?;
        object.end()
    }
}
