//! Counts the requests that are being answered, by address: behind a proxy, a connection does not show whose requests it
//! carries.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use carillon_service::counts::{count, release};
use ipnet::IpNet;
use parking_lot::Mutex;

use super::Limits;
use super::address::Client;
use crate::metrics::{self, Limit};
use crate::refusal::Refusal;

/// The `Retry-After` of a client with too many requests, in seconds.
const RETRY_SECONDS: u64 = 1;

#[derive(Debug, Default)]
pub(super) struct Requests {
    networks: Mutex<HashMap<IpNet, usize>>,
}

/// A counted request. Dropping it ends the count.
struct Counted {
    requests: Arc<Requests>,
    network: Option<IpNet>,
}

impl Requests {
    fn begin(self: &Arc<Self>, network: Option<IpNet>, max: usize) -> Option<Counted> {
        if let Some(network) = network {
            let mut networks = self.networks.lock();
            if count(&networks, &network) >= max {
                return None;
            }
            *networks.entry(network).or_default() += 1;
        }
        Some(Counted { requests: Arc::clone(self), network })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(network) = self.network {
            release(&mut self.requests.networks.lock(), network, 1);
        }
    }
}

/// Refuses a request of an address with too many requests, and counts requests without a known address.
pub(crate) async fn limit_requests(
    State(limits): State<Arc<Limits>>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    if matches!(limits.client(&parts), Client::Unknown) {
        metrics::address_unknown();
    }
    let max = limits.options.connections_per_address_max;
    let Some(counted) = limits.requests.begin(limits.network(&parts), max) else {
        metrics::limit_reached(Limit::RequestsPerAddress);
        let detail = format!("at most {max} requests of one address are answered at the same time");
        return Refusal::too_many("too many requests", detail, RETRY_SECONDS).into_response();
    };
    let response = next.run(Request::from_parts(parts, body)).await;
    drop(counted);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_bound_and_this_machine_has_none() {
        let requests = Arc::<Requests>::default();
        let at = |address: &str| Some(IpNet::from(address.parse::<std::net::IpAddr>().unwrap()));
        let begin = |network| requests.begin(network, 2);
        let (one, _two) = (begin(at("192.0.2.1")), begin(at("192.0.2.1")));
        assert!(begin(at("192.0.2.1")).is_none());
        assert!(begin(at("192.0.2.2")).is_some());
        drop(one);
        let held = (begin(at("192.0.2.1")), begin(None), begin(None), begin(None));
        assert!(held.0.is_some() && held.3.is_some());
        drop((held, _two));
        assert!(requests.networks.lock().is_empty());
    }
}
