//! The check of a fuzzer, and of the replay of its corpus, with one input: it is parsed, and the result is checked against
//! its rules. Each function panics where a rule is broken, and returns whether the input was accepted.

use carillon_bff::twirp::{AuthRequest, Encoding, PublishRequest, StateRequest};

/// A message that was read is the same when it is written and read again, in either encoding. An input is
/// a line `json auth` (or `protobuf`, `publish`, `state`), and the body.
pub(crate) fn twirp(data: &[u8]) -> bool {
    macro_rules! kept {
        ($encoding:expr, $body:expr, $message:ty) => {{
            let Ok(message) = $encoding.read::<$message>($body) else { return false };
            for encoding in [Encoding::Json, Encoding::Protobuf] {
                assert_eq!(encoding.read::<$message>(&encoding.write(&message)).as_ref(), Ok(&message));
            }
            true
        }};
    }
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return false };
    let (line, body) = (&data[..end], &data[end + 1..]);
    match line {
        b"json auth" => kept!(Encoding::Json, body, AuthRequest),
        b"json publish" => kept!(Encoding::Json, body, PublishRequest),
        b"json state" => kept!(Encoding::Json, body, StateRequest),
        b"protobuf auth" => kept!(Encoding::Protobuf, body, AuthRequest),
        b"protobuf publish" => kept!(Encoding::Protobuf, body, PublishRequest),
        b"protobuf state" => kept!(Encoding::Protobuf, body, StateRequest),
        _ => false,
    }
}
