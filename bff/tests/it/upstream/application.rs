//! An application that gets signed messages: a real web server, which checks both signatures.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use carillon_auth::signature::{ApiAuthSecrets, WebhookSecrets};
use carillon_bff::now_ms;
use carillon_harness::eventually;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::world::DEADLINE;

pub(crate) const WEBHOOK: &str =
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=,whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// The application knows the second of the two alone.
const KNOWN: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(crate) const LEGACY: &str = "the text that both ends have";

/// How an attempt is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Status(u16),
    /// 503, with this `Retry-After`.
    Later(&'static str),
    /// 204, so much later.
    After(Duration),
    /// The connection breaks in the middle of the answer's head.
    Cut,
    Never,
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) webhook_id: String,
    pub(crate) timestamp: u64,
    pub(crate) content_type: String,
    pub(crate) raw: String,
    pub(crate) body: Value,
    /// The signatures that are good, and what is wrong with the others.
    pub(crate) schemes: Vec<&'static str>,
    pub(crate) faults: Vec<String>,
    pub(crate) answered_well: bool,
}

impl Post {
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

type Behaviour = dyn Fn(&str, usize) -> Answer + Send + Sync;

#[derive(Clone)]
struct Desk {
    posts: Arc<Mutex<Vec<Post>>>,
    behaviour: Arc<Behaviour>,
}

pub(crate) struct Application {
    desk: Desk,
    port: u16,
    serving: AbortHandle,
}

impl Application {
    /// `behaviour` is given the text of a message and the number of the attempt, from 1.
    pub(crate) async fn start(behaviour: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(0, behaviour).await
    }

    pub(crate) async fn start_at(
        port: u16,
        behaviour: impl Fn(&str, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let desk = Desk { posts: Arc::default(), behaviour: Arc::new(behaviour) };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(take).with_state(desk.clone());
        let serving = TaskTracker::new().spawn(axum::serve(listener, router).into_future()).abort_handle();
        Self { desk, port, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/incoming/postback", self.port)
    }

    /// All attempts, in the order in which they came.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.desk.posts().clone()
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.posts().iter().map(|post| post.message().to_owned()).collect()
    }

    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Post> {
        self.until(&format!("{count} attempts"), |posts| posts.len() >= count).await;
        self.posts()
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[Post]) -> bool) {
        eventually(what, DEADLINE, async || condition(&self.desk.posts())).await;
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Desk {
    fn posts(&self) -> MutexGuard<'_, Vec<Post>> {
        self.posts.lock().unwrap()
    }
}

async fn take(State(desk): State<Desk>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let checks = [
        KNOWN.parse::<WebhookSecrets>().unwrap().verify(&parts.headers, &body, now_ms()),
        LEGACY.parse::<ApiAuthSecrets>().unwrap().verify(&parts, &body, now_ms()),
    ];
    let header = |name: &str| parts.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let mut post = Post {
        webhook_id: header("webhook-id"),
        timestamp: header("webhook-timestamp").parse().unwrap(),
        content_type: header("content-type"),
        raw: String::from_utf8(body.to_vec()).unwrap(),
        body: serde_json::from_slice(&body).unwrap(),
        schemes: checks.iter().flatten().map(|verified| verified.scheme).collect(),
        faults: checks.iter().filter_map(|check| Some(check.as_ref().err()?.to_string())).collect(),
        answered_well: false,
    };
    let answer = {
        let mut posts = desk.posts();
        let attempt = posts.iter().filter(|earlier| earlier.webhook_id == post.webhook_id).count() + 1;
        let answer = (desk.behaviour)(post.message(), attempt);
        post.answered_well = matches!(answer, Answer::Status(200..=299) | Answer::After(_));
        posts.push(post);
        answer
    };
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Later(when) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, when)]).into_response()
        }
        Answer::After(pause) => {
            tokio::time::sleep(pause).await;
            StatusCode::NO_CONTENT.into_response()
        }
        Answer::Cut => panic!("the connection breaks"),
        Answer::Never => {
            std::future::pending::<()>().await;
            Body::empty().into_response()
        }
    }
}
