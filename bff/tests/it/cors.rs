//! Pages of the origins that are named may fetch, and no others.

use carillon_harness::RedisServer;
use reqwest::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS as CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS as HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS as METHODS, ACCESS_CONTROL_ALLOW_ORIGIN as ORIGIN,
    ACCESS_CONTROL_MAX_AGE as MAX_AGE, HeaderMap, HeaderName, VARY,
};
use reqwest::{Client, Method};

use crate::world::Bff;

const OURS: &str = "https://app.example.com";
const FOREIGN: &str = "https://elsewhere.example";

async fn replica(redis: &RedisServer, args: &[&str]) -> Bff {
    let bff = Bff::spawn("bff-1", &redis.url(), args);
    bff.until_ready().await;
    bff
}

/// The preflight request of a browser before a request that a form could not send.
async fn preflight(bff: &Bff, path: &str, origin: &str) -> (u16, HeaderMap) {
    let request = Client::new()
        .request(Method::OPTIONS, bff.http(path))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,carillon-session,content-type");
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.headers().clone())
}

async fn get(bff: &Bff, path: &str, origin: &str) -> (u16, HeaderMap) {
    let answer = Client::new().get(bff.http(path)).header("origin", origin).send().await.unwrap();
    (answer.status().as_u16(), answer.headers().clone())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_the_named_origins_may_fetch_and_no_others() {
    let redis = RedisServer::shared();
    let bff = replica(&redis, &["--allowed-origins", "https://app.example.com, http://localhost:3000"]).await;
    for origin in [OURS, "http://localhost:3000"] {
        for path in ["/api/notifications", "/api/sessions", "/api/nothing"] {
            let (status, headers) = preflight(&bff, path, origin).await;
            assert_eq!((status, text(&headers, &ORIGIN)), (200, Some(origin)), "{path}");
            assert_eq!(text(&headers, &CREDENTIALS), Some("true"));
            assert_eq!(text(&headers, &METHODS), Some("GET,POST,PUT"));
            let allowed = text(&headers, &HEADERS).unwrap();
            let needed = ["authorization", "content-type", "carillon-session"];
            assert!(needed.iter().all(|name| allowed.contains(name)), "{allowed}");
            assert_eq!(text(&headers, &MAX_AGE), Some("600"));
        }
    }
    // The answers themselves can be read, refusals too.
    for (path, expected) in [
        ("/api/notifications", 200),
        ("/sse?topic=closed", 403),
        ("/api/notifications?session=x", 401),
        ("/api/nothing", 404),
    ] {
        let (status, headers) = get(&bff, path, OURS).await;
        assert_eq!((status, text(&headers, &ORIGIN)), (expected, Some(OURS)), "{path}");
        assert!(
            text(&headers, &VARY).is_some_and(|vary| vary.contains("origin")),
            "a cache keeps them apart"
        );
    }
    // What is not named is not allowed, however alike it looks.
    for origin in [FOREIGN, "https://app.example.com.evil.example", "http://app.example.com", "null"] {
        let (_, asked) = preflight(&bff, "/api/notifications", origin).await;
        let (status, got) = get(&bff, "/api/notifications", origin).await;
        assert_eq!((text(&asked, &ORIGIN), text(&got, &ORIGIN), status), (None, None, 403), "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_star_any_page_may_fetch_and_none_may_send_cookies() {
    let redis = RedisServer::shared();
    let any = replica(&redis, &["--allowed-origins", "*"]).await;
    for (_, headers) in
        [preflight(&any, "/api/sessions", FOREIGN).await, get(&any, "/sse?since=x", FOREIGN).await]
    {
        assert_eq!((text(&headers, &ORIGIN), text(&headers, &CREDENTIALS)), (Some(FOREIGN), None));
    }
    // Without a list, a page of the same host needs no leave, and others get none.
    let same = replica(&redis, &[]).await;
    for origin in [same.http(""), FOREIGN.to_owned()] {
        let (_, asked) = preflight(&same, "/api/sessions", &origin).await;
        let (_, got) = get(&same, "/api/notifications", &origin).await;
        assert_eq!((text(&asked, &ORIGIN), text(&got, &ORIGIN)), (None, None), "{origin}");
    }
}
