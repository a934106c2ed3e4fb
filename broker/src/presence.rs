//! Who is online. Each run of a replica holds one lease, whatever the number of its users, and reports which of them came or
//! left. A user who is away for longer than a reload of the page takes is announced as gone, and so are the users of a run
//! whose lease has expired.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use crate::engine::{milliseconds, sequence_script};
use crate::limits::PRESENCE_BATCH_MAX_USERS;
use crate::{Broker, BrokerError};

/// The heartbeat of a run of a replica, with what changed among its users.
#[derive(Clone, Debug)]
pub struct Beat<'a> {
    /// The run: one word that no other run has used.
    pub run: &'a str,
    /// How long its users count without another beat; zero ends the run.
    pub lease: Duration,
    /// A user without a connection on any replica for this long is announced as gone.
    pub grace: Duration,
    /// Users whose number of connections in this run has changed, each with the present number. At most
    /// [`PRESENCE_BATCH_MAX_USERS`].
    pub changes: &'a [(String, usize)],
    /// Whether this replica has had another run before: it begins a new one after data were lost, or after an outage that
    /// was longer than the lease. Other replicas may have to do the same, so no run's users are removed during `grace`.
    pub returns: bool,
}

/// The answer to a beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// The epoch of the data set that recorded it. In another epoch, what earlier beats reported may be lost.
    pub epoch: String,
    /// Whether the lease was held until now. If not, users that were reported earlier may have been removed.
    pub held: bool,
    /// Whether users are left to be removed or announced: beat again at once.
    pub more: bool,
    /// The time from now until the next user may have to be announced as gone: one who left, or those of another run that
    /// may stay silent.
    pub due: Option<Duration>,
}

/// Whether a user is online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The user.
    pub user: String,
    /// Connections on all replicas.
    pub connections: usize,
    /// When the user came online, in milliseconds since 1970; `None` once the leave is announced. Short absences do not end
    /// it.
    pub since_ms: Option<u64>,
}

static BEAT: LazyLock<Script> = LazyLock::new(|| sequence_script(&[include_str!("presence/presence.lua")]));
static ONLINE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("presence/online.lua")));

impl Broker {
    /// Renews the lease of a run, records its changes, and announces the users who left, here or with a run that fell
    /// silent. Repeating it is harmless.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] for more than [`PRESENCE_BATCH_MAX_USERS`] changes.
    pub async fn beat(&self, beat: &Beat<'_>) -> Result<Beaten, BrokerError> {
        if beat.changes.len() > PRESENCE_BATCH_MAX_USERS {
            let found = beat.changes.len();
            let fault = format!("a beat has at most {PRESENCE_BATCH_MAX_USERS} users, this has {found}");
            return Err(BrokerError::Refused(fault));
        }
        let names = self.0.names();
        let mut call = BEAT.key(names.sequence());
        call.arg(self.0.call_time()).arg(names.prefix()).arg(names.channels());
        call.arg(beat.run).arg(milliseconds(beat.lease)).arg(milliseconds(beat.grace));
        call.arg(PRESENCE_BATCH_MAX_USERS).arg(u8::from(beat.returns)).arg(beat.changes);
        let (epoch, held, more, due): (String, bool, bool, i64) = self.0.eval(&call).await?;
        Ok(Beaten { epoch, held, more, due: u64::try_from(due).ok().map(Duration::from_millis) })
    }

    /// Returns the presence of these users, in their order.
    pub async fn presence(&self, users: &[String]) -> Result<Vec<Presence>, BrokerError> {
        let names = self.0.names();
        let mut call = ONLINE.key(names.sequence());
        call.arg(names.prefix()).arg(users);
        let answer: Vec<(usize, i64)> = self.0.eval_read(&call).await?;
        let presence = users.iter().zip(answer).map(|(user, (connections, since))| Presence {
            user: user.clone(),
            connections,
            since_ms: u64::try_from(since).ok(),
        });
        Ok(presence.collect())
    }
}
