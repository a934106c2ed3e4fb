//! A user's state, and messages to a user, that other programs write: the contract of the `notify:<user>` names, which do
//! not have our prefix and leave no history.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use redis::Script;

use crate::engine::text;
use crate::limits::{RAW_MAX_BYTES, STATE_MAX_BYTES};
use crate::{Broker, BrokerError, BrokerEvent, Names};

/// The fields of a user's state.
pub type State = BTreeMap<String, String>;

static SET: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("state/set.lua")));

impl Broker {
    /// Returns a user's state, which is empty where none was set. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] for a state of more than [`STATE_MAX_BYTES`].
    pub async fn state(&self, user: &str) -> Result<State, BrokerError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.0.names().state(user));
        let fields: Vec<(Vec<u8>, Vec<u8>)> = self.0.read(&command).await?;
        let state = fields.iter().map(|(field, value)| (text(field), text(value))).collect();
        within_bounds(&state).map(|()| state)
    }

    /// Replaces a user's state, and announces the change to all who listen for the user.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] for a state of more than [`STATE_MAX_BYTES`].
    pub async fn set_state(&self, user: &str, state: &State) -> Result<(), BrokerError> {
        within_bounds(state)?;
        let names = self.0.names();
        let mut call = SET.key(names.state(user));
        call.arg(names.state_channel(user));
        for (field, value) in state {
            call.arg(field).arg(value);
        }
        self.0.eval(&call).await
    }

    /// Publishes bytes to all who listen for a user now.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] for more than [`RAW_MAX_BYTES`].
    pub async fn publish_raw(&self, user: &str, data: &[u8]) -> Result<(), BrokerError> {
        if data.len() > RAW_MAX_BYTES {
            let bytes = data.len();
            return Err(BrokerError::Refused(format!("a message of {bytes} bytes, at most {RAW_MAX_BYTES}")));
        }
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.0.names().raw(user)).arg(data);
        self.0.run(&command).await
    }
}

fn within_bounds(state: &State) -> Result<(), BrokerError> {
    let bytes: usize = state.iter().map(|(field, value)| field.len() + value.len()).sum();
    if bytes > STATE_MAX_BYTES {
        return Err(BrokerError::Refused(format!("a state of {bytes} bytes, at most {STATE_MAX_BYTES}")));
    }
    Ok(())
}

/// The channels of a user. A channel's name may belong to two users: the second channel of a user is also the first channel
/// of the user whose name has `:state` at its end.
pub(crate) fn channel_names(names: &Names, user: &str) -> [String; 2] {
    [names.raw(user), names.state_channel(user)]
}

/// The events of a message on the channel `notify:<name>`, for the users that `listens` returns true for.
pub(crate) fn published_on(name: &str, data: &[u8], listens: impl Fn(&str) -> bool) -> Vec<BrokerEvent> {
    let raw = listens(name).then(|| BrokerEvent::Raw { user: name.to_owned(), data: data.to_vec() });
    let user = name.strip_suffix(":state").filter(|user| listens(user));
    let changed = user.map(|user| BrokerEvent::StateChanged { user: user.to_owned() });
    raw.into_iter().chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_another_s_state_reaches_both() {
        let data = b"x".as_slice();
        let raw = |user: &str| BrokerEvent::Raw { user: user.into(), data: data.to_vec() };
        let changed = || BrokerEvent::StateChanged { user: "42".into() };
        let received = |name, users: &[&str]| published_on(name, data, |user| users.contains(&user));
        assert_eq!(received("42", &["42", "42:state"]), [raw("42")]);
        assert_eq!(received("42:state", &["42"]), [changed()]);
        assert_eq!(received("42:state", &["42:state", "42"]), [raw("42:state"), changed()]);
        assert_eq!(received("42:state", &["43"]), []);
    }
}
