//! Limits of messages to the application.

use carillon_harness::{DialOptions, Socket};

use super::application::{Answer, Application, WEBHOOK};
use super::message;
use crate::people::{PEOPLE, token};
use crate::world::{Bff, World};

/// A reader from this address.
async fn from(bff: &Bff, url: &str, address: &str) -> Socket {
    let headers = vec![("x-forwarded-for".to_owned(), address.to_owned())];
    let mut socket = Socket::open(url, &DialOptions { headers, ..DialOptions::default() }).await.unwrap();
    let welcome = socket.text().await;
    assert!(welcome.contains(&bff.name), "{welcome}");
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_an_address_have_limits_of_messages_to_the_application() {
    let world = World::new();
    let application = Application::start(|_, _| Answer::Status(204)).await;
    let limits =
        ["--publishes-per-user", "1", "--publish-burst-per-user", "3", "--trusted-proxies", "127.0.0.0/8"];
    let url = application.url();
    let own = ["--webhook-secret", WEBHOOK, "--upstream-url", &url, "--allow-anonymous-messages"];
    let bff = Bff::spawn("bff-1", &world.redis.url(), &[&PEOPLE[..], &own, &limits].concat());
    bff.until_ready().await;
    let of_ann = format!("{}?token={}", bff.ws(), token("ann"));
    for (url, other) in [(bff.ws(), "192.0.2.2"), (of_ann, "192.0.2.3")] {
        let mut socket = from(&bff, &url, "192.0.2.1").await;
        for n in 0..30 {
            socket.send(&message(&format!("m-{n}"))).await;
        }
        socket.send(r#"{"type":"ping"}"#).await;
        let first = answer(&mut socket).await;
        assert!(
            first.contains("rate_limited") && first.contains("at most 1 a second, 3 in a row"),
            "{first}"
        );
        // A client that reconnects is the same one, and others are unaffected.
        let mut again = from(&bff, &url, "192.0.2.1").await;
        for n in 0..30 {
            again.send(&message(&format!("again-{n}"))).await;
        }
        again.send(r#"{"type":"ping"}"#).await;
        assert!(answer(&mut again).await.contains("rate_limited"));
        let mut other = from(&bff, &bff.ws(), other).await;
        other.send(&message("other")).await;
        other.send(r#"{"type":"ping"}"#).await;
        assert!(answer(&mut other).await.contains("heartbeat"));
    }
}

/// The next refusal or heartbeat; a user's state is passed over.
async fn answer(socket: &mut Socket) -> String {
    loop {
        let text = socket.text().await;
        if !text.contains(r#""type":"state""#) {
            return text;
        }
    }
}
