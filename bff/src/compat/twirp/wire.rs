//! The messages of docs/notify.proto as protobuf or as JSON, and Twirp errors, which are always JSON. See
//! <https://twitchtv.github.io/twirp/docs/spec_v7.html>.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carillon_protocol::read_json;
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use strum::{EnumString, IntoStaticStr};

use crate::refusal::Refusal;

/// The byte order mark that programs on Windows write before a text.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// A query for the user of a token.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthRequest {
    /// A token, with or without `Bearer`; where it is empty, the session cookie counts.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_default")]
    pub authorization: String,
}

/// The user of a token.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthResponse {
    /// The user, never empty.
    #[prost(string, tag = "1")]
    #[serde(rename = "userID", deserialize_with = "or_default")]
    pub user_id: String,
}

/// A request to publish a raw payload to a user.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishRequest {
    /// 1 to 128 bytes.
    #[prost(string, tag = "1")]
    #[serde(rename = "userID", deserialize_with = "or_default")]
    pub user_id: String,
    /// The payload, at most 64 KiB.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}

/// The response to a publish.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct PublishResponse {}

/// A query for the state of a user.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct StateRequest {
    /// 1 to 128 bytes.
    #[prost(string, tag = "1")]
    #[serde(rename = "userID", deserialize_with = "or_default")]
    pub user_id: String,
}

/// A user's state.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct StateResponse {
    /// The fields of the state.
    #[prost(btree_map = "string, string", tag = "1")]
    #[serde(deserialize_with = "or_default")]
    pub state: BTreeMap<String, String>,
}

/// In protobuf's JSON, `null` counts as absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// The encoding of a request and its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(ascii_case_insensitive, const_into_str)]
pub enum Encoding {
    /// Protobuf.
    #[strum(serialize = "application/protobuf")]
    Protobuf,
    /// JSON.
    #[strum(serialize = "application/json")]
    Json,
}

impl Encoding {
    /// Returns the encoding that a request names; `None` for any other.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        value.split(';').next().unwrap_or_default().trim().parse().ok()
    }

    /// Decodes a message, and ignores unknown fields.
    ///
    /// # Errors
    /// When the bytes are not such a message.
    pub fn read<M: Message + Default + DeserializeOwned>(self, body: &[u8]) -> Result<M, TwirpError> {
        match self {
            Self::Protobuf => M::decode(body).map_err(|error| {
                TwirpError::malformed(format!("the protobuf request could not be decoded: {error}"))
            }),
            // Without this check, an array of the fields' values would be accepted too.
            Self::Json
                if body.strip_prefix(BOM).unwrap_or(body).trim_ascii_start().first() != Some(&b'{') =>
            {
                let message = "the json request could not be decoded: it is not an object";
                Err(TwirpError::malformed(message.to_owned()))
            }
            Self::Json => read_json(body).map_err(|error| {
                TwirpError::malformed(format!("the json request could not be decoded: {error}"))
            }),
        }
    }

    /// Encodes a message. JSON has all fields, including empty ones.
    pub fn write<M: Message + Serialize>(self, message: &M) -> Vec<u8> {
        match self {
            Self::Protobuf => message.encode_to_vec(),
            Self::Json => json!(message).to_string().into_bytes(),
        }
    }

    pub(super) fn respond<M: Message + Serialize>(self, message: &M) -> Response {
        let kind = HeaderValue::from_static(self.into_str());
        ([(header::CONTENT_TYPE, kind)], self.write(message)).into_response()
    }
}

/// A Twirp error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwirpError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The method and path of a request without a handler.
    route: Option<String>,
}

impl TwirpError {
    fn malformed(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "malformed", message, route: None }
    }

    pub(super) fn bad_route(message: String, route: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "bad_route", message, route: Some(route) }
    }
}

impl From<Refusal> for TwirpError {
    fn from(refusal: Refusal) -> Self {
        let (code, status) = match refusal.status() {
            StatusCode::UNAUTHORIZED => ("unauthenticated", StatusCode::UNAUTHORIZED),
            StatusCode::FORBIDDEN => ("permission_denied", StatusCode::FORBIDDEN),
            StatusCode::TOO_MANY_REQUESTS => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
            StatusCode::SERVICE_UNAVAILABLE => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
            status if status.is_client_error() => ("invalid_argument", StatusCode::BAD_REQUEST),
            _ => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        };
        Self { status, code, message: refusal.to_line(), route: None }
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        let mut body = json!({ "code": self.code, "msg": self.message });
        if let Some(route) = self.route {
            body["meta"] = json!({ "twirp_invalid_route": route });
        }
        (self.status, Json(body)).into_response()
    }
}
