use super::super::pace::{ANSWER_PACE, READER_PACE};
use super::*;

fn places(all_max: usize, plain_max: usize, plain_per_address_max: usize) -> Arc<Places> {
    let options =
        PlaceOptions { all_max, plain_max, plain_per_address_max, ..PlaceOptions::for_readers(0, |_| {}) };
    Places::new(options)
}

fn at(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

async fn seconds(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

const TIMEOUT: Duration = Duration::from_secs(15);

#[tokio::test(start_paused = true)]
async fn who_takes_too_little_is_cut_and_who_takes_enough_is_not() {
    let places = places(100, 2, 100);
    for (phase, pace) in [(Phase::Busy, ANSWER_PACE), (Phase::Reader, READER_PACE)] {
        let place = places.take(at(1)).unwrap();
        place.set(phase);
        place.waits();
        place.changed().await;
        let within = pace.within.as_secs();
        for _ in 0..3 {
            seconds(within - 1).await;
            assert!(place.deadline(TIMEOUT).is_ok_and(|until| until.is_some()));
            place.took(pace.bytes - 1);
            place.took(1);
        }
        seconds(within - 1).await;
        place.took_all();
        assert_eq!(place.deadline(TIMEOUT), Ok(None), "nothing is left to take");
        place.waits();
        // One byte a second is no progress.
        for _ in 0..within {
            assert!(place.deadline(TIMEOUT).is_ok());
            seconds(1).await;
            place.took(1);
        }
        assert_eq!(place.deadline(TIMEOUT), Err(Over::NotTaken));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_yet_is_not_closed_for_others() {
    let places = places(100, 1, 100);
    let place = places.take(at(1)).unwrap();
    place.set(Phase::Busy);
    // Nothing of it is left here, and the peer has not taken all of it.
    place.set(Phase::Idle(Instant::now()));
    place.waits();
    assert_eq!(places.take(at(2)).unwrap_err(), NoPlace::Full);
    place.took_all();
    assert!(places.take(at(2)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_address_has_so_many_and_readers_and_proxies_do_not_count() {
    let places = places(100, 100, 2);
    let (one, two) = (places.take(at(1)).unwrap(), places.take(at(1)).unwrap());
    assert_eq!(places.take(at(1)).unwrap_err(), NoPlace::Address);
    let _other = places.take(at(2)).unwrap();
    one.set(Phase::Reader);
    let three = places.take(at(1)).unwrap();
    assert_eq!(places.take(at(1)).unwrap_err(), NoPlace::Address);
    drop(two);
    let _four = places.take(at(1)).unwrap();
    let _local: Vec<_> = (0..9).map(|_| places.take(Ipv4Addr::LOCALHOST.into()).unwrap()).collect();
    drop((one, three));
    assert_eq!(places.table.lock().networks[&network(at(1))], 1);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_that_has_nothing_to_do_makes_room() {
    let places = places(3, 2, 100);
    let (old, busy) = (places.take(at(1)).unwrap(), places.take(at(2)).unwrap());
    busy.set(Phase::Busy);
    assert_eq!(places.take(at(3)).unwrap_err(), NoPlace::Full, "it may ask yet");
    assert!(!places.has_room());
    old.set(Phase::Idle(Instant::now()));
    assert!(places.has_room());
    let new = places.take(at(3)).unwrap();
    assert_eq!(old.deadline(TIMEOUT), Err(Over::Closed));
    old.changed().await;
    drop(old);
    // Whoever does not ask goes too, after a while.
    seconds(2).await;
    let newer = places.take(at(4)).unwrap();
    assert_eq!(new.deadline(TIMEOUT), Err(Over::Closed));
    newer.set(Phase::Busy);
    assert_eq!(places.take(at(5)).unwrap_err(), NoPlace::Full);
    busy.set(Phase::Reader);
    let _last = places.take(at(5)).unwrap();
    drop((new, newer, busy));
    let table = places.table.lock();
    assert_eq!((table.plain, table.open.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_waited_for_and_less_where_it_is_crowded() {
    let places = places(100, 4, 100);
    let place = places.take(at(1)).unwrap();
    assert_eq!(place.deadline(TIMEOUT), Ok(Some(Instant::now() + TIMEOUT)));
    place.set(Phase::Busy);
    assert_eq!(place.deadline(TIMEOUT), Ok(None));
    place.set(Phase::Idle(Instant::now()));
    seconds(100).await;
    assert!(place.deadline(TIMEOUT).is_ok());
    let crowd = [places.take(at(1)).unwrap(), places.take(at(1)).unwrap()];
    assert_eq!(place.deadline(TIMEOUT), Err(Over::Closed));
    drop(crowd);
    place.received();
    seconds(14).await;
    place.received();
    assert!(place.deadline(TIMEOUT).is_ok());
    seconds(1).await;
    assert_eq!(place.deadline(TIMEOUT), Err(Over::Slow), "more bytes of a head are no more time");
}
