//! How single events change an inbox.

use std::sync::Arc;

use carillon_protocol::{Audience, ClientMessage, Delivery, GapReason, Resume, parse_timestamp};

use super::{Inbox, Item, Message, Past, Row, Sent};
use crate::clock::Now;

impl Inbox {
    /// What follows from the time that has passed.
    pub(super) fn settle(&mut self, now: Now) {
        self.stack.settle(now.ms);
        self.rows.drop_expired(now.ms);
        self.catch_up.settle(now.ms);
        if self.reading.settle(now.ms, !self.rows.away()) {
            self.say_read();
        }
        if self.live {
            self.frames.extend(self.acks.frames(now.ms));
        }
    }

    pub(super) fn came(&mut self, now: Now, delivery: Delivery) {
        let item = Item::new(now, delivery);
        self.race.won(now.ms, &item.replica);
        self.catch_up.came(now.ms, item.at_ms);
        let Some((item, fresh, told)) = self.take_in(now, item) else { return };
        if fresh {
            self.stack.push(now.ms, item);
        } else {
            self.stack.update(now.ms, item, told);
        }
    }

    /// Puts an item into the list, and tells whether it has a row of its own, and whether it says no more of a job than was
    /// known. What is not to be shown is not given back.
    fn take_in(&mut self, now: Now, mut item: Item) -> Option<(Arc<Item>, bool, bool)> {
        // A user who writes to himself has the message in the list already.
        let own = item.sender.is_some() && item.sender == self.me;
        if item.expired(now.ms) || (own && self.sent.knows(&item.id)) {
            return None;
        }
        let earlier = self.rows.earlier(&item);
        if earlier.is_some_and(|earlier| earlier.outdates(&item)) {
            return None;
        }
        let told = earlier.is_some_and(|earlier| earlier.job.is_some() && earlier.job == item.job);
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
        Some((item, slot.is_none(), told))
    }

    pub(super) fn fill(&mut self, now: Now, past: Past) {
        let Past { items, sent, since, next, gap, read } = past;
        self.began = Some(since);
        if let Ok(read) = read.unwrap_or_default().parse() {
            self.reading.heard(read);
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
            // It rang before this page was there: no toast.
            self.take_in(now, item);
        }
        for message in sent {
            self.put_sent(message);
        }
        if self.me.is_none()
            && let Ok(next) = next.parse()
        {
            // Nobody is told how far an unknown reader has read: whoever loads the page has seen it.
            self.reading.move_to(next);
        }
    }

    pub(super) fn welcomed(&mut self, now: Now, resume: Resume, cursor: String, read: Option<String>) {
        self.live = true;
        self.catch_up.welcomed(now.ms, resume);
        match read {
            Some(read) => self.heard_read(&read),
            // What comes from here on has not been read.
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
        self.say_read();
    }

    pub(super) fn lost(&mut self) {
        self.live = false;
        // Whatever still holds is said again after the next welcome.
        self.frames.clear();
    }

    pub(super) fn send(&mut self, now: Now, id: String, to: String, text: String) {
        let message = Message { slot: 0, id, to, text, at_ms: now.wall_ms, status: None, failed: None };
        self.rows.set_away(false);
        self.say(Sent::frame(&message));
        self.put_sent(message);
    }

    fn put_sent(&mut self, message: Message) {
        let slot = self.new_slot();
        let message = self.sent.push(Message { slot, ..message });
        self.rows.push(Row::Sent(message));
    }

    pub(super) fn show_sent(&mut self, message: Option<Arc<Message>>) {
        // One whose row is forgotten stays so.
        drop(message.map(|message| self.rows.replace(Row::Sent(message))));
    }

    /// A job of which the server, or this page itself, says how it stands.
    pub(super) fn show_job(&mut self, now: Now, item: Item) {
        let known = self.rows.earlier(&item).is_some();
        // One that has ended and that the list does not show is of no interest.
        if !known && !item.runs() {
            return;
        }
        if let Some((item, fresh, told)) = self.take_in(now, item) {
            // The server is asked when the page begins: what still runs then has its toast again.
            if fresh || item.runs() {
                self.stack.push(now.ms, item);
            } else {
                self.stack.update(now.ms, item, told);
            }
        }
    }

    pub(super) fn heard_read(&mut self, cursor: &str) {
        if let Ok(cursor) = cursor.parse() {
            self.reading.heard(cursor);
        }
    }

    /// Tells the server how far the user has read, where it does not know.
    pub(super) fn say_read(&mut self) {
        if self.me.is_none() || !self.live {
            return;
        }
        let messages = self.rows.items().filter_map(|item| Some((item.named()?, item.cursor.as_ref()?)));
        self.frames.extend(self.reading.frames(messages));
    }

    /// Says something where there is a connection.
    pub(super) fn say(&mut self, frame: Option<ClientMessage>) {
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
