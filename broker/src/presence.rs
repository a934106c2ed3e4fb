//! Who is online. Each run of a replica holds one lease, whatever the number of its users, and tells which of
//! them came or went. Whoever is away for longer than a refresh of the page takes is reported as gone, and the
//! users of a run whose lease is over go with it.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use crate::engine::{Engine, sequence_script};
use crate::limits::PRESENCE_BATCH_MAX_USERS;
use crate::{Broker, BrokerError};

/// What a run of a replica says of itself and its users.
#[derive(Clone, Debug)]
pub struct Beat<'a> {
    /// The run: one word, never used before.
    pub run: &'a str,
    /// For how long its users count without another beat; zero ends the run.
    pub lease: Duration,
    /// A user without a connection anywhere for this long is reported as gone.
    pub grace: Duration,
    /// Users whose connections in this run have changed, with how many there are now. At most
    /// [`PRESENCE_BATCH_MAX_USERS`]. Saying it again is harmless.
    pub changes: &'a [(String, usize)],
    /// Whether this replica has had another run before: after data were lost, or an outage that outlasted the lease. Then
    /// others may be in the same place, and nobody's users are taken out for as long as `grace`.
    pub returns: bool,
}

/// What became of a beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// The data set that knows it. Another one may not know what earlier beats said.
    pub epoch: String,
    /// Whether the lease was held. If not, users that were told earlier may have been taken out.
    pub held: bool,
    /// Whether more is to be done at once: beat again.
    pub more: bool,
    /// When the next user may have to be reported as gone, from now: one who left, or those of another run if
    /// it stays silent.
    pub due: Option<Duration>,
}

/// Whether a user is online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub user: String,
    /// Connections on all replicas.
    pub connections: usize,
    /// Since when the user is online, in milliseconds since 1970, until the leave is reported. Short absences
    /// don't end it.
    pub since_ms: Option<u64>,
}

impl Broker {
    /// Renews the lease of a run, takes in what changed there, and reports who went, here or with a run that
    /// fell silent.
    ///
    /// # Errors
    /// When Redis is away or refuses; beating again is harmless.
    pub async fn beat(&self, beat: &Beat<'_>) -> Result<Beaten, BrokerError> {
        if beat.changes.len() > PRESENCE_BATCH_MAX_USERS {
            let found = beat.changes.len();
            let fault = format!("a beat has at most {PRESENCE_BATCH_MAX_USERS} users, this has {found}");
            return Err(BrokerError::Refused(fault));
        }
        self.0.beat(beat).await
    }

    /// Who of these users is online, in their order.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn presence(&self, users: &[String]) -> Result<Vec<Presence>, BrokerError> {
        self.0.presence(users).await
    }
}

static BEAT: LazyLock<Script> = LazyLock::new(|| sequence_script(&[include_str!("presence/presence.lua")]));
static ONLINE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("presence/online.lua")));

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    async fn beat(&self, beat: &Beat<'_>) -> Result<Beaten, BrokerError> {
        let mut call = BEAT.key(self.names().sequence());
        call.arg(self.call_time()).arg(self.names().prefix()).arg(self.names().channels());
        call.arg(beat.run).arg(milliseconds(beat.lease)).arg(milliseconds(beat.grace));
        call.arg(PRESENCE_BATCH_MAX_USERS).arg(u8::from(beat.returns)).arg(beat.changes);
        let (epoch, held, more, due): (String, bool, bool, i64) = self.eval(&call).await?;
        Ok(Beaten { epoch, held, more, due: u64::try_from(due).ok().map(Duration::from_millis) })
    }

    async fn presence(&self, users: &[String]) -> Result<Vec<Presence>, BrokerError> {
        let mut call = ONLINE.key(self.names().sequence());
        call.arg(self.names().prefix()).arg(users);
        let answer: Vec<(usize, i64)> = self.eval_read(&call).await?;
        let presence = users.iter().zip(answer).map(|(user, (connections, since))| Presence {
            user: user.clone(),
            connections,
            since_ms: u64::try_from(since).ok(),
        });
        Ok(presence.collect())
    }
}
