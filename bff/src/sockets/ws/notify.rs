//! The frames of notify's dialect: what is published to the user, and the state. Notifications are not known there.

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::delivery::feed::Output;
use crate::delivery::hub::Direct;

/// What goes out of what a reader is given: notifications are not known here.
pub(super) fn texts(output: &Output) -> Vec<Utf8Bytes> {
    let direct = output.direct.iter().flat_map(|(direct, _)| direct);
    direct.filter_map(text).collect()
}

fn text(direct: &Direct) -> Option<Utf8Bytes> {
    match direct {
        Direct::State(state) => Some(format!(r#"{{"kind":"state","state":{state}}}"#).into()),
        // A text frame is UTF-8; for anything else a browser would cut the connection.
        Direct::Raw { payload, .. } => Some(
            Utf8Bytes::try_from(payload.clone())
                .unwrap_or_else(|_| String::from_utf8_lossy(payload).into_owned().into()),
        ),
        Direct::Notification { .. } | Direct::Presence { .. } => None,
    }
}
