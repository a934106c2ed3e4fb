use std::fmt::Write;
use std::time::Duration;

use carillon_protocol::Audience;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KIB: u64 = 1_024;
const MIB: u64 = 1_024 * KIB;

/// How much of one history is kept: entries older than `age` are removed, and the oldest entries beyond the other two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The longest time that an entry is kept.
    pub age: Duration,
    /// The most entries.
    pub entries: u64,
    /// The most bytes of Redis' memory. The newest entry is kept whatever its size.
    pub bytes: u64,
}

/// How much history is kept of one audience of each kind. A connection has no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Entries for everyone.
    pub everyone: Keep,
    /// Entries for a topic.
    pub topic: Keep,
    /// Entries for a user, and the messages of the ledger.
    pub user: Keep,
    /// Entries for a session.
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
    /// How much is kept of an audience; `None` where it has no history.
    pub fn of(&self, audience: &Audience) -> Option<&Keep> {
        match audience {
            Audience::Everyone => Some(&self.everyone),
            Audience::Topic(_) => Some(&self.topic),
            Audience::User(_) => Some(&self.user),
            Audience::Session(_) => Some(&self.session),
            Audience::Connection(_) => None,
        }
    }

    /// The form that keep.lua reads.
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
