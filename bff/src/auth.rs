//! Whether tokens, sessions, signatures and origins are genuine. Knows no Redis, no hub and no route, and takes the time as an
//! argument.

pub mod identity;
pub mod jwks;
pub(crate) mod options;
pub mod origin;
pub mod seal;
pub mod signature;
pub mod token;
