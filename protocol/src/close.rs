/// Why a WebSocket was closed. After 4000 to 4499 a client reconnects with a back-off and its cursor; after 4500 to 4999 it
/// stops, since another attempt would end in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// A message is too long (RFC 6455).
    pub const TOO_LARGE: Self = Self(1009);
    /// An error of the server (RFC 6455); another replica may work.
    pub const INTERNAL: Self = Self(1011);
    /// The server has no room for this reader now (IANA's registry of RFC 6455).
    pub const TRY_LATER: Self = Self(1013);
    /// The replica shuts down; another one takes over.
    pub const DRAIN: Self = Self(4000);
    /// The reader read too slowly.
    pub const SLOW: Self = Self(4001);
    /// The reader has sent nothing, not even pongs.
    pub const SILENT: Self = Self(4002);
    /// The token has expired.
    pub const TOKEN_EXPIRED: Self = Self(4003);
    /// A message is unreadable.
    pub const BAD_MESSAGE: Self = Self(4500);
    /// The reader is not allowed, or its credential was revoked.
    pub const REFUSED: Self = Self(4501);
    /// The reader has exceeded a limit.
    pub const LIMIT: Self = Self(4502);

    /// Whether the client reconnects. It stops after codes of RFC 6455 that blame the client, and after 4500 to 4999.
    #[must_use]
    pub fn resumes(self) -> bool {
        !matches!(self.0, 1002 | 1003 | 1007..=1010 | 4500..=4999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_decides_whether_to_reconnect() {
        for code in [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4499, 3000] {
            assert!(CloseCode(code).resumes(), "{code}");
        }
        for code in [1002, 1003, 1007, 1008, 1009, 1010, 4500, 4999] {
            assert!(!CloseCode(code).resumes(), "{code}");
        }
    }
}
