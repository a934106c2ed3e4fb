//! What happens in a run, and when: drawn from the seed before it begins, so that a part of it can be left out.

use std::fmt;

/// The users who have devices.
pub(crate) const USERS: [&str; 2] = ["ann", "ben"];
/// The topic that some devices read.
pub(crate) const TOPIC: &str = "news";
/// Before this time everything connects.
const QUIET_MS: u64 = 8_000;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What decides everything that the plan leaves open.
    pub seed: u64,
    pub(crate) replicas: usize,
    /// The owner of each device; `None` reads as nobody.
    pub(crate) devices: Vec<Option<&'static str>>,
    /// The longest time on the way, for each message.
    pub(crate) delay_max_ms: u64,
    /// How far the clocks of the devices and of Redis differ from that of the replicas.
    pub(crate) skew_ms: i64,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its place in the plan that was drawn.
    pub number: usize,
    /// Milliseconds since the begin of the run.
    pub at_ms: u64,
    pub(crate) action: Action,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The producer pushes notifications.
    Push { to: To, count: usize },
    /// A device sends a message to a user.
    Send { device: usize, to: usize },
    /// The user of a device reads all.
    ReadAll { device: usize },
    /// Something breaks.
    Fault(Fault),
}

/// Who a push is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Everyone,
    User(usize),
    Topic,
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A replica's next command is carried out, and its reply lost.
    LoseReply { replica: usize },
    /// The same, of the producer.
    LoseReplyOfProducer,
    /// The connections of a replica to Redis end.
    CutRedis { replica: usize },
    /// A replica cannot reach Redis.
    RefuseRedis { replica: usize, for_ms: u64 },
    /// What a replica and Redis send to each other disappears.
    HangRedis { replica: usize, for_ms: u64 },
    /// All subscriptions end.
    CutSubscribers,
    /// Redis is away.
    RedisAway { for_ms: u64 },
    /// Redis is full.
    RedisFull { for_ms: u64 },
    /// Redis loses its data.
    Forget,
    /// Redis returns to an earlier state, which lies this far back, as a replica that is promoted.
    Return { lag_ms: u64 },
    /// The connection of a device ends.
    CutDevice { device: usize },
    /// The connection of a device goes dead without a word.
    HangDevice { device: usize },
    /// A device has no network.
    Offline { device: usize, for_ms: u64 },
    /// A replica dies, and another takes its place.
    Kill { replica: usize, for_ms: u64 },
    /// Each replica in turn is replaced.
    Deploy,
}

impl Fault {
    /// Its kind, in a table.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::LoseReply { .. } => "reply to a replica lost",
            Self::LoseReplyOfProducer => "reply to the producer lost",
            Self::CutRedis { .. } => "replica cut from Redis",
            Self::RefuseRedis { .. } => "Redis refused to a replica",
            Self::HangRedis { .. } => "half-open to Redis",
            Self::CutSubscribers => "all subscriptions cut",
            Self::RedisAway { .. } => "Redis away",
            Self::RedisFull { .. } => "Redis full",
            Self::Forget => "Redis without its data",
            Self::Return { .. } => "Redis back at an earlier state",
            Self::CutDevice { .. } => "device cut",
            Self::HangDevice { .. } => "half-open to a device",
            Self::Offline { .. } => "device offline",
            Self::Kill { .. } => "replica killed",
            Self::Deploy => "rolling deploy",
        }
    }

    /// Whether Redis loses what it had acknowledged; where it is full, replicas halve the histories.
    pub(crate) fn loses_data(self) -> bool {
        matches!(self, Self::Forget | Self::Return { .. } | Self::RedisFull { .. })
    }

    fn draw(kind: usize, plan: &Plan) -> Self {
        let replica = fastrand::usize(..plan.replicas);
        let device = fastrand::usize(..plan.devices.len());
        let for_ms = fastrand::u64(50..12_000);
        match kind {
            0 => Self::LoseReply { replica },
            1 => Self::LoseReplyOfProducer,
            2 => Self::CutRedis { replica },
            3 => Self::RefuseRedis { replica, for_ms },
            4 => Self::HangRedis { replica, for_ms },
            5 => Self::CutSubscribers,
            6 => Self::RedisAway { for_ms },
            7 => Self::RedisFull { for_ms },
            8 => Self::CutDevice { device },
            9 => Self::HangDevice { device },
            10 => Self::Offline { device, for_ms },
            11 => Self::Kill { replica, for_ms },
            12 => Self::Deploy,
            13 => Self::Forget,
            _ => Self::Return { lag_ms: fastrand::u64(20..3_000) },
        }
    }
}

/// Kinds of faults that a run may have; the last two lose data.
const KINDS: usize = 15;
const LOSING_KINDS: usize = 2;

impl Plan {
    /// Draws a run. Each has its own scale, and some of the kinds of faults: a run with all of them is always broken, and
    /// finds less.
    pub fn draw(seed: u64) -> Self {
        fastrand::seed(seed);
        let devices = fastrand::usize(2..6);
        let mut plan = Self {
            seed,
            replicas: fastrand::usize(1..4),
            devices: (0..devices)
                .map(|_| fastrand::choice([None, Some(USERS[0]), Some(USERS[1])]).flatten())
                .collect(),
            delay_max_ms: fastrand::choice([1, 5, 40, 250]).unwrap_or(1),
            skew_ms: fastrand::choice([0, 0, -3_600_000, 3_600_000]).unwrap_or(0),
            steps: Vec::new(),
        };
        let last_ms = QUIET_MS + fastrand::u64(5_000..40_000);
        let at = || fastrand::u64(QUIET_MS..last_ms);
        let mut steps = Vec::new();
        for _ in 0..fastrand::usize(3..40) {
            let to = match fastrand::u8(0..4) {
                0 | 1 => To::Everyone,
                2 => To::User(fastrand::usize(..USERS.len())),
                _ => To::Topic,
            };
            let count = fastrand::choice([1, 1, 3, 20]).unwrap_or(1);
            steps.push(Step { number: 0, at_ms: at(), action: Action::Push { to, count } });
        }
        let signed_in: Vec<usize> = (0..devices).filter(|device| plan.devices[*device].is_some()).collect();
        if !signed_in.is_empty() {
            for _ in 0..fastrand::usize(0..12) {
                let device = fastrand::choice(&signed_in).copied().unwrap_or_default();
                let action = if fastrand::u8(0..4) == 0 {
                    Action::ReadAll { device }
                } else {
                    // To the other one: of a message to oneself, the device that sent it lists what was sent alone.
                    let to = usize::from(plan.devices[device] == Some(USERS[0]));
                    Action::Send { device, to }
                };
                steps.push(Step { number: 0, at_ms: at(), action });
            }
        }
        let loses = fastrand::u8(0..5) == 0;
        let kinds: Vec<usize> = (0..KINDS)
            .filter(|kind| *kind < KINDS - LOSING_KINDS || loses)
            .filter(|_| fastrand::u8(0..3) == 0)
            .collect();
        for kind in kinds {
            for _ in 0..fastrand::usize(1..4) {
                steps.push(Step { number: 0, at_ms: at(), action: Action::Fault(Fault::draw(kind, &plan)) });
            }
        }
        steps.sort_by_key(|step: &Step| step.at_ms);
        steps.iter_mut().zip(0..).for_each(|(step, number)| step.number = number);
        plan.steps = steps;
        plan
    }

    /// The faults that it injects, by kind.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.faults().map(Fault::kind)
    }

    /// Leaves out all steps but these.
    pub fn keep(&mut self, steps: &[usize]) {
        let mut at = 0;
        self.steps.retain(|_| {
            at += 1;
            steps.contains(&(at - 1))
        });
    }

    pub(crate) fn faults(&self) -> impl Iterator<Item = Fault> + '_ {
        self.steps.iter().filter_map(|step| match step.action {
            Action::Fault(fault) => Some(fault),
            _ => None,
        })
    }

    pub(crate) fn loses_data(&self) -> bool {
        self.faults().any(Fault::loses_data)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} replicas, devices of {:?}, up to {} ms on the way, clocks {} ms apart",
            self.seed, self.replicas, self.devices, self.delay_max_ms, self.skew_ms
        )?;
        for step in &self.steps {
            writeln!(f, "{:>7} ms  {:?}", step.at_ms, step.action)?;
        }
        Ok(())
    }
}
