use std::sync::Arc;

use carillon_broker::FanOut;
use carillon_protocol::{Audience, Position};
use tokio::sync::Notify;

use super::ring::Ring;
use super::{Hub, ReaderId, State};

impl Hub {
    /// The number of distinct topics that have a reader here.
    pub fn topics(&self) -> usize {
        self.state.lock().topics
    }

    /// Whether an audience has a reader here.
    pub fn has(&self, audience: &Audience) -> bool {
        self.state.lock().rings.contains_key(audience)
    }

    /// Adds an audience to a reader, from its position on. Returns whether the reader did not have it.
    pub fn subscribe(&self, id: ReaderId, audience: &Audience) -> bool {
        let mut state = self.state.lock();
        let Some(reader) = state.readers.get_mut(&id) else { return false };
        if reader.audiences.contains(audience) {
            return false;
        }
        reader.audiences = reader.audiences.iter().chain([audience]).cloned().collect();
        let notify = Arc::clone(&reader.notify);
        self.add_reader(&mut state, audience, id, &notify);
        notify.notify_one();
        true
    }

    /// Removes an audience from a reader. Returns whether the reader had it.
    pub fn unsubscribe(&self, id: ReaderId, audience: &Audience) -> bool {
        let mut state = self.state.lock();
        let Some(reader) = state.readers.get_mut(&id) else { return false };
        if !reader.audiences.contains(audience) {
            return false;
        }
        reader.audiences = reader.audiences.iter().filter(|other| *other != audience).cloned().collect();
        self.remove_reader(&mut state, audience, id);
        true
    }

    /// The audiences of a reader.
    pub fn audiences(&self, id: ReaderId) -> Arc<[Audience]> {
        self.state.lock().readers.get(&id).map_or_else(|| [].into(), |reader| Arc::clone(&reader.audiences))
    }

    pub(super) fn add_reader(
        &self,
        state: &mut State,
        audience: &Audience,
        id: ReaderId,
        notify: &Arc<Notify>,
    ) {
        let live_only = self.fan_out == FanOut::Own;
        if matches!(audience, Audience::Topic(_)) && !state.rings.contains_key(audience) {
            state.topics += 1;
        }
        let ring = state.rings.entry(audience.clone()).or_insert_with(|| {
            // Under the hub's lock, so that a subscription and its removal stay in order.
            self.subscriptions.add(audience.clone());
            Ring { floor: live_only.then_some(Position::ZERO), ..Ring::default() }
        });
        ring.readers.insert(id, Arc::clone(notify));
        self.request_value(state, audience, id);
        self.user_has_changed(state, audience);
    }

    pub(super) fn remove_reader(&self, state: &mut State, audience: &Audience, id: ReaderId) {
        let Some(ring) = state.rings.get_mut(audience) else { return };
        ring.readers.remove(&id);
        ring.without_value.remove(&id);
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
