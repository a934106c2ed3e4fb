//! Every operation, with the statuses that its handler returns.

use carillon_protocol::Notification;
use carillon_protocol::http::{
    DemoState, JobAccepted, JobList, JobRequest, JobState, MessageProgress, MessageTrace, Page, PresenceList,
    Published, RevocationRequest, SessionOpened, SignInRequest, SignedIn, UserPresence,
};
use schemars::JsonSchema;
use schemars::generate::SchemaGenerator;
use serde_json::{Value, json};

use super::operation::Operation;

/// Readers: anonymous, a user, or a session.
const READERS: [&str; 6] = ["", "token", "tokenInQuery", "tokenInCookie", "session", "sessionInQuery"];
/// The parties of a message.
const PARTIES: [&str; 4] = ["key", "token", "tokenInQuery", "tokenInCookie"];

fn of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

pub(super) fn operations(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    [notifications(schemas), streams(), people(schemas), programs(), twirp(), jobs(schemas), service()]
        .into_iter()
        .flatten()
        .collect()
}

fn notifications(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    let (get, post) = ("get", "post");
    let tag = "Notifications";
    vec![
        Operation::new(get, "/api/notifications", tag, "list", "Reads history, oldest first")
            .text("The notifications for everyone, for the caller's user and session, and for each `topic`; without `since` from the beginning, and with `before` from the newest end.")
            .for_any(&READERS)
            .takes(&["since", "before", "limit", "session", "topic"])
            .answers(200, "A page. Its `next` is the `since` of the next page; its `previous`, if it has one, is the `before` of the page before it.", of::<Page>(schemas))
            .refuses(&[400, 401, 403, 408, 429, 500, 503]),
        Operation::new(post, "/api/notifications", tag, "publish", "Publishes a notification")
            .text("A repeated `from` and `id` is accepted again and shown once. A user sends to a user or to a topic; with a key, an application publishes to any audience. Only a user's message has a `status`.")
            .for_any(&["key", "webhook", "apiAuth", "token", "tokenInQuery", "tokenInCookie"])
            .body(of::<Notification>(schemas))
            .answers(202, "It is in the list.", of::<Published>(schemas))
            .refuses(&[400, 401, 403, 408, 409, 413, 415, 429, 500, 503]),
        Operation::new(get, "/api/notifications/{id}", tag, "progress", "Returns the status of a message between people")
            .text("For its sender, its addressee, and applications with a key. Kept for 7 days.")
            .for_any(&PARTIES)
            .takes(&["from"])
            .answers(200, "Its status.", of::<MessageProgress>(schemas))
            .refuses(&[400, 401, 403, 404, 408, 429, 500, 503]),
        Operation::new(get, "/api/notifications/{id}/trace", tag, "trace", "Returns where a message is waiting")
            .text("Each step: accepted, claimed, routed, written, acknowledged, read, or where it stopped. The number of replicas that received it is for callers that may read the addressee's presence, and whole ids of connections are for keys.")
            .for_any(&PARTIES)
            .takes(&["from"])
            .answers(200, "Its steps.", of::<MessageTrace>(schemas))
            .refuses(&[400, 401, 403, 404, 408, 429, 500, 503]),
    ]
}

fn streams() -> Vec<Operation> {
    let tag = "Streams";
    vec![
        Operation::new("get", "/ws", tag, "socket", "Opens a WebSocket")
            .text("The messages both ways, and the close codes, are in `/asyncapi.json`.")
            .for_any(&READERS)
            .takes(&["since", "session", "topic"])
            .ends(101, "The socket is open; `welcome` is the first frame.")
            .refuses(&[400, 401, 403, 426, 429, 500, 503]),
        Operation::new("get", "/sse", tag, "events", "Opens a stream of server-sent events")
            .text("The frames of `/ws`: `event` is the type, `data` the JSON, `id` the cursor. For a temporary refusal, it is a stream of `retry` and `error` that ends: a browser reconnects.")
            .for_any(&READERS)
            .takes(&["since", "lastEventId", "session", "topic"])
            .answers_as(200, "The stream.", "text/event-stream", json!({ "type": "string" }))
            .refuses(&[400, 401, 403, 500]),
        Operation::new("get", "/notify/ws", tag, "notifySocket", "Opens a WebSocket for a client of notify")
            .text("The state of a signed-in user, and raw payloads for the user, in the frames of go-bridget/notify.")
            .for_any(&["token", "tokenInQuery", "tokenInCookie"])
            .ends(101, "The socket is open; `connect` is the first frame.")
            .refuses(&[401, 403, 426, 429, 500, 503]),
    ]
}

/// The states and payloads of programs for users.
fn programs() -> Vec<Operation> {
    let (tag, state) = ("People", json!({ "type": "object", "additionalProperties": { "type": "string" } }));
    vec![
        Operation::new("get", "/api/users/{user}/state", tag, "state", "Returns the state of a user")
            .text("For the user, and applications with a key. An empty object without a state.")
            .for_any(&PARTIES)
            .answers(200, "The fields.", state.clone())
            .refuses(&[400, 401, 403, 408, 429, 500, 503]),
        Operation::new("put", "/api/users/{user}/state", tag, "setState", "Sets the state of a user")
            .text("The fields, of at most 64 KiB, replace the whole state, which is sent to the user's readers.")
            .for_any(&["key"])
            .body(state)
            .ends(204, "The state is set.")
            .refuses(&[400, 401, 403, 408, 413, 415, 429, 500, 503]),
        Operation::new("post", "/api/users/{user}/raw", tag, "publishRaw", "Publishes a raw payload to a user")
            .text("The body, of at most 64 KiB of any bytes, is sent to the user's current connections, and is not stored.")
            .for_any(&["key"])
            .body_of("*/*", json!({}))
            .ends(204, "It was published.")
            .refuses(&[400, 401, 403, 408, 413, 429, 500, 503]),
    ]
}

/// The service of notify, as JSON; `docs/notify.proto` has it for protobuf.
fn twirp() -> Vec<Operation> {
    let text = || json!({ "type": "string" });
    let message = |fields: Value| json!({ "type": "object", "properties": fields });
    let error = json!({
        "type": "object",
        "required": ["code", "msg"],
        "properties": { "code": text(), "msg": text(), "meta": { "type": "object", "additionalProperties": text() } },
    });
    let call = |path, id, summary, request, response| {
        let call = Operation::new("post", path, "Twirp", id, summary).body(message(request));
        let refusals = [
            (400, "`malformed` or `invalid_argument`."),
            (401, "`unauthenticated`."),
            (403, "`permission_denied`."),
            (404, "`bad_route`: of another content type."),
            (500, "`internal`."),
            (503, "`unavailable`."),
        ];
        let answers = call.answers(200, "The answer.", message(response));
        refusals.into_iter().fold(answers, |call, (status, codes)| call.answers(status, codes, error.clone()))
    };
    let refused = "`resource_exhausted`.";
    vec![
        call(
            "/twirp/notify.NotifyService/Auth",
            "twirpAuth",
            "Returns the user of a token",
            json!({ "authorization": text() }),
            json!({ "userID": text() }),
        )
        .text("Where `authorization` is empty, the session cookie counts.")
        .for_any(&["", "tokenInCookie"])
        .refuses(&[408, 429]),
        call(
            "/twirp/notify.NotifyService/Publish",
            "twirpPublish",
            "Publishes a raw payload to a user",
            json!({ "userID": text(), "message": text() }),
            json!({}),
        )
        .text("Like `/api/users/{user}/raw`.")
        .for_any(&["key"])
        .answers(429, refused, error.clone())
        .refuses(&[408, 429]),
        call(
            "/twirp/notify.NotifyService/State",
            "twirpState",
            "Returns the state of a user",
            json!({ "userID": text() }),
            json!({ "state": { "type": "object", "additionalProperties": text() } }),
        )
        .for_any(&PARTIES)
        .refuses(&[408, 429]),
    ]
}

fn people(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    let tag = "People";
    vec![
        Operation::new("post", "/api/sessions", tag, "openSession", "Opens a session")
            .text("The session that the request names, with a new token if that is old, or else a new session.")
            .for_any(&["", "session", "sessionInQuery"])
            .answers(201, "The session is open.", of::<SessionOpened>(schemas))
            .refuses(&[401, 403, 408, 429, 500, 503]),
        Operation::new("post", "/api/revocations", tag, "revoke", "Revokes tokens and sessions")
            .text("Revokes every token of a `user` issued up to now, the `token` with this `jti`, or the `session` with this id, and closes their sockets.")
            .for_any(&["key"])
            .body(of::<RevocationRequest>(schemas))
            .ends(204, "The revocation is stored, for 31 days.")
            .refuses(&[400, 401, 403, 408, 413, 415, 429, 500, 503]),
        Operation::new("get", "/api/presence", tag, "presences", "Returns which of several users are online")
            .text("For tokens whose `topics` cover `presence:<user>`, and applications with a key.")
            .for_any(&PARTIES)
            .takes(&["user"])
            .answers(200, "The users, in the order of the request.", of::<PresenceList>(schemas))
            .refuses(&[400, 401, 403, 408, 429, 500, 503]),
        Operation::new("get", "/api/presence/{user}", tag, "presence", "Returns whether a user is online")
            .for_any(&PARTIES)
            .answers(200, "The user.", of::<UserPresence>(schemas))
            .refuses(&[400, 401, 403, 408, 429, 500, 503]),
        Operation::new("get", "/api/demo", tag, "demo", "Returns whether clients may sign in under any name")
            .for_any(&[""])
            .ends(204, "They may.")
            .answers(200, "They may not.", of::<DemoState>(schemas)),
        Operation::new("post", "/api/demo/token", tag, "signIn", "Signs a user in, for demonstrations")
            .for_any(&[""])
            .body(of::<SignInRequest>(schemas))
            .answers(200, "A token.", of::<SignedIn>(schemas))
            .refuses(&[400, 403, 404, 408, 429]),
    ]
}

fn jobs(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    let tag = "Jobs";
    let owners = &READERS[1..];
    vec![
        Operation::new("post", "/api/jobs", tag, "startJob", "Starts a background job")
            .text("Its reports are notifications with the `collapse_key` `job:<id>`. A repeat with the same id starts nothing. Open with ALLOW_JOBS, and to applications with a key.")
            .for_any(owners)
            .takes(&["session"])
            .body(of::<JobRequest>(schemas))
            .answers(202, "It is in the queue; `Location` is its address.", of::<JobAccepted>(schemas))
            .refuses(&[400, 401, 403, 408, 413, 415, 429, 500, 503]),
        Operation::new("get", "/api/jobs", tag, "jobs", "Lists the caller's jobs, newest first")
            .for_any(owners)
            .takes(&["session"])
            .answers(200, "At most 20.", of::<JobList>(schemas))
            .refuses(&[401, 403, 408, 429, 500, 503]),
        Operation::new("get", "/api/jobs/{id}", tag, "job", "Returns the status of a job")
            .text("For its owner. Kept for 24 hours after its last change.")
            .for_any(owners)
            .takes(&["session"])
            .answers(200, "The job.", of::<JobState>(schemas))
            .refuses(&[401, 403, 404, 408, 429, 500, 503]),
    ]
}

fn service() -> Vec<Operation> {
    let tag = "Service";
    let get = |path, id, summary| Operation::new("get", path, tag, id, summary).for_any(&[""]);
    let object = || json!({ "type": "object" });
    vec![
        get("/openapi.json", "openapi", "This document").answers(200, "OpenAPI 3.1.", object()),
        get("/asyncapi.json", "asyncapi", "The messages of the streams").answers(
            200,
            "AsyncAPI 3.0.",
            object(),
        ),
        get("/docs", "docs", "This document as a page").answers_as(
            200,
            "The page.",
            "text/html",
            json!({ "type": "string" }),
        ),
    ]
}
