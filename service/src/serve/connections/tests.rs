use super::super::pace::{ANSWER_PACE, READER_PACE};
use super::*;

fn connections(all_max: usize, plain_max: usize, plain_per_address_max: usize) -> Arc<Connections> {
    let options = ConnectionOptions {
        all_max,
        plain_max,
        plain_per_address_max,
        ..ConnectionOptions::for_readers(0, |_| {})
    };
    Connections::new(options)
}

fn at(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

async fn seconds(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

const TIMEOUT: Duration = Duration::from_secs(15);

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_too_slowly_is_cut() {
    let connections = connections(100, 2, 100);
    for (phase, pace) in [(Phase::Busy, ANSWER_PACE), (Phase::Reader, READER_PACE)] {
        let permit = connections.take(at(1)).unwrap();
        permit.set(phase);
        permit.waits();
        permit.changed().await;
        let within = pace.within.as_secs();
        for _ in 0..3 {
            seconds(within - 1).await;
            assert!(permit.deadline(TIMEOUT).is_ok_and(|until| until.is_some()));
            permit.took(pace.bytes - 1);
            permit.took(1);
        }
        seconds(within - 1).await;
        permit.took_all();
        assert_eq!(permit.deadline(TIMEOUT), Ok(None), "nothing is left to read");
        permit.waits();
        // One byte a second is no progress.
        for _ in 0..within {
            assert!(permit.deadline(TIMEOUT).is_ok());
            seconds(1).await;
            permit.took(1);
        }
        assert_eq!(permit.deadline(TIMEOUT), Err(Expired::Unread));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_in_flight_is_not_closed_for_others() {
    let connections = connections(100, 1, 100);
    let permit = connections.take(at(1)).unwrap();
    permit.set(Phase::Busy);
    // Everything is written, and the peer has not read all of it.
    permit.set(Phase::Idle(Instant::now()));
    permit.waits();
    assert_eq!(connections.take(at(2)).unwrap_err(), Refused::Full);
    permit.took_all();
    assert!(connections.take(at(2)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_address_has_a_limit_without_readers_and_proxies() {
    let connections = connections(100, 100, 2);
    let (one, two) = (connections.take(at(1)).unwrap(), connections.take(at(1)).unwrap());
    assert_eq!(connections.take(at(1)).unwrap_err(), Refused::Address);
    let _other = connections.take(at(2)).unwrap();
    one.set(Phase::Reader);
    let three = connections.take(at(1)).unwrap();
    assert_eq!(connections.take(at(1)).unwrap_err(), Refused::Address);
    drop(two);
    let _four = connections.take(at(1)).unwrap();
    let _local: Vec<_> = (0..9).map(|_| connections.take(Ipv4Addr::LOCALHOST.into()).unwrap()).collect();
    drop((one, three));
    assert_eq!(connections.table.lock().networks[&network(at(1))], 1);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_idle_connection_makes_room() {
    let connections = connections(3, 2, 100);
    let (old, busy) = (connections.take(at(1)).unwrap(), connections.take(at(2)).unwrap());
    busy.set(Phase::Busy);
    assert_eq!(connections.take(at(3)).unwrap_err(), Refused::Full, "it may still send a request");
    assert!(!connections.has_room());
    old.set(Phase::Idle(Instant::now()));
    assert!(connections.has_room());
    let new = connections.take(at(3)).unwrap();
    assert_eq!(old.deadline(TIMEOUT), Err(Expired::Closed));
    old.changed().await;
    drop(old);
    // A connection without a request is closed too, after a while.
    seconds(2).await;
    let newer = connections.take(at(4)).unwrap();
    assert_eq!(new.deadline(TIMEOUT), Err(Expired::Closed));
    newer.set(Phase::Busy);
    assert_eq!(connections.take(at(5)).unwrap_err(), Refused::Full);
    busy.set(Phase::Reader);
    let _last = connections.take(at(5)).unwrap();
    drop((new, newer, busy));
    let table = connections.table.lock();
    assert_eq!((table.plain, table.open.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_time_out_and_earlier_when_crowded() {
    let connections = connections(100, 4, 100);
    let permit = connections.take(at(1)).unwrap();
    assert_eq!(permit.deadline(TIMEOUT), Ok(Some(Instant::now() + TIMEOUT)));
    permit.set(Phase::Busy);
    assert_eq!(permit.deadline(TIMEOUT), Ok(None));
    permit.set(Phase::Idle(Instant::now()));
    seconds(100).await;
    assert!(permit.deadline(TIMEOUT).is_ok());
    let crowd = [connections.take(at(1)).unwrap(), connections.take(at(1)).unwrap()];
    assert_eq!(permit.deadline(TIMEOUT), Err(Expired::Closed));
    drop(crowd);
    permit.received();
    seconds(14).await;
    permit.received();
    assert!(permit.deadline(TIMEOUT).is_ok());
    seconds(1).await;
    assert_eq!(permit.deadline(TIMEOUT), Err(Expired::Slow), "more bytes of a head do not extend the time");
}
