use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The value of `PORT` and `PPROF_PORT`: `3000`, `:3000` or `127.0.0.1:3000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// This port, on the default address.
    Number(u16),
    /// This address and port.
    At(SocketAddr),
}

impl Port {
    /// Returns the address, with `ip` as the default.
    pub fn on(self, ip: IpAddr) -> SocketAddr {
        match self {
            Self::Number(port) => (ip, port).into(),
            Self::At(at) => at,
        }
    }
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix(':').unwrap_or(text).parse().map(Self::Number);
        number
            .or_else(|_| text.parse().map(Self::At))
            .map_err(|_| format!("'{text}' is not a port: write it like 3000, :3000 or 127.0.0.1:3000"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_or_an_address() {
        for (text, port) in [
            ("3000", Ok(Port::Number(3000))),
            (":3000", Ok(Port::Number(3000))),
            ("127.0.0.1:3000", Ok(Port::At("127.0.0.1:3000".parse().unwrap()))),
            ("[::1]:3000", Ok(Port::At("[::1]:3000".parse().unwrap()))),
            ("65536", Err(())),
            (":", Err(())),
            ("", Err(())),
            ("localhost:3000", Err(())),
        ] {
            assert_eq!(text.parse::<Port>().map_err(drop), port, "{text}");
        }
    }
}
