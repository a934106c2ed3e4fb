//! A Redis elsewhere: TLS with an authority of its own, and a user that may do what it has to and no more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carillon_broker::limits::OUTBOX_USER_MAX;
use carillon_broker::{
    Accepted, Beat, Broker, BrokerError, BrokerEvent, Dead, DeadList, FanOut, GivenUp, Lease, MessageRef,
    Names, NewJob, NewMessage, Revocation, Speaker, State, Subscriptions,
};
use carillon_harness::{RedisServer, certificates, eventually, free_port};
use carillon_protocol::{Audience, Cursor, JobStatus, Position, Status};
use tempfile::TempDir;

use crate::bench::DEADLINE;

const PASSWORD: &str = "a password";
/// Rights that are there for a warning in the log, or for a version of redis-rs that asks otherwise.
const SPARE: [&str; 2] = ["+config|get", "+eval"];

/// What a user may do, from the one file that Kubernetes, Compose and the documents use: comments left out.
fn rights(user: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../k8s/base/redis/{user}.rights"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join(" ")
}

/// A Redis that speaks TLS, and the files of its authority.
struct Secured {
    server: RedisServer,
    port: u16,
    files: TempDir,
}

impl Secured {
    fn start() -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        certificates(files.path());
        let path = |name: &str| files.path().join(name).to_string_lossy().into_owned();
        let (certificate, key, authority) = (path("server.crt"), path("server.key"), path("ca.crt"));
        let port_text = port.to_string();
        let tls = ["--tls-port", &port_text, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let trust = ["--tls-ca-cert-file", &authority, "--tls-auth-clients", "no"];
        let server = RedisServer::start_with(&[&tls[..], &trust[..]].concat());
        Self { server, port, files }
    }

    fn authority(&self) -> PathBuf {
        self.files.path().join("ca.crt")
    }

    /// The user begins anew with these rights.
    fn allow(&self, rights: &str) {
        let password = format!(">{PASSWORD}");
        let words = ["ACL", "SETUSER", "carillon", "reset", "on", &password];
        self.server.run(&words.into_iter().chain(rights.split_whitespace()).collect::<Vec<_>>());
    }

    fn broker(&self, options: &str) -> Broker {
        let url =
            format!("rediss://carillon:{}@localhost:{}/{options}", PASSWORD.replace(' ', "%20"), self.port);
        Broker::redis(&url, Names::default()).unwrap()
    }

    fn trusting(&self) -> Broker {
        self.broker(&format!("?ca={}", self.authority().display()))
    }
}

/// All that a producer and a replica ask of Redis, from a push to a message on the channel of its audience.
async fn everything(secured: &Secured, broker: &Broker) -> Result<(), BrokerError> {
    let received = Arc::new(Mutex::new(Vec::new()));
    let subscriptions = Subscriptions::default();
    subscriptions.add(Audience::Everyone);
    let events = Arc::clone(&received);
    let listening =
        broker.listen(&subscriptions, FanOut::All, move |event| events.lock().unwrap().push(event));
    let subscribed = async |audience: Audience| {
        let is_it = |event: &BrokerEvent| matches!(event, BrokerEvent::Subscribed { audiences, .. } if audiences.iter().any(|(one, _)| *one == audience));
        eventually("the subscription", DEADLINE, async || received.lock().unwrap().iter().any(is_it)).await;
    };
    let work = async {
        let before = broker.tail().await?;
        broker.push(&[b"ding".to_vec()]).await?;
        assert_eq!(broker.waiting().await?, 1);
        subscribed(Audience::Everyone).await;
        let [one, two] = ["one", "two"].map(|name| Audience::User(name.to_owned()));
        subscriptions.add(one.clone());
        subscribed(one.clone()).await;
        subscriptions.remove(&one);
        subscriptions.add(two.clone());
        subscribed(two).await;
        let batch = broker.claim("bff-1", FanOut::All).await?;
        assert_eq!(batch.claimed.len(), 1);
        let is_ours =
            |event: &BrokerEvent| matches!(event, BrokerEvent::Fanout(fanout) if fanout.entries.len() == 1);
        eventually("the message", DEADLINE, async || received.lock().unwrap().iter().any(is_ours)).await;
        let since = Cursor { position: Position::ZERO, ..before };
        let history = broker.history(&[Audience::Everyone], &since, 10).await?;
        if history.entries.is_empty() {
            // read.lua takes a stream that it may not ask for one that is not there.
            return Err(BrokerError::Refused("no history".to_owned()));
        }
        // What claim.lua does only now and then: with an id, for a second time, and with what it refuses.
        let entries = [r#"{"id":"1","title":"a"}"#, r#"{"id":"1","title":"a"}"#, "{"];
        broker.push(&entries.map(|entry| entry.as_bytes().to_vec())).await?;
        let batch = broker.claim("bff-1", FanOut::All).await?;
        assert_eq!(
            (batch.claimed.len() + usize::try_from(batch.repeated).unwrap(), batch.refused.len()),
            (2, 1)
        );
        // And with ids that have become old.
        secured.server.run(&["HSET", &Names::default().sequence(), "ids_since", "0"]);
        broker.push(&[b"dong".to_vec()]).await?;
        assert_eq!(broker.claim("bff-1", FanOut::All).await?.claimed.len(), 1);
        let dead = Dead { reason: "test".into(), raw: vec![b'x'; 5_000], ..Dead::default() };
        broker.bury(&dead, b"1:an id").await?;
        let list = broker.dead(DeadList::Producers).await?;
        let buried = list.iter().find(|entry| entry.reason == "test").unwrap();
        assert!(broker.put_back(DeadList::Producers, &buried.id).await?);
        assert!(!broker.drop_dead(DeadList::Producers, "1-1").await?);
        let newest = broker.history_before(&[Audience::Everyone], None, 1).await?;
        if newest.entries.is_empty() {
            return Err(BrokerError::Refused("no history".to_owned()));
        }
        broker.memory_use().await?;
        assert_eq!(broker.trim("0", 0.5, Duration::ZERO).await?.unwrap().cursor, "0");
        let own = |event: &BrokerEvent| matches!(event, BrokerEvent::Echo { .. });
        eventually("a sign of life", DEADLINE, async || received.lock().unwrap().iter().any(own)).await;
        let writes = |event: &BrokerEvent| matches!(event, BrokerEvent::Writes(Ok(())));
        if !received.lock().unwrap().iter().any(writes) {
            return Err(BrokerError::Refused("no writes".to_owned()));
        }
        people(broker).await?;
        queues(secured, broker).await
    };
    tokio::select! {
        () = listening => panic!("a listener never ends"),
        done = work => done,
    }
}

/// What is kept of users, and between them.
async fn people(broker: &Broker) -> Result<(), BrokerError> {
    let state = State::from([("field".to_owned(), "value".to_owned())]);
    broker.set_state("two", &state).await?;
    assert_eq!(broker.state("two").await?, state);
    broker.publish_raw("two", b"ding").await?;

    let until_s = now_s();
    broker.revoke(&Revocation::User { user: "two".into(), until_s }).await?;
    let revoked = broker.revocations().await?;
    assert_eq!(revoked.len(), 1);
    broker.restore_revocations(&revoked).await?;
    assert_eq!(broker.session_key([7; 32]).await?, [7; 32]);
    assert_eq!(broker.replace_session_key([7; 32], [8; 32]).await?, [8; 32]);
    assert!(broker.first_use("key", Duration::from_secs(60)).await?);

    let entry = br#"{"id":"m","from":"one","to":{"user":"two"},"body":"b"}"#;
    let to = Audience::User("two".into());
    let message = NewMessage { id: "m", from: "one", to: &to, entry, accepted_by: "bff-1" };
    assert_eq!(broker.send(&message).await?, Accepted::Stored);
    broker.claim("bff-1", FanOut::All).await?;
    let message = MessageRef { from: "one".into(), id: "m".into() };
    broker.record_written(&message, "bff-1", "bff-1-0-1").await?;
    assert_eq!(broker.advance("two", std::slice::from_ref(&message), Status::Read, "bff-1").await?, 1);
    assert_eq!(broker.message(&message).await?.map(|message| message.status), Some(Status::Read));
    let tail = broker.tail().await?;
    assert!(broker.mark_read("two", &tail, "bff-1").await?);
    assert_eq!(broker.read_position("two").await?, Some(tail));

    // One run comes and goes, and another falls silent and is cleared away.
    let users = ["one".to_owned(), "two".to_owned()];
    let beat = async |run: &str, lease_ms: u64, changes: &[(String, usize)]| {
        let (lease, grace) = (Duration::from_millis(lease_ms), Duration::ZERO);
        broker.beat(&Beat { run, lease, grace, changes, returns: false }).await
    };
    beat("silent", 1, &[(users[0].clone(), 1)]).await?;
    beat("a", 10_000, &[(users[1].clone(), 1)]).await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(broker.presence(&users).await?.iter().map(|one| one.connections).collect::<Vec<_>>(), [0, 1]);
    beat("a", 10_000, &[(users[1].clone(), 0)]).await?;
    beat("a", 0, &[]).await?;
    Ok(())
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What is kept until somebody has done it.
async fn queues(secured: &Secured, broker: &Broker) -> Result<(), BrokerError> {
    let one = Audience::User("one".into());
    let (id, name, input) = ("j".to_owned(), "a job".to_owned(), "{}".to_owned());
    let job = NewJob { id, owner: one.clone(), to: one.clone(), name, input };
    for _ in 0..2 {
        broker.enqueue_job(&job).await.map_err(|error| BrokerError::Refused(error.to_string()))?;
    }
    assert_eq!(broker.take_job("bff-1").await?.job.map(|job| job.attempt), Some(1));
    assert_eq!(broker.report_job(&job.handle(), 1, 50).await?, Lease::Held);
    assert_eq!(broker.finish_job(&job.handle(), 1, "1").await?, Lease::Held);
    assert_eq!(broker.job(&one, "j").await?.map(|job| job.status), Some(JobStatus::Done));
    assert_eq!(broker.jobs_of(&one).await?.len(), 1);
    // As many of a user are counted as there may be, and none of them waits.
    let counted: Vec<_> = (0..OUTBOX_USER_MAX).map(|n| n.to_string()).collect();
    let words = ["SADD", "{Notification-List}:outbox:of:user:one"].into_iter();
    secured.server.run(&words.chain(counted.iter().map(String::as_str)).collect::<Vec<_>>());
    let sent = broker.send_out(&one, "0", b"m", Speaker::User("one")).await;
    sent.map_err(|error| BrokerError::Refused(error.to_string()))?;
    let first = broker.take_outgoing(1).await?.remove(0);
    assert_eq!(broker.outgoing_done(&first).await?, Lease::Held);
    for message in ["a", "a", "b"] {
        let sent = broker.send_out(&one, message, message.as_bytes(), Speaker::Anonymous).await;
        sent.map_err(|error| BrokerError::Refused(error.to_string()))?;
    }
    let first = broker.take_outgoing(10).await?.remove(0);
    assert_eq!(broker.postpone_outgoing(&first, 0).await?, Lease::Held);
    let first = broker.take_outgoing(10).await?.remove(0);
    assert_eq!(broker.outgoing_done(&first).await?, Lease::Held);
    let given_up = GivenUp { replica: "bff-1", detail: "a test", answered: true, notice: "a notice" };
    let second = broker.take_outgoing(10).await?.remove(0);
    assert_eq!(broker.give_up_outgoing(&second, given_up).await?, Lease::Held);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_shipped_rights_does_everything_over_tls() {
    let secured = Secured::start();
    secured.allow(&rights("bff"));
    everything(&secured, &secured.trusting()).await.unwrap();
    secured.allow(&rights("producer"));
    secured.trusting().push(&[b"by a producer alone".to_vec()]).await.unwrap();
    secured.allow(&rights("bff"));
    for other in
        ["GET other", "LPUSH Other-List value", "PUBLISH other value", "FLUSHALL", "CONFIG SET save 1"]
    {
        let words: Vec<_> = ["ACL", "DRYRUN", "carillon"].into_iter().chain(other.split(' ')).collect();
        let output = secured.server.cli(&words);
        assert!(output.contains("no permissions"), "{other}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_of_the_shipped_rights_is_one_too_many() {
    let secured = Secured::start();
    let rights = rights("bff");
    let rights: Vec<_> = rights.split_whitespace().collect();
    for right in rights.iter().filter(|right| right.starts_with('+') && !SPARE.contains(right)) {
        secured.server.run(&["FLUSHALL"]);
        secured.server.run(&["SCRIPT", "FLUSH"]);
        secured.server.run(&["ACL", "LOG", "RESET"]);
        let fewer: Vec<_> = rights.iter().filter(|other| other != &right).copied().collect();
        secured.allow(&fewer.join(" "));
        let broker = secured.trusting();
        // A subscription that is refused is tried for ever, so the log of what was refused is looked at too.
        let denied = async || !secured.server.cli(&["ACL", "LOG"]).is_empty();
        let what = format!("a refusal without {right}");
        tokio::select! {
            done = everything(&secured, &broker) => assert!(denied().await, "nothing needs {right}: {done:?}"),
            () = eventually(&what, DEADLINE, denied) => {}
        }
    }
}

#[tokio::test]
async fn a_server_with_an_untrusted_certificate_is_refused() {
    let secured = Secured::start();
    secured.allow(&rights("bff"));
    let error = secured.broker("").tail().await.unwrap_err();
    assert!(matches!(&error, BrokerError::Away(text) if text.contains("certificate")), "{error}");

    // As it comes from a file.
    let options = format!("?ca={}\n", secured.authority().display());
    secured.broker(&options).tail().await.unwrap();

    let other = Secured::start();
    let error = secured.broker(&format!("?ca={}", other.authority().display())).tail().await.unwrap_err();
    assert!(matches!(&error, BrokerError::Away(text) if text.contains("certificate")), "{error}");

    let error = Broker::redis("rediss://localhost/?ca=/nowhere/ca.crt", Names::default()).err().unwrap();
    assert!(matches!(&error, BrokerError::Url(text) if text.contains("ca=/nowhere/ca.crt")), "{error}");
}
