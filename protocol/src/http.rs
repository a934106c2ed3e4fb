//! The bodies of requests and responses over HTTP, one file for each topic. What is in a path, a query or a header
//! is in docs/openapi.json, which is made from these types.
//!
//! Where the viewer reads a body, its type has a `read` beside what serde derives: it takes the fields one by one, because
//! the readers that are derived for these types would be a tenth of what a visitor fetches.

mod application;
mod demo;
mod job;
mod message;
mod notification;
mod page;
mod presence;
mod problem;
mod revocation;
mod session;

pub use application::ApplicationMessage;
pub use demo::{DemoState, SignInRequest, SignedIn};
pub use job::{JobAccepted, JobList, JobRequest, JobState, JobStatus, ReportTo};
pub use message::{MessageProgress, MessageTrace, TraceStep};
pub use notification::Published;
pub use page::{Page, PageItem};
pub use presence::{PresenceList, UserPresence};
pub use problem::{FieldError, Problem};
pub use revocation::RevocationRequest;
pub use session::SessionOpened;
