//! Sign-in without credentials, for demonstrations. It is off unless an option turns it on.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use carillon_protocol::http::{DemoState, SignInRequest, SignedIn};
use carillon_protocol::{Audience, FieldError, format_timestamp};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::gate::local::is_local;
use crate::refusal::Refusal;

/// How long a token of the demo is valid, in seconds.
const TOKEN_S: u64 = 3_600;
/// Maximum bytes of a request body.
const BODY_MAX_BYTES: usize = 1_024;

/// Issues tokens for any name to clients on this machine, or to all clients.
#[derive(Clone, Debug)]
pub struct DemoKey {
    secret: SecretString,
    exposed: bool,
}

impl DemoKey {
    /// Creates a key that only this process has.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn random() -> anyhow::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
        Ok(Self::of(STANDARD.encode(bytes).into(), false))
    }

    /// The secret, for [`carillon_auth::identity::IdentityOptions::jwt_secret`].
    pub fn secret(&self) -> SecretString {
        self.secret.clone()
    }

    /// Creates a key from a secret; `exposed` allows clients on other machines.
    pub fn of(secret: SecretString, exposed: bool) -> Self {
        Self { secret, exposed }
    }

    /// Logs who may sign in.
    pub fn warn(&self) {
        let who =
            if self.exposed { "any client that reaches this replica" } else { "any client on this machine" };
        tracing::warn!("DEMO_SIGN_IN is set: {who} may sign in under any name, with the first JWT_SECRET");
    }

    /// Whether a request may sign in. A page whose own name resolves to this machine, and a client of a proxy, do not count
    /// as on this machine.
    fn is_open_to(&self, parts: &Parts) -> bool {
        self.exposed || is_local(parts)
    }

    /// Returns a JWT (RFC 7519) with HS256. It allows to read the presence of all users, as a demo's page shows it.
    fn token(&self, user: &str, now_s: u64) -> String {
        let claims =
            json!({ "user_id": user, "iat": now_s, "exp": now_s + TOKEN_S, "topics": ["presence:*"] });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose_secret().as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
    }
}

/// `GET /api/demo` returns whether sign-in is on, and `POST /api/demo/token` signs a user in where it is. It answers 200
/// where sign-in is off: every page sends this request, and browsers log every 404 as an error.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(key: Option<DemoKey>) -> Router<S> {
    let Some(key) = key else {
        return Router::new().route("/api/demo", get(async || off()));
    };
    Router::new()
        .route("/api/demo", get(is_on))
        .route("/api/demo/token", post(sign_in))
        .with_state(Arc::new(key))
}

fn off() -> Response {
    Json(DemoState { sign_in: false }).into_response()
}

async fn is_on(State(key): State<Arc<DemoKey>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if key.is_open_to(&parts) { StatusCode::NO_CONTENT.into_response() } else { off() }
}

async fn sign_in(State(key): State<Arc<DemoKey>>, request: Request) -> Result<Json<SignedIn>, Refusal> {
    let fault = |detail: String| Refusal::fields("invalid sign-in", vec![FieldError::new("user", detail)]);
    let (parts, body) = request.into_parts();
    if !key.is_open_to(&parts) {
        let detail = "this demo signs in at http://localhost, 127.0.0.1 or [::1], without a proxy: DEMO_SIGN_IN_EXPOSED=1 opens it to other machines";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "sign-in allowed from this machine only", detail));
    }
    let body = axum::body::to_bytes(body, BODY_MAX_BYTES).await;
    let body = body.map_err(|_| fault(format!("the request has at most {BODY_MAX_BYTES} bytes")))?;
    let SignInRequest { user } = serde_json::from_slice(&body).map_err(|error| fault(error.to_string()))?;
    let user = user.trim();
    Audience::named("user", user).map_err(|error| fault(error.to_string()))?;
    let now_ms = crate::clock::now_ms();
    let token = key.token(user, now_ms / 1_000);
    let expires_at = format_timestamp(now_ms + TOKEN_S * 1_000);
    Ok(Json(SignedIn { token, user: user.to_owned(), expires_at }))
}
