use carillon_protocol::Audience;

use crate::dead::DeadList;
use crate::ledger::remembered;

/// The names in Redis: the list and the channel that other programs know, those of the users, and everything else
/// under one prefix. The prefix carries the list's own name as its hash tag, so that all keys live in one
/// slot and the scripts run on Redis Cluster.
///
/// A namespace stands in front of all of them. Publish and subscribe know nothing of the databases of a server, so in
/// another database than 0 every channel has `db<N>:` in front: two databases share nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `NAME:`, or nothing.
    namespace: String,
    /// `db<N>:`, or nothing.
    database: String,
}

/// Longest namespace, in bytes.
const NAMESPACE_MAX_BYTES: usize = 64;

impl Names {
    /// Names of a deployment of its own on a server that others share.
    ///
    /// # Errors
    /// When it is not 1 to 64 letters, digits, dots, dashes and underscores.
    pub fn in_namespace(name: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=NAMESPACE_MAX_BYTES).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(format!(
                "'{name}': a namespace has 1 to {NAMESPACE_MAX_BYTES} letters, digits, dots, dashes and underscores"
            ));
        }
        Ok(Self { namespace: format!("{name}:"), database: String::new() })
    }

    /// The same names in a database of the server.
    pub(crate) fn in_database(self, database: i64) -> Self {
        let database = if database == 0 { String::new() } else { format!("db{database}:") };
        Self { database, ..self }
    }

    /// Entries wait here: pushed on the left, taken from the right.
    #[must_use]
    pub fn list(&self) -> String {
        format!("{}Notification-List", self.namespace)
    }

    /// A message on this channel says that the list may have something; it carries nothing.
    #[must_use]
    pub fn channel(&self) -> String {
        format!("{}{}Notification-Channel", self.database, self.namespace)
    }

    /// In front of every other key.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{{{}}}:", self.list())
    }

    /// In front of every other channel.
    #[must_use]
    pub fn channels(&self) -> String {
        format!("{}{}", self.database, self.prefix())
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }

    /// A hash: the epoch's `id`, `replid` and `first`, the `last` position, and the `clock` of the last call.
    #[must_use]
    pub fn sequence(&self) -> String {
        self.key("sequence")
    }

    /// Who sees what the replicas claim that run now; it expires with the last of them.
    #[must_use]
    pub fn fanout_mode(&self) -> String {
        self.key("fanout_mode")
    }

    /// The ids seen lately: `turn` is `a` or `b`.
    #[must_use]
    pub fn ids(&self, turn: &str) -> String {
        self.key(&format!("ids:{turn}"))
    }

    /// A dead list: a stream of `reason`, `detail`, `size`, `claimed_by` and `raw`.
    #[must_use]
    pub fn dead(&self, list: DeadList) -> String {
        self.key(list.key())
    }

    /// A hash: how far a message between people has come, and by whom.
    #[must_use]
    pub fn message(&self, from: &str, id: &str) -> String {
        self.key(&format!("message:{}", remembered(from, id)))
    }

    /// The bytes that a user has had stored lately.
    #[must_use]
    pub fn stored_bytes(&self, user: &str) -> String {
        self.key(&format!("stored:{user}"))
    }

    /// The cursor up to which a user has read.
    #[must_use]
    pub fn read_position(&self, user: &str) -> String {
        self.key(&format!("read:{user}"))
    }

    /// A sorted set: which tokens were revoked, and in which second.
    #[must_use]
    pub fn revocations(&self) -> String {
        self.key("revocations")
    }

    /// There while a key that may be used once is used.
    #[must_use]
    pub fn used(&self, key: &str) -> String {
        self.key(&format!("used:{key}"))
    }

    /// The key that sessions are sealed with.
    #[must_use]
    pub fn session_key(&self) -> String {
        self.key("session_key")
    }

    /// A channel to which every replica subscribes: what was revoked.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}control", self.channels())
    }

    /// The channel on which one listener receives its own signs of life.
    #[must_use]
    pub fn echo(&self, listener: &str) -> String {
        format!("{}echo:{listener}", self.channels())
    }

    /// The stream of an audience's entries: `format`, `claimed_by`, `kind`, `prev` and `entry`.
    #[must_use]
    pub fn history(&self, audience: &Audience) -> String {
        self.key(&format!("history:{audience}"))
    }

    /// The channel on which the entries of an audience are published; see [`crate::heard_as`] for a connection's.
    #[must_use]
    pub fn fanout(&self, audience: &Audience) -> String {
        format!("{}fanout:{audience}", self.channels())
    }

    /// The channel on which a user's coming and going is announced.
    #[must_use]
    pub fn presence(&self, user: &str) -> String {
        format!("{}presence:{user}", self.channels())
    }

    /// In front of the name of a user, for the channels that other programs use.
    fn user_channels(&self) -> String {
        format!("{}{}notify:", self.database, self.namespace)
    }

    /// The channel of a user: whatever any program publishes there goes to that user's sockets.
    #[must_use]
    pub fn raw(&self, user: &str) -> String {
        format!("{}{user}", self.user_channels())
    }

    /// The hash of a user's state.
    #[must_use]
    pub fn state(&self, user: &str) -> String {
        format!("{}notify:{user}:state", self.namespace)
    }

    /// The channel on which a change of a user's state is announced.
    #[must_use]
    pub fn state_channel(&self, user: &str) -> String {
        format!("{}{user}:state", self.user_channels())
    }

    /// A sorted set: the ids of jobs, by the moment at which each is due.
    #[must_use]
    pub fn jobs(&self) -> String {
        self.key("jobs")
    }

    /// A hash: one job, by what workers name it by.
    #[must_use]
    pub fn job(&self, handle: &str) -> String {
        self.key(&format!("job:{handle}"))
    }

    /// A sorted set: the lines of the outbox, by the moment at which each is due. A line is a list under
    /// this name, a colon and the line.
    #[must_use]
    pub fn outbox(&self) -> String {
        self.key("outbox")
    }

    /// A hash beside the outbox: its `messages`, or their `attempts`, by id.
    #[must_use]
    pub fn outbox_part(&self, part: &str) -> String {
        format!("{}:{part}", self.outbox())
    }

    /// What a channel is for.
    pub(crate) fn channel_of(&self, channel: &str) -> Channel {
        let parse = || {
            if channel == self.channel() {
                return Some(Channel::Wake);
            }
            if let Some(name) = channel.strip_prefix(&self.user_channels()) {
                return Some(Channel::OfUser(name.to_owned()));
            }
            let name = channel.strip_prefix(&self.channels())?;
            if name == "control" {
                return Some(Channel::Control);
            }
            match name.split_once(':')? {
                ("fanout", audience) => audience.parse().ok().map(Channel::Fanout),
                ("presence", user) => Some(Channel::Presence(user.to_owned())),
                ("echo", _) => Some(Channel::Echo),
                _ => None,
            }
        };
        parse().unwrap_or(Channel::Unknown)
    }
}

/// What is published on a channel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The list may have something.
    Wake,
    /// What other programs publish for a user: the name behind `notify:`.
    OfUser(String),
    /// What was claimed for an audience.
    Fanout(Audience),
    /// This user came or went.
    Presence(String),
    /// What every replica must know at once.
    Control,
    /// A sign of life of the listener itself.
    Echo,
    /// Nothing of ours.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_share_the_list_s_slot_and_channels_lead_back_to_what_they_are_for() {
        let names = Names::default();
        let audience = Audience::User("a:b".into());
        assert_eq!(names.history(&audience), "{Notification-List}:history:user:a:b");
        assert_eq!(names.channel_of(&names.fanout(&audience)), Channel::Fanout(audience));
        assert_eq!(names.channel_of("Notification-Channel"), Channel::Wake);
        assert_eq!(names.channel_of(&names.raw("ann")), Channel::OfUser("ann".into()));
        assert_eq!(names.channel_of(&names.presence("a:b")), Channel::Presence("a:b".into()));
        assert_eq!(names.channel_of("{Notification-List}:x"), Channel::Unknown);
    }

    #[test]
    fn a_namespace_and_a_database_share_nothing_with_another() {
        let plain = Names::default();
        let shop = Names::in_namespace("shop").unwrap();
        let second = Names::default().in_database(2);
        let audience = Audience::Everyone;
        assert_eq!(shop.history(&audience), "{shop:Notification-List}:history:everyone");
        assert_eq!(
            (shop.channel(), shop.state("a")),
            ("shop:Notification-Channel".into(), "shop:notify:a:state".into())
        );
        assert_eq!(second.fanout(&audience), "db2:{Notification-List}:fanout:everyone");
        assert_eq!(second.list(), plain.list(), "keys are apart by their database already");
        for (names, others) in
            [(&plain, [&shop, &second]), (&shop, [&plain, &second]), (&second, [&plain, &shop])]
        {
            for other in others {
                for channel in [other.channel(), other.raw("a"), other.state_channel("a"), other.control()] {
                    assert_eq!(names.channel_of(&channel), Channel::Unknown, "{names:?} {channel}");
                }
            }
        }
        for name in ["", "a b", "{x}", "a:b", &"x".repeat(65)] {
            assert!(Names::in_namespace(name).is_err(), "{name}");
        }
    }
}
