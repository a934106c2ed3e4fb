//! The same random histories of pushes, claims and faults through both engines give the same outcome.

use carillon_broker::{Batch, DeadList};
use carillon_protocol::{Audience, Cursor, Entry};

use crate::bench::{Bench, text};

const SEEDS: u64 = 12;
const STEPS: usize = 80;

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<String>),
    Claim(&'static str),
    ClaimAndLoseTheReply,
    Cut,
    Trim(Audience, usize),
    Forget,
    /// Note where the sequence ends.
    Mark,
}

fn audiences() -> Vec<Audience> {
    vec![Audience::Everyone, Audience::User("u".into()), Audience::Topic("t".into())]
}

fn entry(random: &mut fastrand::Rng) -> String {
    let to = [
        "",
        r#","to":"everyone""#,
        r#","to":{"user":"u"}"#,
        r#","to":{"topic":"t"}"#,
        r#","to":{"user":7.5}"#,
        r#","to":null"#,
    ];
    let from = ["", r#","from":"x""#];
    match random.u8(..12) {
        0 => ["", "  ", "{", "{}", "[1]", "null"][random.usize(..6)].to_owned(),
        1 => format!("plain {}", random.u32(..)),
        // Passes the script and fails the strict reading.
        2 => format!(r#"{{"body":"b","severity":"loud","n":{}}}"#, random.u32(..)),
        3 => format!("{{\"body\":\"{}\"}}", "x".repeat(random.usize(..70_000))),
        _ => {
            let (to, from) = (to[random.usize(..to.len())], from[random.usize(..2)]);
            format!(r#"{{"id":"{}","body":"b"{to}{from}}}"#, random.u8(..60))
        }
    }
}

fn step(random: &mut fastrand::Rng) -> Step {
    match random.u8(..40) {
        0..16 => Step::Push((0..random.usize(1..30)).map(|_| entry(random)).collect()),
        16..30 => Step::Claim(["bff-1", "bff-2"][random.usize(..2)]),
        30..32 => Step::ClaimAndLoseTheReply,
        32..34 => Step::Cut,
        34..36 => Step::Trim(audiences()[random.usize(..3)].clone(), random.usize(..5)),
        36 => Step::Forget,
        _ => Step::Mark,
    }
}

/// What can be compared between two engines whose clocks and epochs differ.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    batch: Option<(Vec<String>, Vec<String>, u64, u64)>,
    waiting: u64,
    dead: Vec<(String, String)>,
    /// From each mark: whether there is a gap, whether it was the end, and what follows.
    resumed: Vec<(String, bool, Vec<String>)>,
}

fn short(raw: &[u8]) -> String {
    format!("{} bytes {}", raw.len(), text(&raw[..raw.len().min(100)]))
}

async fn take(bench: &Bench, marks: &mut Vec<Cursor>, step: &Step) -> Outcome {
    let mut batch = None;
    match step {
        Step::Push(entries) => bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await,
        Step::Claim(replica) => batch = Some(bench.claim(replica).await),
        Step::ClaimAndLoseTheReply => bench.claim_and_lose_the_reply().await,
        Step::Cut => bench.cut(),
        Step::Trim(audience, keep) => bench.trim(audience, *keep),
        Step::Forget => bench.forget(),
        Step::Mark => marks.push(bench.tail().await),
    }
    let tail = bench.tail().await;
    let mut resumed = vec![];
    for mark in marks.iter() {
        let page = bench.page(&audiences(), mark, 20).await;
        let entries = page.entries.iter().map(|recalled| {
            let id =
                Entry::read(&recalled.stored.raw, recalled.stored.position).map_err(|refusal| refusal.reason);
            format!(
                "{:?} {} {}",
                id.map(|entry| entry.audience),
                recalled.claimed_by,
                short(&recalled.stored.raw)
            )
        });
        resumed.push((format!("{:?}", page.gaps), page.ended, entries.collect()));
        assert_eq!(page.reached.epoch, tail.epoch);
    }
    let dead = bench
        .broker
        .dead(DeadList::Producers)
        .await
        .unwrap()
        .into_iter()
        .map(|dead| (dead.reason, short(&dead.raw)))
        .collect();
    let summary = |batch: Batch| {
        let claimed =
            batch.claimed.iter().map(|one| format!("{} {}", one.audience, short(&one.stored.raw))).collect();
        let refused = batch.refused.iter().map(|refused| refused.reason.clone()).collect();
        (claimed, refused, batch.repeated, batch.waiting)
    };
    Outcome { batch: batch.map(summary), waiting: bench.broker.waiting().await.unwrap(), dead, resumed }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_engines_come_out_the_same() {
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let (redis, memory) = (Bench::redis(&format!("random-{seed}")).await, Bench::memory());
        let (mut in_redis, mut in_memory) = (vec![redis.tail().await], vec![memory.tail().await]);
        for number in 0..STEPS {
            let step = step(&mut random);
            let expected = take(&redis, &mut in_redis, &step).await;
            let found = take(&memory, &mut in_memory, &step).await;
            let short = format!("{step:?}");
            assert_eq!(expected, found, "seed {seed}, step {number}: {}", &short[..short.len().min(300)]);
        }
    }
}
