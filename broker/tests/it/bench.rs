mod ear;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carillon_broker::{Batch, Broker, BrokerError, FanOut, Faults, History, Names, Settings, Subscriptions};
use carillon_harness::{Proxy, RedisServer, eventually};
use carillon_protocol::{Audience, Cursor, GapReason, Position};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use ear::Ear;

/// One server for all tests of this process; each has names of its own.
static SERVER: LazyLock<RedisServer> = LazyLock::new(RedisServer::start);

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// An engine under test, with the levers to break it.
pub(crate) struct Bench {
    pub(crate) broker: Broker,
    lever: Lever,
}

enum Lever {
    Redis { proxy: Proxy, names: Names },
    Memory { faults: Faults, passed_ms: Arc<AtomicU64> },
}

impl Bench {
    pub(crate) async fn redis(test: &str) -> Self {
        let proxy = Proxy::start(SERVER.addr()).await;
        let names =
            Names::in_namespace(&test.replace("::", "-").chars().rev().take(64).collect::<String>()).unwrap();
        let broker = Broker::redis(&format!("redis://{}", proxy.addr()), names.clone()).unwrap();
        Self { broker, lever: Lever::Redis { proxy, names } }
    }

    pub(crate) fn memory() -> Self {
        let passed_ms = Arc::new(AtomicU64::new(0));
        let passed = Arc::clone(&passed_ms);
        let now = move || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
            u64::try_from(now).unwrap() + passed.load(Ordering::SeqCst)
        };
        let (broker, faults) = Broker::memory(Arc::new(now));
        Self { broker, lever: Lever::Memory { faults, passed_ms } }
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        match &self.lever {
            Lever::Redis { proxy, .. } => proxy.cut(),
            Lever::Memory { faults, .. } => faults.cut_subscribers(),
        }
    }

    /// Claims, so that the claim is carried out and its answer is lost.
    pub(crate) async fn claim_and_lose_the_reply(&self) {
        let claim = self.lose_the_reply_of(self.broker.claim("lost", FanOut::All)).await;
        assert!(matches!(claim, Err(BrokerError::Away(_))));
    }

    /// Has something carried out and its answer lost.
    pub(crate) async fn lose_the_reply_of<T>(&self, exchange: impl Future<Output = T>) -> T {
        match &self.lever {
            Lever::Redis { proxy, .. } => {
                self.tail().await;
                proxy.lose_replies_after(0);
                let lost = proxy.lost_bytes();
                // The connection is cut once the answer is on its way, and not before.
                let (answer, ()) = tokio::join!(exchange, async {
                    eventually("a lost answer", DEADLINE, async || proxy.lost_bytes() > lost).await;
                    proxy.pass();
                });
                answer
            }
            Lever::Memory { faults, .. } => {
                faults.lose_next_reply();
                exchange.await
            }
        }
    }

    /// The second since 1970 by the clock that all replicas share.
    pub(crate) fn now_s(&self) -> u64 {
        let passed_ms = match &self.lever {
            Lever::Redis { .. } => 0,
            Lever::Memory { passed_ms, .. } => passed_ms.load(Ordering::SeqCst),
        };
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + passed_ms / 1_000
    }

    /// Moves everything that is due or expires so much nearer.
    pub(crate) fn pass_time(&self, milliseconds: u64) {
        self.move_time(milliseconds.cast_signed());
    }

    /// Moves it so much further away, as when a clock that was ahead is put right.
    pub(crate) fn pass_time_back(&self, milliseconds: u64) {
        self.move_time(-milliseconds.cast_signed());
    }

    fn move_time(&self, milliseconds: i64) {
        match &self.lever {
            Lever::Redis { names, .. } => {
                let pass = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
                    local left = redis.call('PTTL', key)
                    if left >= 0 then redis.call('PEXPIRE', key, left - ARGV[2]) end
                    local unit = string.find(key, ':revocations$') and 0.001 or 1000
                    if redis.call('TYPE', key).ok == 'zset' then
                        for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
                            redis.call('ZINCRBY', key, -ARGV[2] * unit, member)
                        end
                    end
                    if string.find(key, ':outbox:since$') then
                        for _, id in ipairs(redis.call('HKEYS', key)) do
                            redis.call('HINCRBY', key, id, -ARGV[2])
                        end
                    end
                end";
                let all = format!("{}*", names.prefix().replace(['{', '}'], "?"));
                SERVER.run(&["EVAL", pass, "0", &all, &milliseconds.to_string()]);
            }
            Lever::Memory { passed_ms, .. } => {
                // This server counts whole milliseconds: what is due at the end of one is due in the next.
                let passed = passed_ms.load(Ordering::SeqCst).saturating_add_signed(milliseconds + 1);
                passed_ms.store(passed, Ordering::SeqCst);
            }
        }
    }

    pub(crate) fn go_away(&self) {
        match &self.lever {
            Lever::Redis { proxy, .. } => {
                proxy.refuse();
                proxy.cut();
            }
            Lever::Memory { faults, .. } => faults.go_away(),
        }
    }

    pub(crate) fn come_back(&self) {
        match &self.lever {
            Lever::Redis { proxy, .. } => proxy.pass(),
            Lever::Memory { faults, .. } => faults.come_back(),
        }
    }

    /// Another broker over the same server.
    pub(crate) fn again(&self, settings: Settings) -> Broker {
        match &self.lever {
            Lever::Redis { proxy, .. } => {
                Broker::redis(&format!("redis://{}", proxy.addr()), settings).unwrap()
            }
            Lever::Memory { faults, .. } => faults.again(settings),
        }
    }

    /// The settings of the broker.
    pub(crate) fn settings(&self) -> Settings {
        match &self.lever {
            Lever::Redis { names, .. } => names.clone().into(),
            Lever::Memory { .. } => Settings::default(),
        }
    }

    fn names(&self) -> Names {
        self.settings().names
    }

    /// Carries out a command by hand, and returns what it answers.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        match &self.lever {
            Lever::Redis { .. } => SERVER.cli(command),
            Lever::Memory { faults, .. } => faults.run(command),
        }
    }

    /// Has every command refused that needs memory.
    pub(crate) fn fill(&self, full: bool) {
        match &self.lever {
            Lever::Redis { .. } => {}
            Lever::Memory { faults, .. } => faults.fill(full),
        }
    }

    /// Puts something in the place of a history that takes no entry.
    pub(crate) fn spoil(&self, audience: &Audience) {
        self.run(&["SET", &self.names().history(audience), "not a stream"]);
    }

    /// The opposite of [`Bench::spoil`].
    pub(crate) fn mend(&self, audience: &Audience) {
        self.run(&["DEL", &self.names().history(audience)]);
    }

    /// A new epoch over the same data, as when the server restarts.
    pub(crate) fn begin_epoch(&self) {
        self.run(&["HSET", &self.names().sequence(), "replid", "of another server"]);
    }

    /// How many keys there are.
    pub(crate) async fn keys(&self) -> usize {
        let pattern = format!("{}*", self.names().prefix());
        let answer = self.run(&["SCAN", "0", "MATCH", &pattern, "COUNT", "1000000"]);
        answer.lines().filter(|line| line.contains("Notification-List")).count()
    }

    /// Removes all but the newest entries of a history.
    pub(crate) fn trim(&self, audience: &Audience, keep: usize) {
        match &self.lever {
            Lever::Redis { names, .. } => {
                SERVER.run(&["XTRIM", &names.history(audience), "MAXLEN", &keep.to_string()]);
            }
            Lever::Memory { faults, .. } => {
                faults.run(&["XTRIM", &Names::default().history(audience), "MAXLEN", &keep.to_string()]);
            }
        };
    }

    /// All data is lost.
    pub(crate) fn forget(&self) {
        match &self.lever {
            Lever::Redis { names, proxy } => {
                let all = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
                SERVER.run(&["EVAL", all, "0", &format!("{}*", names.prefix().replace(['{', '}'], "?"))]);
                SERVER.run(&["DEL", &names.list()]);
                proxy.cut();
            }
            Lever::Memory { faults, .. } => faults.forget(),
        }
    }

    pub(crate) async fn push(&self, entries: &[&str]) {
        let entries: Vec<_> = entries.iter().map(|entry| entry.as_bytes().to_vec()).collect();
        self.settled(async || self.broker.push(&entries).await).await;
    }

    pub(crate) async fn claim(&self, replica: &str) -> Batch {
        self.settled(async || self.broker.claim(replica, FanOut::All).await).await
    }

    /// Claims until the list is empty.
    pub(crate) async fn drain(&self, replica: &str) -> Vec<Batch> {
        let mut batches = vec![];
        loop {
            let batch = self.claim(replica).await;
            let waiting = batch.waiting;
            batches.push(batch);
            if waiting == 0 {
                return batches;
            }
        }
    }

    pub(crate) async fn tail(&self) -> Cursor {
        self.settled(async || self.broker.tail().await).await
    }

    /// The beginning of the present epoch.
    pub(crate) async fn start(&self) -> Cursor {
        Cursor { position: Position::ZERO, ..self.tail().await }
    }

    pub(crate) async fn page(&self, audiences: &[Audience], since: &Cursor, limit: usize) -> History {
        self.settled(async || self.broker.history(audiences, since, limit).await).await
    }

    /// Reads on from a cursor to the end, page by page.
    pub(crate) async fn read(&self, audiences: &[Audience], since: &Cursor, limit: usize) -> Vec<String> {
        let mut entries = vec![];
        let mut since = since.clone();
        loop {
            let page = self.page(audiences, &since, limit).await;
            entries.extend(page.entries.iter().map(|recalled| text(&recalled.stored.raw)));
            since = page.reached;
            if page.ended {
                return entries;
            }
        }
    }

    /// The first try after a cut fails, since the connection is found to be dead only then.
    pub(crate) async fn settled<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T, BrokerError>) -> T {
        for _ in 0..20 {
            match attempt().await {
                Ok(value) => return value,
                Err(BrokerError::Away(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the engine stays away");
    }

    /// Listens, and writes down what it hears.
    pub(crate) fn listen(&self) -> Ear {
        let subscriptions = Subscriptions::default();
        let received = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let (broker, wanted, events, stopped) =
            (self.broker.clone(), subscriptions.clone(), Arc::clone(&received), stop.clone());
        TaskTracker::new().spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = broker.listen(&wanted, FanOut::All, |event| events.lock().unwrap().push(event)) => {}
            }
        });
        Ear { subscriptions, received, _stop: stop.drop_guard() }
    }
}

pub(crate) fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).into_owned()
}

pub(crate) fn claimed(batches: &[Batch]) -> Vec<String> {
    batches.iter().flat_map(|batch| &batch.claimed).map(|claimed| text(&claimed.stored.raw)).collect()
}

pub(crate) fn topic(name: &str) -> Audience {
    Audience::Topic(name.to_owned())
}

/// Why something of which audience is gone, in what was read.
pub(crate) fn gaps(page: &History) -> Vec<(GapReason, Option<Audience>)> {
    page.gaps.iter().map(|gap| (gap.reason, gap.audience.clone())).collect()
}

/// An entry for a topic.
pub(crate) fn entry(id: &str, topic: &str) -> String {
    format!(r#"{{"id":"{id}","body":"b","to":{{"topic":"{topic}"}}}}"#)
}
