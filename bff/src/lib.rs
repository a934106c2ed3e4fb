//! One replica of the backend for frontends: it claims entries from the list, receives the entries that all replicas
//! claimed, and delivers them to the browsers connected to it. `replica` wires the rooms, and `router` has every route.

mod application;
mod broker_events;
mod clock;
pub mod command_line;
mod compat;
mod config;
mod contract;
mod delivery;
mod entry_refused;
mod gate;
mod jobs;
mod limits;
pub mod metrics;
mod notifications;
mod people;
mod random;
mod refusal;
mod replica;
mod request;
mod router;
mod sockets;
mod upkeep;
mod user_state;
mod viewer;

pub use application::upstream::{Upstream, UpstreamOptions};
pub use clock::{Clock, now_ms};
pub use compat::twirp;
pub use config::{AllowOptions, Config, FanOutOption};
pub use delivery::{feed, hub, refill};
pub use gate::keys::{ApiKeys, KEYS_MAX, Scope};
pub use gate::publishing::{Open, Publishing};
pub use gate::{demo, signed};
pub use limits::clients::LimitOptions;
pub use people::presence::PresenceOptions;
pub use random::{Random, random};
pub use replica::{Replica, STOP_DEADLINE, Settings};
pub use upkeep::storage::StorageOptions;
pub use upkeep::{dead, rotate};
pub use viewer::viewer;
