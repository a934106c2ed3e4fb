use std::fmt::Write;
use std::time::Duration;

use carillon_protocol::Audience;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KIB: u64 = 1_024;
const MIB: u64 = 1_024 * KIB;

/// How much of one history is kept: what is older than `age` goes, and the oldest entries beyond the other two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Longest that an entry is kept.
    pub age: Duration,
    /// Most entries.
    pub entries: u64,
    /// Most bytes of Redis' memory. The newest entry is kept whatever its size.
    pub bytes: u64,
}

/// How much history is kept of one audience of each kind. A connection has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What is for everyone.
    pub everyone: Keep,
    /// What is for a topic.
    pub topic: Keep,
    /// What is for a user, and the status of what the user has sent.
    pub user: Keep,
    /// What is for a session.
    pub session: Keep,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            everyone: Keep { age: DAY, entries: 100_000, bytes: 64 * MIB },
            topic: Keep { age: DAY, entries: 10_000, bytes: 4 * MIB },
            user: Keep { age: 7 * DAY, entries: 5_000, bytes: 256 * KIB },
            session: Keep { age: 7 * DAY, entries: 1_000, bytes: 64 * KIB },
        }
    }
}

impl Keep {
    /// The age in milliseconds.
    pub(crate) fn age_ms(&self) -> u64 {
        u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Retention {
    /// What is kept for an audience; `None` where nothing is.
    #[must_use]
    pub fn of(&self, audience: &Audience) -> Option<&Keep> {
        match audience {
            Audience::Everyone => Some(&self.everyone),
            Audience::Topic(_) => Some(&self.topic),
            Audience::User(_) => Some(&self.user),
            Audience::Session(_) => Some(&self.session),
            Audience::Connection(_) => None,
        }
    }

    /// As keep.lua reads it.
    pub(crate) fn to_script(self) -> String {
        let kinds = [
            ("everyone", self.everyone),
            ("topic", self.topic),
            ("user", self.user),
            ("session", self.session),
        ];
        let mut text = String::new();
        for (kind, keep) in kinds {
            let _ = write!(text, "{kind}={}/{}/{} ", keep.age_ms(), keep.entries, keep.bytes);
        }
        text
    }
}
