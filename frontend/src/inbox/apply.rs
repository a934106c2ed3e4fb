//! How single events change an inbox.

use std::sync::Arc;

use carillon_protocol::{Audience, ClientMessage, Delivery, GapReason, Resume, parse_timestamp};

use super::{Inbox, Item, Message, Past, Row, Sent};
use crate::clock::Now;

impl Inbox {
    /// Applies the passing of time.
    pub(super) fn settle(&mut self, now: Now) {
        self.stack.settle(now.ms);
        self.rows.drop_expired(now.ms);
        self.catch_up.settle(now.ms);
        if self.reading.settle(now.ms, !self.rows.away()) {
            self.send_read();
        }
        if self.live {
            self.frames.extend(self.acks.frames(now.ms));
        }
    }

    pub(super) fn came(&mut self, now: Now, delivery: Delivery) {
        let item = Item::new(now, delivery);
        self.race.won(now.ms, &item.replica);
        self.catch_up.came(now.ms, item.at_ms);
        let Some((item, fresh, repeated)) = self.take_in(now, item) else { return };
        if fresh {
            self.stack.push(now.ms, item);
        } else {
            self.stack.update(now.ms, item, repeated);
        }
    }

    /// Adds an item to the list. Returns the item, whether it has a new row, and whether it repeats the known state of a
    /// job; `None` for an item that is not shown.
    fn take_in(&mut self, now: Now, mut item: Item) -> Option<(Arc<Item>, bool, bool)> {
        // A message to the user himself is in the list already.
        let own = item.sender.is_some() && item.sender == self.me;
        if item.expired(now.ms) || (own && self.sent.knows(&item.id)) {
            return None;
        }
        let earlier = self.rows.earlier(&item);
        if earlier.is_some_and(|earlier| earlier.outdates(&item)) {
            return None;
        }
        let repeated = earlier.is_some_and(|earlier| earlier.job.is_some() && earlier.job == item.job);
        let slot = earlier.map(|earlier| earlier.slot);
        item.slot = slot.unwrap_or_else(|| self.new_slot());
        if let Some(cursor) = &item.cursor {
            self.reading.came(cursor);
            if let Some(named) = item.named().filter(|_| self.me.is_some())
                && self.reading.is_unread(cursor)
            {
                self.acks.shown(now.ms, named);
            }
        }
        let item = Arc::new(item);
        self.rows.push(Row::Item(Arc::clone(&item)));
        Some((item, slot.is_none(), repeated))
    }

    pub(super) fn fill(&mut self, now: Now, past: Past) {
        let Past { items, sent, since, next, gap, read } = past;
        self.began = Some(since);
        if let Ok(read) = read.unwrap_or_default().parse() {
            self.reading.confirm(read);
        }
        if gap {
            self.push_gap(GapReason::Trimmed, None);
        }
        let mut sent = sent.into_iter().peekable();
        for delivery in items {
            let at_ms = parse_timestamp(&delivery.notification.created_at).unwrap_or(now.wall_ms);
            while let Some(message) = sent.next_if(|message| message.at_ms < at_ms) {
                self.put_sent(message);
            }
            let item = Item::new(now, delivery);
            self.race.won(now.ms, &item.replica);
            // It is older than this page, so it gets no toast.
            self.take_in(now, item);
        }
        for message in sent {
            self.put_sent(message);
        }
        if self.me.is_none()
            && let Ok(next) = next.parse()
        {
            // The server keeps no read position of an anonymous reader: the page counts as read when it is loaded.
            self.reading.move_to(next);
        }
    }

    pub(super) fn welcomed(&mut self, now: Now, resume: Resume, cursor: String, read: Option<String>) {
        self.live = true;
        self.catch_up.welcomed(now.ms, resume);
        match read {
            Some(read) => self.receive_read(&read),
            // Later notifications are unread.
            None if self.me.is_none() && self.reading.position().is_none() => {
                if let Ok(cursor) = cursor.parse() {
                    self.reading.move_to(cursor);
                }
            }
            None => {}
        }
        self.began.get_or_insert(Some(cursor));
        self.acks.welcomed(now.ms);
        self.frames.extend(self.sent.frames());
        self.send_read();
    }

    pub(super) fn lost(&mut self) {
        self.live = false;
        // The next welcome sends the frames that are still needed.
        self.frames.clear();
    }

    pub(super) fn send(&mut self, now: Now, id: String, to: String, text: String) {
        let message = Message { slot: 0, id, to, text, at_ms: now.wall_ms, status: None, failed: None };
        self.rows.set_away(false);
        self.send_frame(Sent::frame(&message));
        self.put_sent(message);
    }

    fn put_sent(&mut self, message: Message) {
        let slot = self.new_slot();
        let message = self.sent.push(Message { slot, ..message });
        self.rows.push(Row::Sent(message));
    }

    pub(super) fn show_sent(&mut self, message: Option<Arc<Message>>) {
        // A row that was removed stays removed.
        drop(message.map(|message| self.rows.replace(Row::Sent(message))));
    }

    /// Shows the state of a job from the server, or from this page itself.
    pub(super) fn show_job(&mut self, now: Now, item: Item) {
        let known = self.rows.earlier(&item).is_some();
        // A job that has ended and is not in the list is not shown.
        if !known && !item.is_running() {
            return;
        }
        if let Some((item, fresh, repeated)) = self.take_in(now, item) {
            // The page queries the jobs when it starts: a running job gets its toast again.
            if fresh || item.is_running() {
                self.stack.push(now.ms, item);
            } else {
                self.stack.update(now.ms, item, repeated);
            }
        }
    }

    pub(super) fn receive_read(&mut self, cursor: &str) {
        if let Ok(cursor) = cursor.parse() {
            self.reading.confirm(cursor);
        }
    }

    /// Sends the read position to the server, if the server does not have it.
    pub(super) fn send_read(&mut self) {
        if self.me.is_none() || !self.live {
            return;
        }
        let messages = self.rows.items().filter_map(|item| Some((item.named()?, item.cursor.as_ref()?)));
        self.frames.extend(self.reading.frames(messages));
    }

    /// Sends a frame if there is a connection.
    pub(super) fn send_frame(&mut self, frame: Option<ClientMessage>) {
        self.frames.extend(frame.filter(|_| self.live));
    }

    pub(super) fn push_gap(&mut self, reason: GapReason, audience: Option<Audience>) {
        let slot = self.new_slot();
        self.rows.push(Row::Gap { slot, reason, audience });
    }

    fn new_slot(&mut self) -> u64 {
        self.last_slot += 1;
        self.last_slot
    }
}
