//! `simulate`: runs seeds, each in a process of its own, and prints what breaks.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::num::NonZero;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carillon_simulator::{Outcome, Plan, run, shrink};
use clap::Parser;
use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;

/// Failing seeds after which no more are begun.
const BROKEN_MAX: usize = 5;
/// A run that takes longer than this has come to a standstill.
const RUN_MAX: Duration = Duration::from_secs(120);
/// How often a run is looked at.
const POLL: Duration = Duration::from_millis(2);

/// Runs Carillon on simulated networks and clocks, and checks its promises.
#[derive(Parser)]
#[command(name = "simulate")]
struct Options {
    /// Number of seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs until it is stopped or something breaks
    #[arg(long)]
    forever: bool,
    /// Runs each seed twice, and fails where the two differ
    #[arg(long)]
    twice: bool,
    /// Searches a smaller failing run of this seed
    #[arg(long)]
    shrink: Option<u64>,
    /// Runs this seed alone, with the log of its replicas (RUST_LOG)
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: these steps of its plan alone
    #[arg(long)]
    steps: Option<String>,
    /// With --seed: prints the outcome as JSON, and no log
    #[arg(long, hide = true)]
    json: bool,
}

#[derive(Default)]
struct Totals {
    runs: u64,
    shown: usize,
    faults: BTreeMap<&'static str, usize>,
    broken: BTreeMap<u64, Vec<String>>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match (options.seed, options.shrink) {
        (Some(seed), _) => one(seed, options.steps.as_deref(), options.json),
        (_, Some(seed)) => smaller(seed),
        _ => many(&options),
    }
}

/// One run, in this process.
fn one(seed: u64, steps: Option<&str>, json: bool) -> ExitCode {
    let mut plan = Plan::draw(seed);
    if let Some(steps) = steps {
        let steps: Vec<_> = steps.split(',').filter_map(|step| step.parse().ok()).collect();
        plan.keep(&steps);
    }
    if json {
        let outcome = run(&plan);
        println!("{}", serde_json::to_string(&outcome).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).without_time().init();
    println!("{plan}");
    let outcome = run(&plan);
    report(&outcome.broken);
    println!("{} notifications shown", outcome.shown);
    if outcome.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn smaller(seed: u64) -> ExitCode {
    let small = shrink(Plan::draw(seed), |plan| !in_process(plan).broken.is_empty());
    let broken = in_process(&small).broken;
    println!("{small}");
    report(&broken);
    println!("again: {}", again(&small));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(options: &Options) -> ExitCode {
    let began = Instant::now();
    let (next, totals) = (AtomicU64::new(options.from), Mutex::new(Totals::default()));
    let end = if options.forever { u64::MAX } else { options.from + options.seeds };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || totals.lock().broken.len() >= BROKEN_MAX {
                        break;
                    }
                    let plan = Plan::draw(seed);
                    let mut outcome = in_process(&plan);
                    if options.twice && in_process(&plan).fingerprint != outcome.fingerprint {
                        outcome.broken.push("two runs of this seed differ".to_owned());
                    }
                    totals.lock().add(&plan, outcome);
                }
            });
        }
    });
    let totals = totals.into_inner();
    let seconds = began.elapsed().as_secs_f64();
    println!("{} seeds in {seconds:.0} s, {} notifications shown", totals.runs, totals.shown);
    for (kind, count) in &totals.faults {
        println!("{count:>8}  {kind}");
    }
    for (seed, broken) in &totals.broken {
        println!("seed {seed} breaks (simulate --shrink {seed}):");
        report(broken);
    }
    if totals.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run, in a process of its own.
fn in_process(plan: &Plan) -> Outcome {
    let Ok(program) = std::env::current_exe() else { return Outcome::failed("this program cannot be found") };
    let child = Command::new(program)
        .args(["--json", "--seed", &plan.seed.to_string(), &steps_option(plan)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return Outcome::failed("no process could be started") };
    let end = Instant::now() + RUN_MAX;
    // What a run prints fits into the pipe.
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= end {
            let _ = child.kill();
            return Outcome::failed("it came to a standstill");
        }
        std::thread::sleep(POLL);
    }
    let mut printed = String::new();
    let _ = child.stdout.take().map(|mut stdout| stdout.read_to_string(&mut printed));
    serde_json::from_str(&printed).unwrap_or_else(|_| {
        let mut errors = String::new();
        let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut errors));
        Outcome::failed(&errors)
    })
}

impl Totals {
    fn add(&mut self, plan: &Plan, outcome: Outcome) {
        self.runs += 1;
        self.shown += outcome.shown;
        plan.kinds().for_each(|kind| *self.faults.entry(kind).or_default() += 1);
        if !outcome.broken.is_empty() {
            self.broken.insert(plan.seed, outcome.broken);
        }
        if self.runs.is_multiple_of(100) && std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r{} seeds", self.runs);
        }
    }
}

/// The command that repeats a run.
fn again(plan: &Plan) -> String {
    format!("RUST_LOG=carillon=debug simulate --seed {} {}", plan.seed, steps_option(plan))
}

fn steps_option(plan: &Plan) -> String {
    let steps: Vec<_> = plan.steps.iter().map(|step| step.number.to_string()).collect();
    format!("--steps={}", steps.join(","))
}

fn report(broken: &[String]) {
    broken.iter().take(8).for_each(|fault| println!("    {fault}"));
}
