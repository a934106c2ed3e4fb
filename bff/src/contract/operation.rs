//! One operation of the OpenAPI document, built step by step.

use serde_json::{Value, json};

/// The refusals of requests; each is a response of the document.
pub(super) const REFUSALS: [(u16, &str, &str); 13] = [
    (400, "Invalid", "The request is invalid; `errors` names each field and its limit."),
    (401, "Unauthorized", "A key, token, session or signature is required and missing, or is invalid."),
    (403, "Forbidden", "The page, user or key lacks the right to do this."),
    (404, "NotFound", "It does not exist, or the caller may not see it."),
    (408, "RequestTimeout", "The request was not sent, or could not be answered, in time."),
    (409, "Conflict", "The id is already used."),
    (413, "TooLarge", "The body has too many bytes; `detail` names the limit."),
    (415, "UnsupportedMediaType", "The body does not have the required content type."),
    (426, "UpgradeRequired", "The request is not a WebSocket handshake."),
    (429, "TooMany", "The client has reached a limit; retry after the seconds in `Retry-After`."),
    (500, "InternalError", "The service failed; the cause is in its log."),
    (502, "Upstream", "The application behind the service sent no valid response."),
    (503, "Unavailable", "Redis is unavailable, a queue is full, or the replica shuts down: retry."),
];

/// The responses of [`REFUSALS`], by name.
pub(super) fn refusals(problem: &Value) -> Value {
    let responses = REFUSALS.iter().map(|(status, name, description)| {
        let mut response = json!({
            "description": description,
            "content": { "application/problem+json": { "schema": problem } },
        });
        match status {
            401 => {
                response["headers"] = json!({ "WWW-Authenticate": {
                    "description": "`Bearer`, with `error=\"invalid_token\"` for an invalid token (RFC 6750).",
                    "schema": { "type": "string" },
                } });
            }
            429 | 503 => {
                response["headers"] = json!({ "Retry-After": {
                    "description": "Seconds to wait before the next attempt.",
                    "schema": { "type": "integer", "minimum": 1 },
                } });
            }
            _ => {}
        }
        ((*name).to_owned(), response)
    });
    Value::Object(responses.collect())
}

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) value: Value,
}

impl Operation {
    pub(super) fn new(method: &'static str, path: &'static str, tag: &str, id: &str, summary: &str) -> Self {
        let mut value = json!({ "tags": [tag], "operationId": id, "summary": summary, "responses": {} });
        let named: Vec<_> = path
            .split(['{', '}'])
            .skip(1)
            .step_by(2)
            .map(|name| {
                json!({ "name": name, "in": "path", "required": true,
                    "schema": { "type": "string", "minLength": 1, "maxLength": 128 } })
            })
            .collect();
        if !named.is_empty() {
            value["parameters"] = Value::Array(named);
        }
        Self { method, path, value }
    }

    pub(super) fn text(mut self, description: &str) -> Self {
        self.value["description"] = description.into();
        self
    }

    /// Each scheme is enough; an empty name stands for anonymous requests.
    pub(super) fn for_any(mut self, schemes: &[&str]) -> Self {
        let one = |scheme: &&str| if scheme.is_empty() { json!({}) } else { json!({ *scheme: [] }) };
        self.value["security"] = schemes.iter().map(one).collect();
        self
    }

    pub(super) fn takes(mut self, parameters: &[&str]) -> Self {
        let all = parameters.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
        let named = self.value["parameters"].as_array().cloned().unwrap_or_default();
        self.value["parameters"] = named.into_iter().chain(all).collect();
        self
    }

    pub(super) fn body(self, schema: Value) -> Self {
        self.body_of("application/json", schema)
    }

    pub(super) fn body_of(mut self, content_type: &str, schema: Value) -> Self {
        self.value["requestBody"] =
            json!({ "required": true, "content": { content_type: { "schema": schema } } });
        self
    }

    pub(super) fn answers(self, status: u16, description: &str, schema: Value) -> Self {
        self.answers_as(status, description, "application/json", schema)
    }

    pub(super) fn answers_as(
        mut self,
        status: u16,
        description: &str,
        content_type: &str,
        schema: Value,
    ) -> Self {
        self.value["responses"][status.to_string()] =
            json!({ "description": description, "content": { content_type: { "schema": schema } } });
        self
    }

    /// An answer without a body.
    pub(super) fn ends(mut self, status: u16, description: &str) -> Self {
        self.value["responses"][status.to_string()] = json!({ "description": description });
        self
    }

    pub(super) fn refuses(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            let (_, name, _) = REFUSALS.iter().find(|(known, _, _)| known == status).unwrap();
            self.value["responses"][status.to_string()] =
                json!({ "$ref": format!("#/components/responses/{name}") });
        }
        self
    }
}
