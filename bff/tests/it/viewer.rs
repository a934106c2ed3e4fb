//! How the built viewer is served, from a folder of the test.

use std::fs;

use carillon_harness::RedisServer;
use reqwest::{Client, header};

use crate::world::Bff;

#[tokio::test]
async fn hashed_files_are_immutable_and_the_page_is_revalidated() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("assets")).unwrap();
    for (name, text) in [
        ("index.html", "<!doctype html>"),
        ("assets/app-1.js", "plain"),
        ("assets/app-1.js.br", "squeezed"),
        ("assets/app-1.js.gz", "zipped"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let redis = RedisServer::shared();
    let bff = Bff::spawn("bff-1", &redis.url(), &["--static-dir", folder.path().to_str().unwrap()]);
    bff.until_ready().await;
    let get = async |path: &str, encoding: &str| {
        let answer =
            Client::new().get(bff.http(path)).header(header::ACCEPT_ENCODING, encoding).send().await.unwrap();
        let headers = answer.headers().clone();
        let value = |name| {
            headers
                .get(name)
                .map(|value: &header::HeaderValue| value.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        (
            answer.status().as_u16(),
            value(header::CACHE_CONTROL),
            value(header::CONTENT_ENCODING),
            answer.text().await.unwrap(),
        )
    };
    let immutable = "public, max-age=31536000, immutable".to_owned();
    assert_eq!(get("/", "br").await, (200, "no-cache".into(), String::new(), "<!doctype html>".into()));
    assert_eq!(
        get("/assets/app-1.js", "gzip, br").await,
        (200, immutable.clone(), "br".into(), "squeezed".into())
    );
    assert_eq!(
        get("/assets/app-1.js", "gzip").await,
        (200, immutable.clone(), "gzip".into(), "zipped".into())
    );
    assert_eq!(get("/assets/app-1.js", "identity").await, (200, immutable, String::new(), "plain".into()));
    let (status, caching, _, _) = get("/assets/gone.js", "br").await;
    assert_eq!((status, caching.as_str()), (404, "no-cache"), "a miss is not remembered");
    assert_eq!(get("/../Cargo.toml", "br").await.0, 404);
    assert_eq!(get("/api/notifications", "br").await.0, 200);
}

/// The content security policy that a replica sends.
pub(crate) async fn policy() -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), "<!doctype html>").unwrap();
    let redis = RedisServer::shared();
    let bff = Bff::spawn("bff-1", &redis.url(), &["--static-dir", folder.path().to_str().unwrap()]);
    bff.until_ready().await;
    let answer = reqwest::get(bff.http("/")).await.unwrap();
    answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
}
