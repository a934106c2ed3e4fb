use std::sync::Arc;

use carillon_broker::FanOut;
use carillon_protocol::{Audience, Position};
use tokio::sync::Notify;

use super::ring::Ring;
use super::{Hub, ReaderId, State};

impl Hub {
    /// How many distinct topics have a reader here.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.state().topics
    }

    /// Whether an audience has a reader here.
    #[must_use]
    pub fn has(&self, audience: &Audience) -> bool {
        self.state().rings.contains_key(audience)
    }

    /// Gives a reader another audience from where it stands, until it leaves it. Returns whether it is new to it.
    pub fn subscribe(&self, id: ReaderId, audience: &Audience) -> bool {
        let mut state = self.state();
        let Some(reader) = state.readers.get_mut(&id) else { return false };
        if reader.audiences.contains(audience) {
            return false;
        }
        reader.audiences = reader.audiences.iter().chain([audience]).cloned().collect();
        let notify = Arc::clone(&reader.notify);
        self.enter(&mut state, audience, id, &notify);
        notify.notify_one();
        true
    }

    /// Takes an audience from a reader again. Returns whether it had it.
    pub fn unsubscribe(&self, id: ReaderId, audience: &Audience) -> bool {
        let mut state = self.state();
        let Some(reader) = state.readers.get_mut(&id) else { return false };
        if !reader.audiences.contains(audience) {
            return false;
        }
        reader.audiences = reader.audiences.iter().filter(|other| *other != audience).cloned().collect();
        self.exit(&mut state, audience, id);
        true
    }

    /// The audiences that a reader has now.
    #[must_use]
    pub fn audiences(&self, id: ReaderId) -> Arc<[Audience]> {
        self.state().readers.get(&id).map_or_else(|| [].into(), |reader| Arc::clone(&reader.audiences))
    }

    pub(super) fn enter(&self, state: &mut State, audience: &Audience, id: ReaderId, notify: &Arc<Notify>) {
        let live_only = self.fan_out == FanOut::Own;
        if matches!(audience, Audience::Topic(_)) && !state.rings.contains_key(audience) {
            state.topics += 1;
        }
        let ring = state.rings.entry(audience.clone()).or_insert_with(|| {
            // Under the hub's lock, so that a join and a leave cannot overtake each other.
            self.subscriptions.add(audience.clone());
            Ring { floor: live_only.then_some(Position::ZERO), ..Ring::default() }
        });
        ring.readers.insert(id, Arc::clone(notify));
        self.want_value(state, audience, id);
        self.user_has_changed(state, audience);
    }

    pub(super) fn exit(&self, state: &mut State, audience: &Audience, id: ReaderId) {
        let Some(ring) = state.rings.get_mut(audience) else { return };
        ring.readers.remove(&id);
        ring.wanting.remove(&id);
        if ring.readers.is_empty() {
            let (front, bytes) = (ring.front(), ring.clear());
            state.bytes -= bytes;
            state.rings.remove(audience);
            state.topics -= usize::from(matches!(audience, Audience::Topic(_)));
            state.update_front(audience, front, None);
            self.subscriptions.remove(audience);
        }
        self.user_has_changed(state, audience);
    }
}
