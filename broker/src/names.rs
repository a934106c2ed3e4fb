use carillon_protocol::Audience;

use crate::dead::DeadList;
use crate::ledger::remembered;

/// The names in Redis: the list and the channel that other programs know, those of the users, and everything else under one
/// prefix. The prefix has the list's own name as its hash tag, so that all keys are in one slot and the scripts run on Redis
/// Cluster.
///
/// All names begin with the namespace. Publish and subscribe ignore the databases of a server, so in another database than 0
/// every channel begins with `db<N>:`: two databases share nothing.
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
    /// The names of one deployment on a server that several deployments share.
    ///
    /// # Errors
    /// When the name is not 1 to 64 letters, digits, dots, dashes and underscores.
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

    /// The list in which entries wait: they are pushed on the left, and taken from the right.
    pub fn list(&self) -> String {
        format!("{}Notification-List", self.namespace)
    }

    /// The channel of the wake-ups: a message on it means that the list may hold entries.
    pub fn channel(&self) -> String {
        format!("{}{}Notification-Channel", self.database, self.namespace)
    }

    /// The beginning of every other key.
    pub fn prefix(&self) -> String {
        format!("{{{}}}:", self.list())
    }

    /// The beginning of every other channel.
    pub fn channels(&self) -> String {
        format!("{}{}", self.database, self.prefix())
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }

    /// A hash: the epoch's `id`, `replid` and `first`, the `last` position, and the `clock` of the last call.
    pub fn sequence(&self) -> String {
        self.key("sequence")
    }

    /// The mode of fan-out of the replicas that run now; it expires with the last of them.
    pub fn fanout_mode(&self) -> String {
        self.key("fanout_mode")
    }

    /// A set of the ids that were claimed lately: `turn` is `a` or `b`.
    pub fn ids(&self, turn: &str) -> String {
        self.key(&format!("ids:{turn}"))
    }

    /// A dead list: a stream of `reason`, `detail`, `size`, `claimed_by` and `raw`.
    pub fn dead(&self, list: DeadList) -> String {
        self.key(list.key())
    }

    /// A hash: a message between users, with its status and its trace.
    pub fn message(&self, from: &str, id: &str) -> String {
        self.key(&format!("message:{}", remembered(from, id)))
    }

    /// The bytes that a user has stored lately.
    pub fn stored_bytes(&self, user: &str) -> String {
        self.key(&format!("stored:{user}"))
    }

    /// The cursor up to which a user has read.
    pub fn read_position(&self, user: &str) -> String {
        self.key(&format!("read:{user}"))
    }

    /// A sorted set: which tokens were revoked, and in which second.
    pub fn revocations(&self) -> String {
        self.key("revocations")
    }

    /// Exists while a key that may be used once is used.
    pub fn used(&self, key: &str) -> String {
        self.key(&format!("used:{key}"))
    }

    /// The key that sessions are sealed with.
    pub fn session_key(&self) -> String {
        self.key("session_key")
    }

    /// The channel of the revocations, to which every replica subscribes.
    pub fn control(&self) -> String {
        format!("{}control", self.channels())
    }

    /// The channel on which one listener receives its own signs of life.
    pub fn echo(&self, listener: &str) -> String {
        format!("{}echo:{listener}", self.channels())
    }

    /// The stream of an audience's entries: `format`, `claimed_by`, `kind`, `prev` and `entry`.
    pub fn history(&self, audience: &Audience) -> String {
        self.key(&format!("history:{audience}"))
    }

    /// The channel on which the entries of an audience are published; see [`crate::channel_audience`] for a connection's.
    pub fn fanout(&self, audience: &Audience) -> String {
        format!("{}fanout:{audience}", self.channels())
    }

    /// The channel on which it is announced that a user came or left.
    pub fn presence(&self, user: &str) -> String {
        format!("{}presence:{user}", self.channels())
    }

    /// What precedes the name of a user in the channels that other programs use.
    fn user_channels(&self) -> String {
        format!("{}{}notify:", self.database, self.namespace)
    }

    /// The channel of a user: what any program publishes there is sent to that user's sockets.
    pub fn raw(&self, user: &str) -> String {
        format!("{}{user}", self.user_channels())
    }

    /// The hash of a user's state.
    pub fn state(&self, user: &str) -> String {
        format!("{}notify:{user}:state", self.namespace)
    }

    /// The channel on which a change of a user's state is announced.
    pub fn state_channel(&self, user: &str) -> String {
        format!("{}{user}:state", self.user_channels())
    }

    /// A sorted set: the handles of jobs, by the moment at which each is due.
    pub fn jobs(&self) -> String {
        self.key("jobs")
    }

    /// A hash: the job of a handle.
    pub fn job(&self, handle: &str) -> String {
        self.key(&format!("job:{handle}"))
    }

    /// A sorted set: the lines of the outbox, by the moment at which each is due. The messages of a line are a list, whose
    /// name is this one, a colon and the line.
    pub fn outbox(&self) -> String {
        self.key("outbox")
    }

    /// A hash beside the outbox: its `messages`, or their `attempts`, by id.
    pub fn outbox_part(&self, part: &str) -> String {
        format!("{}:{part}", self.outbox())
    }

    /// The purpose of a channel.
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

/// The purpose of a channel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Wake-ups: the list may hold entries.
    Wake,
    /// Messages that other programs publish for a user; this is the name behind `notify:`.
    OfUser(String),
    /// Entries for an audience.
    Fanout(Audience),
    /// The presence of a user.
    Presence(String),
    /// Messages to every replica.
    Control,
    /// The listener's own signs of life.
    Echo,
    /// A channel that is not ours.
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
