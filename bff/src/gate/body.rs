//! Bodies of requests, which stay in memory while their requests run. All of them together have a bound.

use std::ops::Deref;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::gate::Gate;
use crate::limits::budget::Permit;
use crate::metrics::{self, Limit};
use crate::refusal::Refusal;

/// Maximum bytes of bodies in memory.
pub(crate) const BODIES_MAX_BYTES: usize = 16 * 1024 * 1024;
/// The `Retry-After` of a request whose body found no room, in seconds.
const RETRY_SECONDS: u64 = 1;

/// A body that is charged to the budget until it is dropped.
pub(crate) struct ChargedBody {
    bytes: Bytes,
    _permit: Option<Permit>,
}

impl Deref for ChargedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Gate {
    /// Reads the body of a request, at most `max_bytes`. A body with a longer `Content-Length` is not read at all.
    pub(crate) async fn read(
        &self,
        parts: &Parts,
        body: Body,
        max_bytes: usize,
        too_large: impl FnOnce() -> Refusal,
    ) -> Result<ChargedBody, Refusal> {
        if body.size_hint().lower() > max_bytes as u64 {
            return Err(too_large());
        }
        let network = self.limits.network(parts);
        let mut chunks = body.into_data_stream();
        let (mut bytes, mut permit): (BytesMut, Option<Permit>) = (BytesMut::new(), None);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| {
                Refusal::new(StatusCode::BAD_REQUEST, "unreadable body", error.to_string())
            })?;
            let length = bytes.len() + chunk.len();
            if length > max_bytes {
                return Err(too_large());
            }
            if !self.bodies.try_hold(&mut permit, length, network) {
                metrics::limit_reached(Limit::BodyBytes);
                let detail = "the bodies of running requests fill the memory for them; try again shortly";
                return Err(Refusal::unavailable("too many request bytes in flight", detail, RETRY_SECONDS));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(ChargedBody { bytes: bytes.freeze(), _permit: permit })
    }
}
