//! The OpenAPI 3.1 document of everything over HTTP.

use carillon_protocol::limits::{
    NAME_MAX_BYTES, PAGE_DEFAULT_ITEMS, PAGE_MAX_ITEMS, TOPIC_MAX_BYTES, TOPICS_MAX,
};
use carillon_protocol::{FieldError, Problem};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Value, json};

use super::operation::refusals;
use super::paths::operations;

const ABOUT: &str = "Notifications over HTTP: publish them, read their history, and receive them. The messages of \
    `/ws` and `/sse` are in `/asyncapi.json`. Refusals are `application/problem+json` (RFC 9457). A program \
    must ignore unknown fields.";

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
        ("Notifications", "Publish notifications, and read history."),
        ("Streams", "Receive notifications as they are published."),
        ("People", "Sessions, presence, states and revocations of users."),
        ("Twirp", "The service of go-bridget/notify, in JSON or protobuf. Refusals are Twirp errors."),
        ("Jobs", "Background jobs, whose reports reach their owner."),
        ("Service", "This document, and the other documents of the service."),
    ];
    all.iter().map(|(name, description)| json!({ "name": name, "description": description })).collect()
}

fn parameters() -> Value {
    let query = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let text = |max: usize| json!({ "type": "string", "minLength": 1, "maxLength": max });
    let (name, topic) = (text(NAME_MAX_BYTES), text(TOPIC_MAX_BYTES));
    json!({
        "since": query("since", "The last cursor that was seen: later entries are returned.", json!({ "type": "string" })),
        "before": query("before", "Reads backwards: the last page before this cursor, or before `now`, and no further back than `since`.", json!({ "type": "string" })),
        "from": query("from", "The sender of the message, since ids are unique for each sender only; by default the caller.",
            json!({ "type": "string", "minLength": 1, "maxLength": NAME_MAX_BYTES })),
        "limit": query("limit", "The maximum number of items of a page.",
            json!({ "type": "integer", "minimum": 1, "maximum": PAGE_MAX_ITEMS, "default": PAGE_DEFAULT_ITEMS })),
        "session": query("session", "The sealed token of a session, or `new` for a new one. The header `Carillon-Session` likewise.",
            json!({ "type": "string" })),
        "topic": query("topic", "A topic to read; may be repeated.",
            json!({ "type": "array", "items": topic, "maxItems": TOPICS_MAX })),
        "user": query("user", "A user; may be repeated, for at most 100 users.", json!({ "type": "array", "items": name, "minItems": 1, "maxItems": 100 })),
        "lastEventId": {
            "name": "Last-Event-ID", "in": "header", "schema": { "type": "string" },
            "description": "The last cursor that was seen, as browsers send it. It takes precedence over `since`.",
        },
    })
}

fn security_schemes() -> Value {
    json!({
        "key": { "type": "http", "scheme": "bearer", "description": "One of the keys in `API_KEY`, with the scope of the operation: `publish`, `read` or `revoke`. Publishing needs none with `ALLOW_PUBLISH=1`, or on the same machine without keys and secrets; the other operations need none on the same machine only if users cannot sign in either." },
        "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The token of a user; docs/protocol/identity.md names its claims and algorithms." },
        "tokenInQuery": { "type": "apiKey", "in": "query", "name": "token", "description": "The same token, for browsers' WebSockets." },
        "tokenInCookie": { "type": "apiKey", "in": "cookie", "name": "SESSION_COOKIE", "description": "The same token, in the cookie that the service names in `SESSION_COOKIE`; without that, no cookie is read." },
        "session": { "type": "apiKey", "in": "header", "name": "Carillon-Session", "description": "The sealed token of a session." },
        "sessionInQuery": { "type": "apiKey", "in": "query", "name": "session", "description": "The same, for browsers' WebSockets." },
        "webhook": { "type": "apiKey", "in": "header", "name": "webhook-signature", "description": "A Standard Webhooks signature, beside `webhook-id` and `webhook-timestamp`." },
        "apiAuth": { "type": "apiKey", "in": "header", "name": "Authorization", "description": "`APIAuth ID:SIGNATURE`, where the service has `APIAUTH_SECRET`." },
    })
}
