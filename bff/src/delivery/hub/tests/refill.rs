use super::{at, caught_up, fanout, hub, join, live_reader, subscribed, take, topic};
use crate::delivery::hub::received::RING_MAX_FRAMES;
use crate::delivery::hub::*;

fn refilled(hub: &Hub, missed: Option<&[u64]>) -> (u64, u64) {
    let refill = hub.next_refill().expect("something is to be read");
    let frame = |ms: &u64| {
        let entries = fanout(&refill.audience, "e", &[(*ms, 0)]).entries;
        Arc::new(Frame::encode("e", "bff-1", &entries[0]).unwrap())
    };
    hub.refilled(&refill, missed.map(|missed| missed.iter().map(frame).collect()));
    assert_eq!(hub.next_refill(), None);
    (refill.after.ms, refill.to.ms)
}

#[test]
fn after_a_lost_connection_without_missed_entries_no_reader_is_behind() {
    let everyone = [Audience::Everyone];
    let (hub, id) = live_reader(&everyone);
    hub.fanout(&fanout(&everyone[0], "e", &[(11, 10)]));
    hub.connection_lost();
    assert_eq!(take(&hub, id), Ok(vec![]), "no ring is complete before the connection is back");
    hub.subscribed(&[(Audience::Everyone, Some(at(11)))], &Cursor { epoch: "e".into(), position: at(20) });
    assert_eq!(hub.next_refill(), None);
    assert_eq!(take(&hub, id), Ok(vec![11]));
    hub.fanout(&fanout(&everyone[0], "e", &[(21, 11)]));
    assert_eq!(take(&hub, id), Ok(vec![21]));
}

#[test]
fn missed_entries_are_read_once_for_all_readers() {
    let hub = hub();
    let everyone = [Audience::Everyone];
    subscribed(&hub, &everyone, "e", 1);
    let (one, _) = join(&hub, &everyone);
    let (two, _) = join(&hub, &everyone);
    let (far, _) = join(&hub, &everyone);
    subscribed(&hub, &everyone, "e", 10);
    for (id, ms) in [(one, 10), (two, 10), (far, 9)] {
        caught_up(&hub, id, "e", ms);
    }
    hub.connection_lost();
    subscribed(&hub, &everyone, "e", 15);
    hub.fanout(&fanout(&everyone[0], "e", &[(16, 15)]));
    assert_eq!(take(&hub, one), Ok(vec![]), "the entries arrive in a moment");
    assert_eq!(take(&hub, far), Err(9), "it was behind before");
    assert_eq!(refilled(&hub, Some(&[12, 15])), (10, 15));
    for id in [one, two] {
        assert_eq!(take(&hub, id), Ok(vec![12, 15, 16]));
    }
    let state = hub.state.lock();
    let held: usize = state.rings.values().flat_map(|ring| &ring.frames).map(|frame| frame.text.len()).sum();
    assert_eq!(state.bytes, held);
    assert_eq!(state.fronts.keys().collect::<Vec<_>>(), [&at(12)]);
}

/// Fills a ring up to its bound and beyond, from a position on.
fn flood(hub: &Hub, from: u64) -> u64 {
    let last = from + RING_MAX_FRAMES as u64 + 5;
    for ms in from + 1..=last {
        hub.fanout(&fanout(&Audience::Everyone, "e", &[(ms, ms - 1)]));
    }
    last
}

#[test]
fn a_ring_that_evicts_frames_during_a_refill_hides_no_missed_entry() {
    let everyone = [Audience::Everyone];
    let (hub, id) = live_reader(&everyone);
    hub.fanout(&fanout(&everyone[0], "e", &[(11, 10), (12, 11)]));
    assert_eq!(take(&hub, id), Ok(vec![11, 12]));
    hub.connection_lost();
    subscribed(&hub, &everyone, "e", 20);
    let refill = hub.next_refill().unwrap();
    // First the frames from before the loss are evicted, then some from after it.
    let last = flood(&hub, 20);
    assert_eq!(take(&hub, id), Err(12), "entries between 12 and 20 are only in history");
    hub.refilled(&refill, Some(vec![]));
    assert_eq!(take(&hub, id), Err(12));
    caught_up(&hub, id, "e", last - 1);
    assert_eq!(take(&hub, id), Ok(vec![last]));
}

#[test]
fn a_ring_that_evicts_frames_while_the_connection_is_lost_receives_nothing() {
    let both = [Audience::Everyone, topic("loud")];
    let (hub, id) = live_reader(&both[..1]);
    hub.fanout(&fanout(&both[0], "e", &[(11, 10), (12, 11)]));
    hub.connection_lost();
    hub.state.lock().evict(&both[0]);
    assert_eq!(take(&hub, id), Ok(vec![]), "it waits for the connection");
    hub.subscribed(&[(both[0].clone(), Some(at(12)))], &Cursor { epoch: "e".into(), position: at(20) });
    assert_eq!(take(&hub, id), Err(10), "11 is gone from the ring");
    caught_up(&hub, id, "e", 11);
    assert_eq!(take(&hub, id), Ok(vec![12]));
}

#[test]
fn readers_read_history_where_a_refill_is_incomplete() {
    let everyone = [Audience::Everyone];
    let (hub, id) = live_reader(&everyone);
    hub.connection_lost();
    subscribed(&hub, &everyone, "e", 15);
    hub.fanout(&fanout(&everyone[0], "e", &[(16, 15)]));
    assert_eq!(refilled(&hub, None), (10, 15));
    assert_eq!(take(&hub, id), Err(10));
    caught_up(&hub, id, "e", 15);
    assert_eq!(take(&hub, id), Ok(vec![16]));
}

#[test]
fn a_connection_that_is_lost_again_while_rings_are_refilled_loses_nothing() {
    let everyone = [Audience::Everyone];
    let (hub, id) = live_reader(&everyone);
    hub.connection_lost();
    subscribed(&hub, &everyone, "e", 15);
    let refill = hub.next_refill().unwrap();
    hub.connection_lost();
    subscribed(&hub, &everyone, "e", 18);
    // The result of the first read arrives late.
    hub.refilled(&refill, Some(vec![]));
    assert_eq!(take(&hub, id), Err(10), "the reader is before the range that is read now");
    assert_eq!(refilled(&hub, Some(&[17, 18])), (15, 18));
    caught_up(&hub, id, "e", 15);
    assert_eq!(take(&hub, id), Ok(vec![17, 18]));
    // The connection is lost before anything was read, and nothing is missed the second time.
    hub.connection_lost();
    subscribed(&hub, &everyone, "e", 20);
    hub.connection_lost();
    subscribed(&hub, &everyone, "e", 20);
    assert_eq!(hub.next_refill(), None);
    assert_eq!(take(&hub, id), Err(18), "it would wait for ever");
}
