//! Requests to the server.

use carillon_protocol::{Fields, Problem};
use gloo_net::http::{Request, RequestBuilder};

use crate::access::Access;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The status; 0 without a response.
    pub status: u16,
    /// The reason, as a sentence for people.
    pub detail: String,
}

impl Fault {
    /// Whether a retry may succeed.
    pub fn is_temporary(&self) -> bool {
        matches!(self.status, 0 | 429 | 500..)
    }
}

/// Gets the object at a path.
pub async fn get(path: &str, access: &Access) -> Result<Fields, Fault> {
    answer(with(Request::get(path), access).build()).await
}

/// Sends JSON to a path, and reads the object that answers.
pub async fn post(path: &str, body: String, access: &Access) -> Result<Fields, Fault> {
    let request = with(Request::post(path), access).header("content-type", "application/json");
    answer(request.body(body)).await
}

/// Returns the status of a path; 0 without a response.
pub async fn status(path: &str, access: &Access) -> u16 {
    let Ok(response) = with(Request::get(path), access).send().await else { return 0 };
    // The body is read, since a browser keeps the connection of a response with an unread body.
    drop(response.text().await);
    response.status()
}

fn with(request: RequestBuilder, access: &Access) -> RequestBuilder {
    access.headers().iter().fold(request, |request, (name, value)| request.header(name, value))
}

async fn answer(request: Result<Request, gloo_net::Error>) -> Result<Fields, Fault> {
    let fault = |status, detail: &str| Fault { status, detail: detail.to_owned() };
    let Ok(request) = request else { return Err(fault(0, "The browser does not ask for this")) };
    let Ok(response) = request.send().await else { return Err(fault(0, "The server cannot be reached")) };
    let fields = Fields::read(&response.text().await.unwrap_or_default());
    if response.ok() {
        return fields.ok_or_else(|| fault(0, "The answer cannot be read"));
    }
    let status = response.status();
    match fields.and_then(|fields| Problem::read_detail(&fields)) {
        Some(detail) => Err(fault(status, &detail)),
        None => Err(fault(status, &format!("The server answered with {status}"))),
    }
}
