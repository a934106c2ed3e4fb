//! The front door: the viewer's files, and a cookie that holds a browser to its replica for as long as
//! that is there.

use carillon_harness::{RedisServer, eventually};
use reqwest::{Client, Response, header};

use crate::door::Door;
use crate::world::{DEADLINE, entry};

const COOKIE: &str = "REALTIMESERVERID=";

async fn get(door: &Door, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Client::new().get(door.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn value(response: &Response, name: header::HeaderName) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// The cookie that an answer leaves: where it sets one more than once, the last.
pub(crate) fn cookie(response: &Response) -> Option<String> {
    let set = response.headers().get_all(header::SET_COOKIE).into_iter().next_back()?.to_str().unwrap();
    set.starts_with(COOKIE).then(|| set.split(';').next().unwrap().to_owned())
}

/// The replica that a stream says it comes from.
pub(crate) async fn welcome(stream: Response) -> String {
    welcomed(stream).await.expect("a welcome")
}

/// The same; `None` where the stream does not begin with a welcome.
async fn welcomed(mut stream: Response) -> Option<String> {
    let mut text = String::new();
    while !text.contains("\n\n") {
        text.push_str(&String::from_utf8_lossy(&stream.chunk().await.ok()??));
    }
    let (_, rest) = text.split_once(r#""replica":""#)?;
    rest.split('"').next().map(str::to_owned)
}

#[tokio::test]
async fn the_viewer_comes_precompressed_and_its_hashed_files_last_for_ever() {
    let door = Door::open_with(RedisServer::shared(), &["--allow-publish"]).await;
    let page = get(&door, "/", &[("accept-encoding", "gzip, br")]).await;
    assert_eq!(value(&page, header::CACHE_CONTROL), "no-cache");
    assert_eq!(value(&page, header::CONTENT_ENCODING), "br");
    assert_eq!(value(&page, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    let direct = crate::viewer::policy().await;
    assert_eq!(value(&page, header::CONTENT_SECURITY_POLICY), direct, "the same as without the door");

    let page = get(&door, "/", &[]).await.text().await.unwrap();
    let wasm = page.split('"').find(|part| part.ends_with(".wasm")).unwrap();
    for (accepted, sent) in [("br", "br"), ("gzip", "gzip"), ("identity", "")] {
        let file = get(&door, &format!("/{wasm}"), &[("accept-encoding", accepted)]).await;
        assert_eq!(value(&file, header::CONTENT_ENCODING), sent);
        assert_eq!(value(&file, header::CONTENT_TYPE), "application/wasm");
        assert_eq!(value(&file, header::CACHE_CONTROL), "public, max-age=31536000, immutable");
    }
    let missing = get(&door, "/assets/gone.js", &[]).await;
    assert_eq!((missing.status().as_u16(), &*value(&missing, header::CACHE_CONTROL)), (404, "no-cache"));
    let published = Client::new()
        .post(door.url("/api/notifications"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(entry("by the door"))
        .send()
        .await
        .unwrap();
    assert_eq!(published.status(), 202);
}

#[tokio::test]
async fn a_cookie_leads_to_one_replica_until_it_ends() {
    let mut door = Door::open(RedisServer::shared()).await;
    let first = get(&door, "/sse", &[]).await;
    let mut held = cookie(&first).unwrap();
    let mut replica = welcome(first).await;
    for kill in [true, false] {
        for _ in 0..5 {
            let again = get(&door, "/sse", &[("cookie", &held)]).await;
            assert_eq!(cookie(&again), None, "it has one");
            assert_eq!(welcome(again).await, replica);
        }
        let at = door.bffs.iter().position(|bff| bff.name == replica).unwrap();
        // A reader that stays keeps the replica draining while others come.
        let _stays = get(&door, "/sse", &[("cookie", &held)]).await;
        if kill {
            door.bffs[at].process.kill();
        } else {
            door.bffs[at].process.sigterm();
            door.bffs[at].until_not_ready().await;
        }
        let mut moved = None;
        eventually("another replica", DEADLINE, async || {
            let answer = get(&door, "/sse", &[("cookie", &held)]).await;
            let cookie = cookie(&answer);
            // A replica that shuts down answers 200 too, without a welcome.
            moved = welcomed(answer).await.map(|replica| (cookie, replica));
            moved.is_some()
        })
        .await;
        let (cookie, other) = moved.unwrap();
        held = cookie.expect("a new cookie");
        assert_ne!(other, replica);
        replica = other;
        if kill {
            door.start_again(at).await;
        }
    }
}
