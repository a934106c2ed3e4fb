//! The OpenAPI 3.1 document of everything over HTTP.

use carillon_protocol::limits::{
    NAME_MAX_BYTES, PAGE_DEFAULT_ITEMS, PAGE_MAX_ITEMS, TOPIC_MAX_BYTES, TOPICS_MAX,
};
use carillon_protocol::{FieldError, Problem};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Value, json};

use super::operation::refusals;
use super::paths::operations;

const ABOUT: &str = "Notifications over HTTP: publish them, read their history, follow them. What is said on \
    `/ws` and `/sse` is in `/asyncapi.json`. Refusals are `application/problem+json` (RFC 9457). Fields that \
    a program does not know are to be ignored.";

/// OpenAPI 3.1 reads schemas as of draft 2020-12.
fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    settings.into_generator()
}

pub(super) fn document() -> Value {
    let mut schemas = generator();
    let mut paths = json!({});
    for operation in operations(&mut schemas) {
        paths[operation.path][operation.method] = operation.value;
    }
    let problem = schemas.subschema_for::<Problem>().to_value();
    schemas.subschema_for::<FieldError>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Carillon",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/", "description": "The service that this document comes from" }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "parameters": parameters(),
            "responses": refusals(&problem),
            "securitySchemes": security_schemes(),
        },
    })
}

fn tags() -> Value {
    let all = [
        ("Notifications", "Publish, and read what was published."),
        ("Streams", "Follow everything as it happens."),
        ("People", "Who somebody is, and what is kept for them."),
        ("Twirp", "The service of go-bridget/notify, in JSON or protobuf. Refusals are errors of Twirp."),
        ("Jobs", "Work in the background, whose reports reach whoever started it."),
        ("Service", "This document and what else the service says of itself."),
    ];
    all.iter().map(|(name, description)| json!({ "name": name, "description": description })).collect()
}

fn parameters() -> Value {
    let query = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let text = |max: usize| json!({ "type": "string", "minLength": 1, "maxLength": max });
    let (name, topic) = (text(NAME_MAX_BYTES), text(TOPIC_MAX_BYTES));
    json!({
        "since": query("since", "The last cursor that was seen: what comes after it is given.", json!({ "type": "string" })),
        "before": query("before", "Reads back: the last page before this cursor, or the newest before `now`; no further back than `since`.", json!({ "type": "string" })),
        "from": query("from", "The user who sent the message: ids are their sender's own. Where it is absent, the user who asks.",
            json!({ "type": "string", "minLength": 1, "maxLength": NAME_MAX_BYTES })),
        "limit": query("limit", "The most items of a page.",
            json!({ "type": "integer", "minimum": 1, "maximum": PAGE_MAX_ITEMS, "default": PAGE_DEFAULT_ITEMS })),
        "session": query("session", "The sealed token of a session, or `new` for a new one. The header `Carillon-Session` likewise.",
            json!({ "type": "string" })),
        "topic": query("topic", "A topic to read, as often as there are topics.",
            json!({ "type": "array", "items": topic, "maxItems": TOPICS_MAX })),
        "user": query("user", "A user, as often as there are users, at most 100.", json!({ "type": "array", "items": name, "minItems": 1, "maxItems": 100 })),
        "lastEventId": {
            "name": "Last-Event-ID", "in": "header", "schema": { "type": "string" },
            "description": "The last cursor that was seen, as browsers repeat it. It beats `since`.",
        },
    })
}

fn security_schemes() -> Value {
    json!({
        "key": { "type": "http", "scheme": "bearer", "description": "One of the keys in `API_KEY`, with the scope of the operation: `publish`, `read` or `revoke`. Where anybody may publish (with `ALLOW_PUBLISH=1`, or without keys and secrets on the same machine), publishing needs none; the rest only where nobody can sign in." },
        "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The token of a user; docs/protocol/identity.md names its claims and algorithms." },
        "tokenInQuery": { "type": "apiKey", "in": "query", "name": "token", "description": "The same token, for browsers' WebSockets." },
        "tokenInCookie": { "type": "apiKey", "in": "cookie", "name": "SESSION_COOKIE", "description": "The same token, in the cookie that the service names in `SESSION_COOKIE`; without that, no cookie is read." },
        "session": { "type": "apiKey", "in": "header", "name": "Carillon-Session", "description": "The sealed token of a session." },
        "sessionInQuery": { "type": "apiKey", "in": "query", "name": "session", "description": "The same, for browsers' WebSockets." },
        "webhook": { "type": "apiKey", "in": "header", "name": "webhook-signature", "description": "A Standard Webhooks signature, beside `webhook-id` and `webhook-timestamp`." },
        "apiAuth": { "type": "apiKey", "in": "header", "name": "Authorization", "description": "`APIAuth ID:SIGNATURE`, where the service has `APIAUTH_SECRET`." },
    })
}
