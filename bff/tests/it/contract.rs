//! Responses are those that docs/openapi.json describes.

use std::collections::BTreeSet;

use reqwest::{Client, Method, Response, header};
use serde_json::{Value, json};

use crate::people::{KEY, people_with, token};
use crate::world::{Bff, World};

/// A call: the request, its credential, and the status that it must have.
struct Call {
    method: Method,
    /// As in the document, with the names of its parts in braces.
    path: &'static str,
    /// The same, as it is requested.
    at: String,
    bearer: String,
    body: Option<Value>,
    status: u16,
}

fn call(method: Method, path: &'static str, status: u16) -> Call {
    Call { method, path, at: path.to_owned(), bearer: token("ann"), body: None, status }
}

impl Call {
    fn at(self, at: &str) -> Self {
        Self { at: at.to_owned(), ..self }
    }

    fn by(self, bearer: &str) -> Self {
        Self { bearer: bearer.to_owned(), ..self }
    }

    fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    async fn send(&self, bff: &Bff) -> Response {
        let mut request = Client::new().request(self.method.clone(), bff.http(&self.at));
        if !self.bearer.is_empty() {
            request = request.bearer_auth(&self.bearer);
        }
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }
}

/// Follows one pointer of the document.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(to) => document.pointer(to.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

/// Panics when the document does not have the response of the call.
async fn check(document: &Value, bff: &Bff, call: &Call) {
    let answer = call.send(bff).await;
    let what = format!("{} {}: {}", call.method, call.at, answer.status());
    assert_eq!(answer.status(), call.status, "{what}");
    let operation = &document["paths"][call.path][call.method.as_str().to_lowercase()];
    let described = resolved(document, &operation["responses"][call.status.to_string()]);
    assert!(described["description"].is_string(), "{what} is not described");
    for name in described["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
        assert!(answer.headers().contains_key(name), "{what}: without {name}");
    }
    let Some((kind, content)) = described["content"].as_object().and_then(|all| all.iter().next()) else {
        assert_eq!(answer.text().await.unwrap(), "", "{what}: a body that is not described");
        return;
    };
    let given = answer.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    assert!(given.starts_with(kind.as_str()), "{what}: {given} where {kind} is described");
    if kind.ends_with("json") {
        let mut schema = content["schema"].clone();
        schema["components"] = document["components"].clone();
        let body: Value = answer.json().await.unwrap();
        if let Err(error) = jsonschema::draft202012::new(&schema).unwrap().validate(&body) {
            panic!("{what}: {error}, in {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_answers_as_described() {
    let document: Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    let world = World::new();
    let bffs = people_with(&world, 1, &["--allow-jobs"]).await;
    let message = json!({ "id": "m", "to": { "user": "ben" }, "body": "hello" });
    let (get, post) =
        (|path, status| call(Method::GET, path, status), |path, status| call(Method::POST, path, status));
    let (list, one, trace) =
        ("/api/notifications", "/api/notifications/{id}", "/api/notifications/{id}/trace");
    let (jobs, presence) = ("/api/jobs", "/api/presence/{user}");
    let (state, raw) = ("/api/users/{user}/state", "/api/users/{user}/raw");
    let [auth, publish, kept] = [
        "/twirp/notify.NotifyService/Auth",
        "/twirp/notify.NotifyService/Publish",
        "/twirp/notify.NotifyService/State",
    ];
    let put = |status| call(Method::PUT, state, status).at("/api/users/ann/state").by(KEY);
    let calls = [
        post(list, 202).body(message.clone()),
        post(list, 409)
            .body(json!({ "id": "m", "to": { "user": "eve" }, "body": "hello" }))
            .by(&token("ann")),
        post(list, 403).body(json!({ "to": { "topic": "closed" }, "body": "b" })),
        post(list, 400).body(json!({ "to": { "user": "ben" } })),
        post(list, 202).body(json!({ "body": "for all" })).by(KEY),
        post(list, 401).body(message).by(""),
        post(list, 415),
        get(list, 200),
        get(list, 200).at("/api/notifications?limit=1").by(""),
        get(list, 400).at("/api/notifications?limit=0"),
        get(list, 401).by("forged"),
        get(one, 200).at("/api/notifications/m"),
        get(one, 404).at("/api/notifications/other"),
        get(one, 401).at("/api/notifications/m").by(""),
        get(trace, 200).at("/api/notifications/m/trace"),
        get(trace, 404).at("/api/notifications/m/trace").by(&token("eve")),
        get("/ws", 426),
        get("/ws", 401).by("forged"),
        get("/sse", 200).by(""),
        get("/sse", 401).by("forged"),
        post("/api/sessions", 201).by(""),
        post("/api/sessions", 401).at("/api/sessions?session=forged").by(""),
        post("/api/revocations", 204).by(KEY).body(json!({ "token": "jti" })),
        post("/api/revocations", 400).by(KEY).body(json!({ "everything": true })),
        post("/api/revocations", 401).body(json!({ "token": "jti" })),
        post(jobs, 202).body(json!({ "id": "j", "name": "Report", "steps": 1 })),
        post(jobs, 400).body(json!({ "steps": 0 })),
        post(jobs, 401).body(json!({})).by(""),
        get(jobs, 200),
        get(jobs, 401).by(""),
        get("/api/jobs/{id}", 200).at("/api/jobs/j"),
        get("/api/jobs/{id}", 404).at("/api/jobs/j").by(&token("eve")),
        get("/api/presence", 200).at("/api/presence?user=ann&user=ben").by(KEY),
        get("/api/presence", 400).by(KEY),
        get(presence, 200).at("/api/presence/ann").by(KEY),
        get(presence, 403).at("/api/presence/ben"),
        get(presence, 401).at("/api/presence/ben").by(""),
        put(204).body(json!({ "unread": "3" })),
        put(400).body(json!({ "unread": 3 })),
        put(401).by(&token("ann")).body(json!({})),
        put(413).body(json!({ "x": "y".repeat(65_536) })),
        put(415),
        get(state, 200).at("/api/users/ann/state"),
        get(state, 403).at("/api/users/ben/state"),
        post(raw, 204).at("/api/users/ann/raw").by(KEY).body(json!("hello")),
        post(raw, 401).at("/api/users/ann/raw").body(json!("hello")),
        post(raw, 413).at("/api/users/ann/raw").by(KEY).body(json!("x".repeat(65_536))),
        post(auth, 200).by("").body(json!({ "authorization": token("ann") })),
        post(auth, 401).by("").body(json!({})),
        post(auth, 404).by(""),
        post(publish, 200).by(KEY).body(json!({ "userID": "ann", "message": "x" })),
        post(publish, 400).by(KEY).body(json!({ "message": "x" })),
        post(kept, 200).body(json!({ "userID": "ann" })),
        post(kept, 403).body(json!({ "userID": "ben" })),
        get("/notify/ws", 426),
        get("/notify/ws", 401).by(""),
        get("/api/demo", 200).by(""),
        post("/api/demo/token", 404).by("").body(json!({ "user": "ann" })),
        get("/openapi.json", 200).by(""),
        get("/asyncapi.json", 200).by(""),
        get("/docs", 200).by(""),
    ];
    for call in &calls {
        check(&document, &bffs[0], call).await;
    }
    let asked: BTreeSet<_> =
        calls.iter().map(|call| format!("{} {}", call.method.as_str().to_lowercase(), call.path)).collect();
    let all = document["paths"].as_object().unwrap();
    let described = all.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
    });
    assert_eq!(described.collect::<BTreeSet<_>>(), asked, "every operation is asked");
}
