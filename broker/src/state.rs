//! What other programs keep for a user and say to a user: the contract of the `notify:<user>` names,
//! which carry no prefix of ours and leave no history.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use redis::Script;

use crate::engine::Engine;
use crate::limits::{RAW_MAX_BYTES, STATE_MAX_BYTES};
use crate::{Broker, BrokerError, Event, Names};

/// The fields of a user's state.
pub type State = BTreeMap<String, String>;

impl Broker {
    /// A user's state; empty where there is none. What is no UTF-8 is replaced.
    ///
    /// # Errors
    /// When Redis is away or refuses, and when the state has more than [`STATE_MAX_BYTES`].
    pub async fn state(&self, user: &str) -> Result<State, BrokerError> {
        let state = self.0.user_state(user).await?;
        within_bounds(&state).map(|()| state)
    }

    /// Puts a state in the place of a user's state, and tells all who listen for the user.
    ///
    /// # Errors
    /// When Redis is away or refuses, and for a state of more than [`STATE_MAX_BYTES`].
    pub async fn set_state(&self, user: &str, state: &State) -> Result<(), BrokerError> {
        within_bounds(state)?;
        self.0.set_user_state(user, state).await
    }

    /// Hands bytes to all who listen for a user now.
    ///
    /// # Errors
    /// When Redis is away or refuses, and for more than [`RAW_MAX_BYTES`].
    pub async fn publish_raw(&self, user: &str, data: &[u8]) -> Result<(), BrokerError> {
        if data.len() > RAW_MAX_BYTES {
            let bytes = data.len();
            return Err(BrokerError::Refused(format!("{bytes} bytes to say, at most {RAW_MAX_BYTES}")));
        }
        self.0.publish_to_user(user, data).await
    }
}

static SET: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("state/set.lua")));

fn within_bounds(state: &State) -> Result<(), BrokerError> {
    let bytes: usize = state.iter().map(|(field, value)| field.len() + value.len()).sum();
    if bytes > STATE_MAX_BYTES {
        return Err(BrokerError::Refused(format!("a state of {bytes} bytes, at most {STATE_MAX_BYTES}")));
    }
    Ok(())
}

/// The channels that belong to a user. They do not tell whose they are: the second is the first of a user whose name ends
/// in `:state`.
pub(crate) fn channel_names(names: &Names, user: &str) -> [String; 2] {
    [names.raw(user), names.state_channel(user)]
}

/// What a message on the channel `notify:<name>` means to someone who listens for these users.
pub(crate) fn published_on(name: &str, data: &[u8], listens: impl Fn(&str) -> bool) -> Vec<Event> {
    let raw = listens(name).then(|| Event::Raw { user: name.to_owned(), data: data.to_vec() });
    let user = name.strip_suffix(":state").filter(|user| listens(user));
    let changed = user.map(|user| Event::StateChanged { user: user.to_owned() });
    raw.into_iter().chain(changed).collect()
}

impl Engine {
    async fn user_state(&self, user: &str) -> Result<State, BrokerError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.names().state(user));
        let fields: Vec<(Vec<u8>, Vec<u8>)> = self.read(&command).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(fields.iter().map(|(field, value)| (text(field), text(value))).collect())
    }

    async fn set_user_state(&self, user: &str, state: &State) -> Result<(), BrokerError> {
        let mut call = SET.key(self.names().state(user));
        call.arg(self.names().state_channel(user));
        for (field, value) in state {
            call.arg(field).arg(value);
        }
        self.eval(&call).await
    }

    async fn publish_to_user(&self, user: &str, data: &[u8]) -> Result<(), BrokerError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.names().raw(user)).arg(data);
        self.run(&command).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_another_s_state_is_heard_by_both() {
        let data = b"x".as_slice();
        let raw = |user: &str| Event::Raw { user: user.into(), data: data.to_vec() };
        let changed = || Event::StateChanged { user: "42".into() };
        let received = |name, users: &[&str]| published_on(name, data, |user| users.contains(&user));
        assert_eq!(received("42", &["42", "42:state"]), [raw("42")]);
        assert_eq!(received("42:state", &["42"]), [changed()]);
        assert_eq!(received("42:state", &["42:state", "42"]), [raw("42:state"), changed()]);
        assert_eq!(received("42:state", &["43"]), []);
    }
}
