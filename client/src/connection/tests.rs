use super::*;
use crate::Opening;

const WELCOME: &str = r#"{"type":"welcome","connection":"c","replica":"bff-2","user":"ann","session":null,"cursor":"e.5-0","resume":"none","heartbeat_ms":25000}"#;
const MESSAGE: &str = r#"{"type":"notification","cursor":"e.6-0","claimed_by":"bff-1","notification":{"id":"i","body":"b","from":"bob","to":{"user":"ann"}}}"#;

/// Opens the sockets of a script, and refuses once it has ended.
#[derive(Default)]
struct Script {
    sockets: VecDeque<ScriptSocket>,
    opened_after: Vec<Option<String>>,
}

#[derive(Default)]
struct ScriptSocket {
    frames: VecDeque<Frame>,
    sent: Vec<String>,
}

impl Dial for Script {
    type Socket = ScriptSocket;
    type Refused = &'static str;

    fn open(&mut self, since: Option<&str>, _topics: &[String]) -> Opening<ScriptSocket, &'static str> {
        self.opened_after.push(since.map(ToOwned::to_owned));
        let socket = self.sockets.pop_front().ok_or("the script has ended");
        Box::pin(async move { socket })
    }
}

impl Socket for ScriptSocket {
    async fn frame(&mut self) -> Frame {
        match self.frames.pop_front() {
            Some(frame) => frame,
            None => pending().await,
        }
    }

    async fn send(&mut self, text: &str) {
        self.sent.push(text.to_owned());
    }

    async fn close(self) {}
}

fn connection(sockets: &[&[&str]], is_lost: bool) -> Connection<Script> {
    let lost = is_lost.then(|| Frame::Closed { code: None, reason: String::new() });
    let socket = |texts: &&[&str]| {
        let texts = texts.iter().map(|text| Frame::Text((*text).to_owned()));
        ScriptSocket { frames: texts.chain(lost.clone()).collect(), sent: Vec::new() }
    };
    let sockets = sockets.iter().map(socket).collect();
    Connection::new(Script { sockets, opened_after: Vec::new() }, None)
}

/// Shows each message, and returns when the connection is refused.
async fn run(connection: &mut Connection<Script>) {
    loop {
        match connection.next().await {
            Event::Received { event: ClientEvent::Notification(delivery), .. } => connection.shown(&delivery),
            Event::Refused(_) => return,
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn resumes_from_the_last_cursor() {
    let mut connection = connection(&[&[WELCOME, MESSAGE]], true);
    run(&mut connection).await;
    assert_eq!(connection.dial.opened_after, [None, Some("e.6-0".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn sends_due_acknowledgements() {
    let mut connection = connection(&[&[WELCOME, MESSAGE]], false);
    let shown_for = Duration::from_millis(2 * ACK_AFTER_MS);
    assert!(tokio::time::timeout(shown_for, run(&mut connection)).await.is_err());
    let sent = &connection.socket().unwrap().sent;
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].contains(r#""type":"ack""#), "{sent:?}");
}

/// With a loop that never waits, the paused clock would stand still, and the next attempt would never come.
#[tokio::test(start_paused = true)]
async fn acknowledgements_that_are_due_do_not_wake_a_lost_connection() {
    let mut connection = connection(&[&[WELCOME, MESSAGE]], true);
    for _ in 0..4 {
        run(&mut connection).await;
    }
    assert_eq!(connection.dial.opened_after.len(), 5);
}
