/// Why a WebSocket was closed. 4000 to 4499 mean "come back with a back-off and your cursor", 4500
/// to 4999 mean "stop: coming back would end the same way".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// A message that is longer than it may be (RFC 6455).
    pub const TOO_LARGE: Self = Self(1009);
    /// Something is wrong on the server's side (RFC 6455); another replica may do better.
    pub const INTERNAL: Self = Self(1011);
    /// There is no room for this reader now (IANA's registry of RFC 6455).
    pub const TRY_LATER: Self = Self(1013);
    /// The replica is going away; another takes over.
    pub const DRAIN: Self = Self(4000);
    /// The reader did not take what was written to it.
    pub const SLOW: Self = Self(4001);
    /// The reader has sent nothing, pongs included.
    pub const SILENT: Self = Self(4002);
    /// The token has run out.
    pub const TOKEN_EXPIRED: Self = Self(4003);
    /// A message that cannot be read.
    pub const BAD_MESSAGE: Self = Self(4500);
    /// Not allowed.
    pub const REFUSED: Self = Self(4501);
    /// A limit was passed.
    pub const LIMIT: Self = Self(4502);

    /// Whether the client connects again. Codes of RFC 6455 that say "your fault" stop; all others,
    /// and 4000 to 4499, resume.
    #[must_use]
    pub fn resumes(self) -> bool {
        !matches!(self.0, 1002 | 1003 | 1007..=1010 | 4500..=4999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_whether_to_come_back() {
        for code in [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4499, 3000] {
            assert!(CloseCode(code).resumes(), "{code}");
        }
        for code in [1002, 1003, 1007, 1008, 1009, 1010, 4500, 4999] {
            assert!(!CloseCode(code).resumes(), "{code}");
        }
    }
}
