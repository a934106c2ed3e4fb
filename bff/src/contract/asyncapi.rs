//! The AsyncAPI 3.0 document of what is said on the sockets and streams.

use std::fs;
use std::path::Path;

use carillon_protocol::limits::{HEARTBEAT_MS, SILENCE_MS, TOPIC_MAX_BYTES, TOPICS_MAX};
use carillon_protocol::{ClientMessage, CloseCode, ServerMessage};
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{RemoveRefSiblings, Transform};
use serde_json::{Map, Value, json};

const ABOUT: &str = "What a reader hears, and what it may say. Types and fields that a program does not know \
    are to be ignored. What is over HTTP is in `/openapi.json`.";

/// Why a WebSocket ends, and whether to come back.
const CLOSES: [(CloseCode, &str); 10] = [
    (CloseCode::TOO_LARGE, "a message is longer than it may be"),
    (CloseCode::INTERNAL, "something is wrong on this side; another replica may do better"),
    (CloseCode::TRY_LATER, "there is no room now, or the service is away for a moment"),
    (CloseCode::DRAIN, "the replica goes away"),
    (CloseCode::SLOW, "the reader did not take what was written"),
    (CloseCode::SILENT, "nothing was heard of the reader"),
    (CloseCode::TOKEN_EXPIRED, "the token has run out"),
    (CloseCode::BAD_MESSAGE, "a message that cannot be read"),
    (CloseCode::REFUSED, "not allowed"),
    (CloseCode::LIMIT, "a limit was passed"),
];

pub(super) fn document() -> Value {
    let mut schemas = generator();
    let server = messages::<ServerMessage>(&mut schemas, "server");
    let client = messages::<ClientMessage>(&mut schemas, "client");
    let names = |of: &Map<String, Value>| of.keys().cloned().collect::<Vec<_>>();
    let (heard, said) = (names(&server), names(&client));
    let notify = notify();
    let told = names(&notify);
    let all: Vec<_> = heard.iter().chain(&said).cloned().collect();
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
                "messages": pointers(&heard, "#/components/messages"),
                "bindings": { "http": { "bindingVersion": "0.3.0" } },
            },
            "notify": {
                "address": "/notify/ws",
                "description": "The socket of go-bridget/notify, for a signed-in user. What a client says is dropped.",
                "messages": pointers(&told, "#/components/messages"),
                "bindings": { "ws": { "method": "GET", "bindingVersion": "0.1.0" } },
            },
        },
        "operations": {
            "hear": operation("send", "ws", "What a reader hears.", &heard),
            "say": operation("receive", "ws", "What a reader may say.", &said),
            "follow": operation("send", "sse", "What a stream carries.", &heard),
            "tell": operation("send", "notify", "What a client of notify hears.", &told),
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
        ("notify-connect", frame("The first frame: whose socket it is.", connect)),
        ("notify-state", frame("The user's state, after `connect` and whenever it changes.", state)),
        ("notify-payload", frame("What was published for the user, byte for byte.", json!({}))),
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
            let then = if code.resumes() { "come back with a back-off and the cursor" } else { "stop" };
            format!("- {}: {why}; {then}", code.0)
        })
        .collect();
    format!(
        "One JSON object a text frame. `welcome` comes first. A heartbeat comes every {} s; a reader of which \
         nothing was heard for {} s is closed.\n\nSecrets need not stand in the address: a client names the \
         subprotocols `carillon` and `bearer.<token>` or `session.<token>`, or `carillon` alone, and sends `hello` \
         first.\n\nClose codes:\n{}",
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
            "since": text("The last cursor that was seen: what came after it is sent first."),
            "token": text("The token of a user, where no header can be set."),
            "session": text("The sealed token of a session, or `new` for a new one."),
            "topic": { "type": "array", "items": name, "maxItems": TOPICS_MAX, "description": "A topic to read, as often as there are topics." },
        },
    })
}
