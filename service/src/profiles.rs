//! `/debug/pprof/profile` and `/debug/pprof/heap`, on a separate port: where this process spends its time and uses memory,
//! for `go tool pprof` and other programs with its format.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use carillon_protocol::{FieldError, Problem};
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::protos::Message;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};
use pprof_alloc::{DEFAULT_PPROF_SAMPLE_RATE, PPROF_SAMPLE_RATE_ENV};
use tokio::sync::Mutex;

use crate::{Port, ProblemResponse};

/// The default length of a CPU profile, in seconds, as in Go.
const SECONDS_DEFAULT: u64 = 30;
/// The maximum length of a CPU profile, in seconds.
const SECONDS_MAX: u64 = 120;
/// Samples per second of CPU time: a prime number, so that it does not coincide with periodic work.
const FREQUENCY_HZ: i32 = 97;

/// The options of profiles.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Profiles")]
pub struct ProfileOptions {
    /// Address for CPU and heap profiles. 6060 and :6060 are that port of the loopback address [default: no profiles]
    #[arg(long, env)]
    pub pprof_port: Option<Port>,
    /// Bytes between two samples of the heap; the allocator reads the variable by itself
    #[arg(long, env = PPROF_SAMPLE_RATE_ENV, hide = true)]
    pub heap_sample_bytes: Option<usize>,
}

impl ProfileOptions {
    /// Returns the address to listen on, if profiles are enabled.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.pprof_port.map(|port| port.on(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    }

    /// Replaces this process by itself with heap sampling, if profiles are enabled: the allocator reads the environment
    /// once, before `main`. Without a sample rate an allocation costs nothing more.
    pub fn sample_heap(&self) {
        if self.pprof_port.is_none() || self.heap_sample_bytes.is_some() {
            return;
        }
        let again = std::env::current_exe().map(|program| {
            Command::new(program)
                .args(std::env::args_os().skip(1))
                .env(PPROF_SAMPLE_RATE_ENV, DEFAULT_PPROF_SAMPLE_RATE.to_string())
                .exec()
        });
        let (Ok(error) | Err(error)) = again;
        tracing::warn!(%error, "cannot sample the heap: start with {PPROF_SAMPLE_RATE_ENV}={DEFAULT_PPROF_SAMPLE_RATE}");
    }
}

/// The routes of profiles.
pub fn profiles(options: &ProfileOptions) -> Router {
    let heap_is_sampled = options.heap_sample_bytes.is_some_and(|bytes| bytes > 0);
    Router::new()
        .route("/debug/pprof/profile", get(cpu))
        .route("/debug/pprof/heap", get(async move || heap(heap_is_sampled).await))
        .fallback(async || {
            let detail = "this port serves /debug/pprof/profile?seconds=30 and /debug/pprof/heap";
            ProblemResponse::new(StatusCode::NOT_FOUND, "not found", detail)
        })
        .with_state(Arc::default())
}

/// `GET /debug/pprof/profile?seconds=`: a CPU profile from now on. Only one runs at a time.
async fn cpu(
    State(busy): State<Arc<Mutex<()>>>,
    request: Request,
) -> Result<impl IntoResponse, ProblemResponse> {
    let (parts, _) = request.into_parts();
    let seconds = match seconds_of(&parts).map(|text| text.parse()) {
        None => SECONDS_DEFAULT,
        Some(Ok(seconds @ 1..=SECONDS_MAX)) => seconds,
        Some(_) => {
            let detail = format!("a number from 1 to {SECONDS_MAX}");
            let fault = FieldError { limit: Some(SECONDS_MAX), ..FieldError::new("seconds", detail) };
            let problem = ProblemResponse::new(StatusCode::BAD_REQUEST, "invalid profile length", "");
            return Err(ProblemResponse(Problem { errors: vec![fault], ..problem.0 }));
        }
    };
    let Ok(_one) = busy.try_lock() else {
        let detail = "another profile is running: the process has only one profiling timer";
        return Err(ProblemResponse::new(StatusCode::CONFLICT, "profile already running", detail));
    };
    // Dropped with the request: a profile without a waiting client ends.
    let guard = watch()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let profile = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<u8>> {
        let profile = guard.report().build()?.pprof()?.encode_to_vec();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&profile)?;
        Ok(gzip.finish()?)
    });
    reply("profile.pb.gz", profile.await.map_err(anyhow::Error::from).flatten())
}

/// Returns the parameter `seconds`; an empty one counts as absent.
fn seconds_of(parts: &Parts) -> Option<String> {
    let mut pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    pairs.find(|(name, value)| name == "seconds" && !value.is_empty()).map(|(_, value)| value.into_owned())
}

fn watch() -> Result<ProfilerGuard<'static>, ProblemResponse> {
    // Stacks inside the unwinder itself are not sampled, which would deadlock.
    let builder = ProfilerGuardBuilder::default().frequency(FREQUENCY_HZ).blocklist(&["libgcc", "vdso"]);
    builder.build().map_err(|error| {
        tracing::warn!(%error, "cannot profile the CPU");
        let detail =
            "profiling needs a temporary file: set TMPDIR to a writable folder, /dev/shm in a container";
        ProblemResponse::new(StatusCode::NOT_IMPLEMENTED, "CPU profiling unavailable", detail)
    })
}

/// `GET /debug/pprof/heap`: the use of memory, from samples since the start.
async fn heap(is_sampled: bool) -> Result<impl IntoResponse, ProblemResponse> {
    if !is_sampled {
        let detail = format!("start with {PPROF_SAMPLE_RATE_ENV}={DEFAULT_PPROF_SAMPLE_RATE}");
        return Err(ProblemResponse::new(StatusCode::NOT_IMPLEMENTED, "heap profiling disabled", detail));
    }
    let profile = tokio::task::spawn_blocking(pprof_alloc::generate_pprof);
    reply("heap.pb.gz", profile.await.map_err(anyhow::Error::from).flatten())
}

fn reply(name: &str, profile: anyhow::Result<Vec<u8>>) -> Result<impl IntoResponse + use<>, ProblemResponse> {
    let profile = profile.map_err(|error| {
        tracing::error!(%error, "cannot write a profile");
        let detail = "the cause is in the log of the service";
        ProblemResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "profile failed", detail)
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, profile))
}
