use carillon_harness::{DialOptions, Reader, ReaderOptions, Socket};
use carillon_protocol::received::{Delivered, Gap};
use carillon_protocol::{Audience, GapReason, Resume, ServerMessage};

use crate::world::{World, entry};

const CUTS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_cut_200_times_sees_every_entry_once() {
    let world = World::new();
    let bffs = world.bffs(2).await;
    let urls: Vec<_> = bffs.iter().map(|bff| bff.ws()).collect();
    let reader =
        Reader::connect_with(ReaderOptions::new(&urls.iter().map(String::as_str).collect::<Vec<_>>())).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut pushed = 0;
    for _ in 0..CUTS {
        for _ in 0..random.usize(0..4) {
            let burst = random.usize(1..20);
            world.push((pushed..pushed + burst).map(entry)).await;
            pushed += burst;
        }
        let welcomes = reader.record().welcomes.len();
        reader.cut().await;
        // Sometimes cut again before it is even welcomed.
        if random.bool() {
            reader.until("the next welcome", |record| record.welcomes.len() > welcomes).await;
        }
    }
    let received = reader.wait_for(pushed).await;
    let expected: Vec<_> = (0..pushed).map(|n| n.to_string()).collect();
    assert_eq!(received.iter().map(|one| one.id.clone()).collect::<Vec<_>>(), expected);
    let record = reader.record();
    assert_eq!(record.repeated, 0, "a resume from a cursor brings nothing twice");
    assert!(
        record.gaps.is_empty()
            && record.welcomes[1..].iter().all(|welcome| welcome.resume == Resume::Complete)
    );
    assert!(record.welcomes.len() > CUTS / 4, "{}", record.welcomes.len());
}

#[tokio::test]
async fn a_welcome_states_whether_the_resume_is_complete_and_a_gap_follows() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let mut socket = Socket::open(&bff.ws(), &DialOptions::default()).await.unwrap();
    let ServerMessage::Welcome(welcome) = ServerMessage::parse(&socket.text().await).unwrap() else {
        panic!("a welcome")
    };
    assert_eq!((welcome.resume, welcome.replica.as_str()), (Resume::None, "bff-1"));
    world.push((0..10).map(entry)).await;
    let mut cursors = vec![];
    for n in 0..10 {
        let ServerMessage::Notification(Delivered { cursor, claimed_by, notification }) =
            ServerMessage::parse(&socket.text().await).unwrap()
        else {
            panic!("a notification")
        };
        assert_eq!(claimed_by, "bff-1");
        assert!(notification.get().contains(&format!(r#""id":"{n}""#)));
        cursors.push(cursor);
    }

    let resume = async |since: &str| {
        let mut socket =
            Socket::open(&format!("{}?since={since}", bff.ws()), &DialOptions::default()).await.unwrap();
        let ServerMessage::Welcome(welcome) = ServerMessage::parse(&socket.text().await).unwrap() else {
            panic!("a welcome")
        };
        (welcome, ServerMessage::parse(&socket.text().await).unwrap())
    };
    let (again, first) = resume(&cursors[3]).await;
    assert_eq!((again.resume, again.cursor.as_str()), (Resume::Complete, cursors[3].as_str()));
    assert!(matches!(first, ServerMessage::Notification(Delivered { cursor, .. }) if cursor == cursors[4]));

    world.redis.run(&["XTRIM", "{Notification-List}:history:everyone", "MAXLEN", "3"]);
    let (trimmed, first) = resume(&cursors[3]).await;
    assert_eq!(trimmed.resume, Resume::Gap);
    // What is left follows, so the gap itself moves nobody past it.
    assert!(
        matches!(&first, ServerMessage::Gap(gap) if *gap == Gap { reason: GapReason::Trimmed, cursor: cursors[3].clone(), audience: Some(Audience::Everyone) }),
        "{first:?}"
    );

    let position = cursors[3].split_once('.').unwrap().1;
    let (other, first) = resume(&format!("0123456789abcdef.{position}")).await;
    assert_eq!(other.resume, Resume::Gap);
    assert!(
        matches!(first, ServerMessage::Gap(Gap { reason: GapReason::Epoch, audience: None, .. })),
        "{first:?}"
    );

    let old = cursors[0].split_once('.').unwrap().0;
    let (old, first) = resume(&format!("{old}.1000-0")).await;
    assert_eq!(old.resume, Resume::Gap);
    assert!(matches!(first, ServerMessage::Gap(Gap { reason: GapReason::Trimmed, .. })), "{first:?}");

    // A cursor that cannot be read is no reason to turn a reader away for good: it gets all that there is.
    let (broken, first) = resume("nonsense").await;
    assert_eq!(broken.resume, Resume::Gap);
    assert!(
        matches!(first, ServerMessage::Gap(Gap { reason: GapReason::Unreadable, audience: None, .. })),
        "{first:?}"
    );
}
