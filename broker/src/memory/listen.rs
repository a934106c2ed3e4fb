use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::MemoryEngine;
use crate::event::{Generations, unconfirmed};
use crate::limits::MEMORY_LISTENER_MAX_MESSAGES;
use crate::{Event, Subscriptions};

pub(super) struct Listener {
    events: mpsc::Sender<Event>,
    pub(super) subscribed: Generations,
}

impl MemoryEngine {
    /// Hands an event to the listeners that want it. One that is full is cut, as Redis cuts a slow subscriber.
    pub(super) fn send(&self, event: &Event, wants: impl Fn(&Listener) -> bool) {
        self.listeners()
            .retain(|listener| !wants(listener) || listener.events.try_send(event.clone()).is_ok());
    }

    /// Tells every listener.
    pub(crate) fn tell_all(&self, event: &Event) {
        self.send(event, |_| true);
    }

    /// Hands each listener the events that are for what it has subscribed to.
    pub(crate) fn send_each(&self, events: impl Fn(&Generations) -> Vec<Event>) {
        let hear = |listener: &Listener, event| listener.events.try_send(event).is_ok();
        self.listeners()
            .retain(|listener| events(&listener.subscribed).into_iter().all(|event| hear(listener, event)));
    }

    pub(crate) async fn listen(&self, subscriptions: &Subscriptions, mut on: impl FnMut(Event)) {
        loop {
            let back = self.back.notified();
            if !self.away.load(Ordering::SeqCst) {
                let (sender, mut events) = mpsc::channel(MEMORY_LISTENER_MAX_MESSAGES);
                let key = sender.downgrade();
                self.listeners().push(Listener { events: sender, subscribed: Generations::new() });
                on(Event::Up);
                let is_this = |listener: &Listener| {
                    key.upgrade().is_some_and(|ours| ours.same_channel(&listener.events))
                };
                self.follow(subscriptions, &is_this, &mut on);
                loop {
                    tokio::select! {
                        event = events.recv() => match event {
                            Some(event) => on(event),
                            None => break,
                        },
                        () = subscriptions.changed() => self.follow(subscriptions, &is_this, &mut on),
                    }
                }
                on(Event::Down);
            } else {
                back.await;
            }
        }
    }

    fn follow(
        &self,
        subscriptions: &Subscriptions,
        is_this: &impl Fn(&Listener) -> bool,
        on: &mut impl FnMut(Event),
    ) {
        let new: Vec<_> = {
            let mut listeners = self.listeners();
            let Some(listener) = listeners.iter_mut().find(|listener| is_this(listener)) else { return };
            let wanted = subscriptions.wanted();
            let new = unconfirmed(&wanted, &listener.subscribed);
            listener.subscribed = wanted;
            new
        };
        if let (false, Ok(tail)) = (new.is_empty(), self.tail()) {
            on(Event::Subscribed { audiences: new, tail });
        }
    }
}
