//! The AsyncAPI 3.0 document of the messages on the sockets and streams.

use std::fs;
use std::path::Path;

use carillon_protocol::limits::{HEARTBEAT_MS, SILENCE_MS, TOPIC_MAX_BYTES, TOPICS_MAX};
use carillon_protocol::{ClientMessage, CloseCode, ServerMessage};
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{RemoveRefSiblings, Transform};
use serde_json::{Map, Value, json};

const ABOUT: &str = "The frames that a reader receives, and the messages that it may send. A program must ignore unknown types \
    and fields. The API over HTTP is in `/openapi.json`.";

/// Why a WebSocket ends, and whether to come back.
const CLOSES: [(CloseCode, &str); 10] = [
    (CloseCode::TOO_LARGE, "a message is too long"),
    (CloseCode::INTERNAL, "the server failed; another replica may work"),
    (CloseCode::TRY_LATER, "the server has no room, or is unavailable for a moment"),
    (CloseCode::DRAIN, "the replica shuts down"),
    (CloseCode::SLOW, "the reader read too slowly"),
    (CloseCode::SILENT, "the reader was silent"),
    (CloseCode::TOKEN_EXPIRED, "the token has expired"),
    (CloseCode::BAD_MESSAGE, "a message is unreadable"),
    (CloseCode::REFUSED, "the reader is not allowed, or was revoked"),
    (CloseCode::LIMIT, "the reader has reached a limit"),
];

pub(super) fn document() -> Value {
    let mut schemas = generator();
    let server = messages::<ServerMessage>(&mut schemas, "server");
    let client = messages::<ClientMessage>(&mut schemas, "client");
    let names = |of: &Map<String, Value>| of.keys().cloned().collect::<Vec<_>>();
    let (frames, client_messages) = (names(&server), names(&client));
    let notify = notify();
    let notify_frames = names(&notify);
    let all: Vec<_> = frames.iter().chain(&client_messages).cloned().collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Carillon",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT" },
        },
        "defaultContentType": "application/json",
        "channels": {
            "ws": {
                "address": "/ws",
                "description": socket(),
                "messages": pointers(&all, "#/components/messages"),
                "bindings": { "ws": { "method": "GET", "query": query(), "bindingVersion": "0.1.0" } },
            },
            "sse": {
                "address": "/sse",
                "description": "Server-sent events: `event` is the type, `data` the message as JSON, `id` the cursor where there is one.",
                "messages": pointers(&frames, "#/components/messages"),
                "bindings": { "http": { "bindingVersion": "0.3.0" } },
            },
            "notify": {
                "address": "/notify/ws",
                "description": "The socket of go-bridget/notify, for a signed-in user. Messages of the client are dropped.",
                "messages": pointers(&notify_frames, "#/components/messages"),
                "bindings": { "ws": { "method": "GET", "bindingVersion": "0.1.0" } },
            },
        },
        "operations": {
            "sendFrames": operation("send", "ws", "The frames that a reader receives.", &frames),
            "receiveMessages": operation("receive", "ws", "The messages that a reader may send.", &client_messages),
            "sendEvents": operation("send", "sse", "The events of a stream.", &frames),
            "sendNotifyFrames": operation("send", "notify", "The frames that a client of notify receives.", &notify_frames),
        },
        "components": {
            "messages": server.into_iter().chain(client).chain(notify).collect::<Map<_, _>>(),
            "schemas": schemas.take_definitions(true),
        },
    })
}

/// AsyncAPI reads schemas as of draft 7, which sees nothing beside a `$ref`.
fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    settings.into_generator()
}

/// The frames of notify, as `notify.rs` writes them.
fn notify() -> Map<String, Value> {
    let text = json!({ "type": "string" });
    let kind = |kind: &str| json!({ "type": "string", "const": kind });
    let state = json!({ "type": "object", "additionalProperties": text });
    let frame = |summary: &str, payload: Value| json!({ "summary": summary, "payload": payload });
    let object = |required: [&str; 2], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let connect = object(["kind", "userID"], json!({ "kind": kind("connect"), "userID": text }));
    let state = object(["kind", "state"], json!({ "kind": kind("state"), "state": state }));
    [
        ("notify-connect", frame("The first frame, with the user of the socket.", connect)),
        ("notify-state", frame("The user's state, after `connect` and whenever it changes.", state)),
        ("notify-payload", frame("A payload that was published for the user, byte for byte.", json!({}))),
    ]
    .into_iter()
    .map(|(name, message)| (name.to_owned(), message))
    .collect()
}

/// One message for each variant of `M`, named `<side>-<type>`, with its pinned sample.
fn messages<M: JsonSchema>(schemas: &mut SchemaGenerator, side: &str) -> Map<String, Value> {
    let mut all = M::json_schema(schemas);
    RemoveRefSiblings::default().transform(&mut all);
    let all = all.to_value();
    let variants = all["oneOf"].as_array().expect("one schema for each type").clone();
    let message = |mut payload: Value| {
        let kind = payload["properties"]["type"]["const"].as_str().expect("a type").to_owned();
        let words = payload.as_object_mut().and_then(|payload| payload.remove("description"));
        let message = json!({
            "name": kind,
            "summary": words,
            "payload": payload,
            "examples": [{ "payload": sample(side, &kind) }],
        });
        (format!("{side}-{kind}"), message)
    };
    variants.into_iter().map(message).collect()
}

/// The pinned sample of a message.
pub(super) fn sample(side: &str, kind: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../protocol/golden/{side}/{kind}.json"));
    serde_json::from_str(&fs::read_to_string(path).expect("a sample")).expect("JSON")
}

fn pointers(names: &[String], at: &str) -> Value {
    names.iter().map(|name| (name.clone(), json!({ "$ref": format!("{at}/{name}") }))).collect()
}

fn operation(action: &str, channel: &str, summary: &str, names: &[String]) -> Value {
    let messages: Vec<_> =
        names.iter().map(|name| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") })).collect();
    json!({
        "action": action,
        "channel": { "$ref": format!("#/channels/{channel}") },
        "summary": summary,
        "messages": messages,
    })
}

fn socket() -> String {
    let closes: Vec<_> = CLOSES
        .iter()
        .map(|(code, why)| {
            let then = if code.resumes() { "reconnect with a back-off and the cursor" } else { "stop" };
            format!("- {}: {why}; {then}", code.0)
        })
        .collect();
    format!(
        "Each text frame is one JSON object. `welcome` is the first. A heartbeat is sent every {} s; a reader that \
         was silent for {} s is closed.\n\nTo keep secrets out of the URL, a client names the subprotocols \
         `carillon` and `bearer.<token>` or `session.<token>`, or `carillon` alone and then sends `hello` as its \
         first message.\n\nClose codes:\n{}",
        HEARTBEAT_MS / 1_000,
        SILENCE_MS / 1_000,
        closes.join("\n"),
    )
}

fn query() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let name = json!({ "type": "string", "minLength": 1, "maxLength": TOPIC_MAX_BYTES });
    json!({
        "type": "object",
        "properties": {
            "since": text("The last cursor that was seen: later entries are sent first."),
            "token": text("The token of a user, where no header can be set."),
            "session": text("The sealed token of a session, or `new` for a new one."),
            "topic": { "type": "array", "items": name, "maxItems": TOPICS_MAX, "description": "A topic to read; may be repeated." },
        },
    })
}
