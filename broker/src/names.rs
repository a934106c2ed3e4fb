use carillon_protocol::Audience;

/// The names in Redis: the list and the channel that other programs know, those of the users, and everything else
/// under one prefix. The prefix carries the list's own name as its hash tag, so that all keys live in one
/// slot and the scripts run on Redis Cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Entries wait here: pushed on the left, taken from the right.
    pub list: String,
    /// A message here says that the list may have something; it carries nothing.
    pub channel: String,
    /// In front of the name of a user, for the channel and the state that other programs use.
    pub users: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            list: "Notification-List".to_owned(),
            channel: "Notification-Channel".to_owned(),
            users: "notify:".to_owned(),
        }
    }
}

impl Names {
    /// Names for a test of its own, on a server that it shares.
    #[must_use]
    pub fn for_test(name: &str) -> Self {
        Self {
            list: format!("{name}-List"),
            channel: format!("{name}-Channel"),
            users: format!("{name}-notify:"),
        }
    }

    /// In front of every other name.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{{{}}}:", self.list)
    }

    /// A hash: the epoch's `id`, `replid` and `first`, and the `last` position.
    #[must_use]
    pub fn sequence(&self) -> String {
        format!("{}sequence", self.prefix())
    }

    /// The ids seen lately: `turn` is `a` or `b`.
    #[must_use]
    pub fn ids(&self, turn: &str) -> String {
        format!("{}ids:{turn}", self.prefix())
    }

    /// The dead list: a stream of `reason`, `detail`, `size`, `claimed_by` and `raw`.
    #[must_use]
    pub fn dead(&self) -> String {
        format!("{}dead", self.prefix())
    }

    /// A hash: how far a message between people has come, and by whom.
    #[must_use]
    pub fn message(&self, id: &str) -> String {
        format!("{}message:{id}", self.prefix())
    }

    /// The cursor up to which a user has read.
    #[must_use]
    pub fn read_position(&self, user: &str) -> String {
        format!("{}read:{user}", self.prefix())
    }

    /// A sorted set: which tokens were called back, and in which second.
    #[must_use]
    pub fn revocations(&self) -> String {
        format!("{}revocations", self.prefix())
    }

    /// There while a key that may be used once is used.
    #[must_use]
    pub fn used(&self, key: &str) -> String {
        format!("{}used:{key}", self.prefix())
    }

    /// The key that sessions are sealed with.
    #[must_use]
    pub fn session_key(&self) -> String {
        format!("{}session_key", self.prefix())
    }

    /// A channel that every replica hears: what was called back.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}control", self.prefix())
    }

    /// The stream of an audience's entries: `claimed_by`, `kind`, `prev` and `entry`.
    #[must_use]
    pub fn history(&self, audience: &Audience) -> String {
        format!("{}history:{audience}", self.prefix())
    }

    /// The channel on which the entries of an audience are published; see [`crate::heard_as`] for a connection's.
    #[must_use]
    pub fn fanout(&self, audience: &Audience) -> String {
        format!("{}fanout:{audience}", self.prefix())
    }

    /// The channel of a user: whatever any program publishes there goes to that user's sockets.
    #[must_use]
    pub fn raw(&self, user: &str) -> String {
        format!("{}{user}", self.users)
    }

    /// The hash of a user's state, and the channel on which its changes are told.
    #[must_use]
    pub fn state(&self, user: &str) -> String {
        format!("{}{user}:state", self.users)
    }

    /// A sorted set: the ids of jobs, by the moment at which each is due.
    #[must_use]
    pub fn jobs(&self) -> String {
        format!("{}jobs", self.prefix())
    }

    /// A hash: one job.
    #[must_use]
    pub fn job(&self, id: &str) -> String {
        format!("{}job:{id}", self.prefix())
    }

    /// A sorted set: the lines of the outbox, by the moment at which each is due. A line is a list under
    /// this name, a colon and the line.
    #[must_use]
    pub fn outbox(&self) -> String {
        format!("{}outbox", self.prefix())
    }

    /// A hash: the outbox' `messages` or `attempts` by id.
    #[must_use]
    pub fn outbox_part(&self, part: &str) -> String {
        format!("{}:{part}", self.outbox())
    }

    /// The audience of a fan-out channel.
    pub(crate) fn audience_of(&self, channel: &str) -> Option<Audience> {
        channel.strip_prefix(&self.prefix())?.strip_prefix("fanout:")?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_share_the_list_s_slot_and_channels_lead_back_to_their_audience() {
        let names = Names::default();
        let audience = Audience::User("a:b".into());
        assert_eq!(names.history(&audience), "{Notification-List}:history:user:a:b");
        assert_eq!(names.audience_of(&names.fanout(&audience)), Some(audience));
        assert_eq!(names.audience_of("Notification-Channel"), None);
    }
}
