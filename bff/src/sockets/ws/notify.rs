//! The frames of notify's dialect: raw payloads and the state. Notifications have no frame in it.

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::delivery::feed::Output;
use crate::delivery::hub::Direct;

/// Returns the frames of an output in this dialect.
pub(super) fn texts(output: &Output) -> Vec<Utf8Bytes> {
    let direct = output.direct.iter().flat_map(|(direct, _)| direct);
    direct.filter_map(text).collect()
}

fn text(direct: &Direct) -> Option<Utf8Bytes> {
    match direct {
        Direct::State(state) => Some(format!(r#"{{"kind":"state","state":{state}}}"#).into()),
        // A text frame must be UTF-8: a browser closes the connection for anything else.
        Direct::Raw { payload, .. } => Some(
            Utf8Bytes::try_from(payload.clone())
                .unwrap_or_else(|_| String::from_utf8_lossy(payload).into_owned().into()),
        ),
        Direct::Notification { .. } | Direct::Presence { .. } => None,
    }
}
