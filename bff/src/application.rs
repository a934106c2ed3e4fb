//! Messages of readers to the application behind the service: stored first, then posted to it, signed.

pub(crate) mod upstream;
