mod direct;
mod refill;

use std::slice::from_ref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use carillon_broker::{Broker, BrokerEvent, EntryKind, Stored};

use super::received::{RING_MAX_FRAMES, RINGS_MAX_BYTES};
use super::ring::{TAKE_MAX_BYTES, TAKE_MAX_FRAMES};
use super::*;

pub(super) fn at(ms: u64) -> Position {
    Position { ms, n: 0 }
}

pub(super) fn topic(name: &str) -> Audience {
    Audience::Topic(name.to_owned())
}

pub(super) fn fanout(audience: &Audience, epoch: &str, chain: &[(u64, u64)]) -> Fanout {
    let stored = |(position, prev): &(u64, u64)| Stored {
        position: at(*position),
        prev: at(*prev),
        kind: EntryKind::Notification,
        raw: format!("entry {position}").into_bytes(),
    };
    Fanout {
        audience: audience.clone(),
        epoch: epoch.to_owned(),
        claimed_by: "bff-1".to_owned(),
        entries: chain.iter().map(stored).collect(),
    }
}

/// Confirms the audiences, whose histories end at `tail`.
pub(super) fn subscribed(hub: &Hub, audiences: &[Audience], epoch: &str, tail: u64) {
    let tail = Cursor { epoch: epoch.to_owned(), position: at(tail) };
    let audiences: Vec<_> = audiences.iter().map(|one| (one.clone(), Some(tail.position))).collect();
    hub.subscribed(&audiences, &tail);
}

pub(super) fn hub() -> Hub {
    Hub::new(FanOut::All, Subscriptions::default())
}

pub(super) fn join(hub: &Hub, audiences: &[Audience]) -> (ReaderId, Option<u64>) {
    join_at(hub, audiences, &Arc::default())
}

pub(super) fn join_at(hub: &Hub, audiences: &[Audience], notify: &Arc<Notify>) -> (ReaderId, Option<u64>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = hub.join(id, audiences.into(), notify);
    (id, now.map(|cursor| cursor.position.ms))
}

/// Returns the positions that a reader takes, or `Behind` as the position to read from.
pub(super) fn take(hub: &Hub, id: ReaderId) -> Result<Vec<u64>, u64> {
    match hub.next(id) {
        Next::Frames(frames) => Ok(frames.iter().map(|frame| frame.position.ms).collect()),
        Next::Behind(cursor) => Err(cursor.position.ms),
        Next::Wait => Ok(vec![]),
        other => panic!("{other:?} was not expected"),
    }
}

/// Returns the cursor of a heartbeat.
pub(super) fn cursor(hub: &Hub, id: ReaderId) -> String {
    hub.cursor(id).unwrap().to_string()
}

pub(super) fn caught_up(hub: &Hub, id: ReaderId, epoch: &str, ms: u64) {
    hub.set_position(id, &Cursor { epoch: epoch.to_owned(), position: at(ms) });
}

/// Returns a hub whose only reader has everything up to position 10, the end of the histories of its audiences.
pub(super) fn live_reader(audiences: &[Audience]) -> (Hub, ReaderId) {
    let hub = hub();
    let (id, _) = join(&hub, audiences);
    subscribed(&hub, audiences, "e", 10);
    caught_up(&hub, id, "e", 10);
    (hub, id)
}

#[test]
fn a_reader_waits_for_its_subscription_and_is_behind_earlier_entries() {
    let hub = hub();
    let everyone = [Audience::Everyone];
    let (early, now) = join(&hub, &everyone);
    assert_eq!(now, None);
    caught_up(&hub, early, "e", 5);
    assert_eq!(take(&hub, early), Ok(vec![]));
    subscribed(&hub, &everyone, "e", 10);
    assert_eq!(take(&hub, early), Err(5));
    caught_up(&hub, early, "e", 10);
    let (late, now) = join(&hub, &everyone);
    assert_eq!(now, Some(10), "a reader that joins a subscribed ring needs no query");
    hub.fanout(&fanout(&everyone[0], "e", &[(11, 10), (12, 11)]));
    assert_eq!(take(&hub, early), Ok(vec![11, 12]));
    assert_eq!(take(&hub, late), Ok(vec![11, 12]));
    assert_eq!(take(&hub, late), Ok(vec![]));
}

#[test]
fn messages_before_the_confirmation_are_ignored_and_none_is_sent_twice() {
    let hub = hub();
    let everyone = [Audience::Everyone];
    let (id, _) = join(&hub, &everyone);
    caught_up(&hub, id, "e", 10);
    hub.fanout(&fanout(&everyone[0], "e", &[(11, 10)]));
    // A message of an earlier subscription; 12 was published between the two, and is only in history.
    subscribed(&hub, &everyone, "e", 12);
    assert_eq!(take(&hub, id), Err(10));
    caught_up(&hub, id, "e", 12);
    hub.fanout(&fanout(&everyone[0], "e", &[(11, 10), (13, 12)]));
    assert_eq!(take(&hub, id), Ok(vec![13]));
}

#[test]
fn frames_of_several_audiences_come_in_the_order_of_the_sequence() {
    let both = [topic("a"), topic("b")];
    let (hub, id) = live_reader(&both);
    hub.fanout(&fanout(&both[0], "e", &[(11, 10), (12, 11)]));
    hub.fanout(&fanout(&both[1], "e", &[(13, 0)]));
    hub.fanout(&fanout(&both[0], "e", &[(14, 12)]));
    assert_eq!(take(&hub, id), Ok(vec![11, 12, 13, 14]));
}

#[test]
fn a_reader_that_the_ring_has_overtaken_is_behind_and_others_are_not() {
    let hub = hub();
    let everyone = [Audience::Everyone];
    let (slow, _) = join(&hub, &everyone);
    let (quick, _) = join(&hub, &everyone);
    subscribed(&hub, &everyone, "e", 10);
    caught_up(&hub, slow, "e", 10);
    caught_up(&hub, quick, "e", 10);
    let mut last = 10;
    for _ in 0..(RING_MAX_FRAMES + 5) {
        hub.fanout(&fanout(&everyone[0], "e", &[(last + 1, last)]));
        last += 1;
        assert_eq!(take(&hub, quick), Ok(vec![last]));
    }
    assert_eq!(take(&hub, slow), Err(10));
    caught_up(&hub, slow, "e", last - 3);
    assert_eq!(take(&hub, slow), Ok(vec![last - 2, last - 1, last]));
}

#[test]
fn all_rings_together_stay_within_their_bytes() {
    let hub = hub();
    let audiences: Vec<_> = (0..8).map(|n| topic(&n.to_string())).collect();
    for audience in &audiences {
        join(&hub, from_ref(audience));
    }
    subscribed(&hub, &audiences, "e", 1);
    let body = "x".repeat(60_000);
    let mut position = 1;
    let mut prev = HashMap::new();
    for _ in 0..120 {
        for audience in &audiences {
            position += 1;
            let prev = prev.insert(audience, position).unwrap_or(0);
            let raw = format!(r#"{{"title":"t","data":"{body}"}}"#).into_bytes();
            let stored =
                Stored { position: at(position), prev: at(prev), kind: EntryKind::Notification, raw };
            hub.fanout(&Fanout {
                audience: audience.clone(),
                epoch: "e".into(),
                claimed_by: "b".into(),
                entries: vec![stored],
            });
        }
    }
    let state = hub.state.lock();
    let held: usize = state.rings.values().flat_map(|ring| &ring.frames).map(|frame| frame.text.len()).sum();
    assert!(held == state.bytes && held <= RINGS_MAX_BYTES && held > RINGS_MAX_BYTES / 2, "{held}");
    let fronts: BTreeMap<_, _> =
        state.rings.iter().filter_map(|(audience, ring)| Some((ring.front()?, audience.clone()))).collect();
    assert_eq!(state.fronts, fronts);
}

#[test]
fn a_hole_rewinds_readers_even_when_another_audience_moved_them_past_it() {
    let both = [topic("a"), topic("b")];
    let (hub, id) = live_reader(&both);
    hub.fanout(&fanout(&both[1], "e", &[(14, 0)]));
    assert_eq!(take(&hub, id), Ok(vec![14]));
    hub.fanout(&fanout(&both[0], "e", &[(15, 12)]));
    assert_eq!(take(&hub, id), Err(10), "12 was never received, and the reader is at 14");
    // A second hole, found during the read for the first, is not lost when that read ends.
    hub.fanout(&fanout(&both[0], "e", &[(19, 17)]));
    caught_up(&hub, id, "e", 19);
    assert_eq!(take(&hub, id), Err(15));
    caught_up(&hub, id, "e", 19);
    assert_eq!(take(&hub, id), Ok(vec![]));
}

#[test]
fn of_two_holes_the_earlier_one_counts() {
    let everyone = [Audience::Everyone];
    let (hub, id) = live_reader(&everyone);
    hub.fanout(&fanout(&everyone[0], "e", &[(15, 12)]));
    hub.fanout(&fanout(&everyone[0], "e", &[(19, 17)]));
    caught_up(&hub, id, "e", 19);
    assert_eq!(take(&hub, id), Err(10));
}

#[test]
fn a_heartbeat_has_a_cursor_before_a_hole() {
    let both = [topic("a"), topic("b")];
    let (hub, id) = live_reader(&both);
    hub.fanout(&fanout(&both[1], "e", &[(14, 0)]));
    assert_eq!(take(&hub, id), Ok(vec![14]));
    // After the hole comes an entry that no reader can get, so that no frame waits either.
    let unreadable =
        Stored { position: at(15), prev: at(12), kind: EntryKind::Notification, raw: b"{".to_vec() };
    hub.fanout(&Fanout {
        audience: topic("a"),
        epoch: "e".into(),
        claimed_by: "b".into(),
        entries: vec![unreadable],
    });
    assert_eq!(
        cursor(&hub, id),
        "e.10-0",
        "a client that is cut off now must not resume after entries that it has not received"
    );
}

#[test]
fn an_entry_received_twice_is_taken_once() {
    let everyone = [Audience::Everyone];
    let (hub, id) = live_reader(&everyone);
    hub.fanout(&fanout(&everyone[0], "e", &[(11, 10)]));
    hub.fanout(&fanout(&everyone[0], "e", &[(11, 10), (12, 11)]));
    assert_eq!(take(&hub, id), Ok(vec![11, 12]));
}

#[test]
fn a_reader_that_joins_gets_no_earlier_entries() {
    let hub = hub();
    let both = [topic("quiet"), topic("loud")];
    join(&hub, &both);
    subscribed(&hub, &both, "e", 10);
    hub.fanout(&fanout(&both[1], "e", &[(11, 10)]));
    let (loud, now) = join(&hub, &both[1..]);
    assert_eq!((now, take(&hub, loud)), (Some(11), Ok(vec![])));
    assert_eq!(join(&hub, &both[..1]).1, Some(11));
    hub.fanout(&fanout(&both[1], "f", &[(3, 0)]));
    assert_eq!(join(&hub, &both[..1]).1, Some(3), "of the new epoch");
}

#[test]
fn a_reader_takes_a_bounded_number_of_frames_and_bytes_at_once() {
    let everyone = [Audience::Everyone];
    let (hub, id) = live_reader(&everyone);
    let small: Vec<_> = (11..=110).map(|ms| (ms, ms - 1)).collect();
    hub.fanout(&fanout(&everyone[0], "e", &small));
    assert_eq!(take(&hub, id).unwrap().len(), TAKE_MAX_FRAMES);
    assert_eq!(take(&hub, id).unwrap().len(), 100 - TAKE_MAX_FRAMES);
    let raw = format!(r#"{{"body":"b","data":"{}"}}"#, "x".repeat(TAKE_MAX_BYTES / 2)).into_bytes();
    let large =
        |ms| Stored { position: at(ms), prev: at(ms - 1), kind: EntryKind::Notification, raw: raw.clone() };
    hub.fanout(&Fanout {
        audience: Audience::Everyone,
        epoch: "e".into(),
        claimed_by: "b".into(),
        entries: (111..=115).map(large).collect(),
    });
    assert_eq!(take(&hub, id), Ok(vec![111, 112]));
    assert_eq!(take(&hub, id), Ok(vec![113, 114]));
}

#[test]
fn a_new_epoch_makes_all_readers_behind_without_a_lost_connection() {
    let hub = hub();
    let both = [topic("a"), topic("b")];
    let (id, _) = join(&hub, &both);
    subscribed(&hub, &both, "e", 50);
    caught_up(&hub, id, "e", 50);
    hub.fanout(&fanout(&both[0], "f", &[(3, 0)]));
    assert_eq!(take(&hub, id), Err(50));
    caught_up(&hub, id, "f", 3);
    assert_eq!(take(&hub, id), Ok(vec![]));
    hub.fanout(&fanout(&both[1], "f", &[(4, 0)]));
    assert_eq!(take(&hub, id), Ok(vec![4]));
}

#[tokio::test(start_paused = true)]
async fn after_an_echo_of_a_new_epoch_no_reader_is_behind() {
    let (broker, faults) = Broker::memory(Arc::new(|| 1_000));
    let subscriptions = Subscriptions::default();
    let hub = Hub::new(FanOut::All, subscriptions.clone());
    let (id, _) = join(&hub, &[topic("a")]);
    let listening = broker.listen(&subscriptions, FanOut::All, |event| match event {
        BrokerEvent::Subscribed { audiences, tail } => hub.subscribed(&audiences, &tail),
        BrokerEvent::Echo { tail } => hub.echo(&tail),
        _ => {}
    });
    let test = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        hub.set_position(id, &broker.tail().await.unwrap());
        assert_eq!(take(&hub, id), Ok(vec![]));
        faults.flush();
        // Like a reader that has resumed through history.
        hub.set_position(id, &broker.tail().await.unwrap());
        assert!(take(&hub, id).is_err(), "nothing was published in the new epoch");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(take(&hub, id), Ok(vec![]));
        // An echo that was overtaken is corrected by the next.
        hub.echo(&Cursor { epoch: "older".into(), position: at(1) });
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(take(&hub, id), Ok(vec![]));
    };
    tokio::select! {
        () = listening => panic!("a listener never ends"),
        () = test => {}
    }
}

#[test]
fn the_cursor_of_a_live_reader_moves_on_with_other_audiences() {
    let hub = hub();
    let both = [topic("quiet"), topic("loud")];
    let (quiet, _) = join(&hub, &both[..1]);
    let (loud, _) = join(&hub, &both[1..]);
    subscribed(&hub, &both, "e", 10);
    caught_up(&hub, quiet, "e", 9);
    caught_up(&hub, loud, "e", 10);
    hub.fanout(&fanout(&both[1], "e", &[(11, 10)]));
    assert_eq!(cursor(&hub, quiet), "e.9-0", "the reader is behind");
    caught_up(&hub, quiet, "e", 10);
    assert_eq!(cursor(&hub, quiet), "e.11-0");
    assert_eq!(cursor(&hub, loud), "e.10-0", "the reader has not taken 11 yet");
    // An echo is not in order with entries: an entry that was published before it may still be under way.
    subscribed(&hub, &[topic("new")], "e", 20);
    assert_eq!(cursor(&hub, quiet), "e.11-0");
    hub.fanout(&fanout(&both[1], "f", &[(30, 0)]));
    assert_eq!(cursor(&hub, quiet), "e.11-0", "positions of another epoch do not apply");
}

#[test]
fn the_last_reader_of_an_audience_ends_its_subscription() {
    let hub = hub();
    let (one, _) = join(&hub, &[topic("a")]);
    let (two, _) = join(&hub, &[topic("a"), topic("b")]);
    subscribed(&hub, &[topic("a"), topic("b")], "e", 10);
    hub.fanout(&fanout(&topic("a"), "e", &[(11, 10)]));
    hub.leave(two);
    hub.leave(two);
    assert_eq!(hub.state.lock().rings.keys().cloned().collect::<Vec<_>>(), [topic("a")]);
    hub.leave(one);
    let state = hub.state.lock();
    assert!(
        state.rings.is_empty() && state.readers.is_empty() && state.fronts.is_empty() && state.bytes == 0
    );
}

#[test]
fn in_own_mode_a_reader_is_live_at_once_and_never_behind() {
    let hub = Hub::new(FanOut::Own, Subscriptions::default());
    let everyone = [Audience::Everyone];
    let (id, now) = join(&hub, &everyone);
    assert_eq!(now, Some(0));
    hub.fanout(&fanout(&everyone[0], "e", &[(11, 0)]));
    assert_eq!(take(&hub, id), Ok(vec![11]));
    for ms in 12..(12 + RING_MAX_FRAMES as u64 + 3) {
        hub.fanout(&fanout(&everyone[0], "e", &[(ms, 0)]));
    }
    assert_eq!(take(&hub, id).unwrap()[0], 15);
}
