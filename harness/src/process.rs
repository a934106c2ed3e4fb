use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::leash::Leash;

/// Maximum lines that are kept of each stream; the oldest are dropped first.
const LINES_MAX: usize = 10_000;
/// Maximum bytes that are kept of a line.
const LINE_MAX_BYTES: usize = 16 * 1024;
/// The deadline of a line.
const LINE_DEADLINE: Duration = Duration::from_secs(30);
/// The wait before the lines, or the process, are checked again.
const POLL: Duration = Duration::from_millis(5);
/// The variables that a child inherits. A test sets all others, so that the shell that runs the tests cannot change their
/// result.
const INHERITED: [&str; 3] = ["PATH", "HOME", "TMPDIR"];

/// The lines of one stream, read by a separate thread.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Printed>>);

#[derive(Debug, Default)]
struct Printed {
    lines: VecDeque<String>,
    ended: bool,
}

/// A built program as a child process, killed when it is dropped or when the test process ends in any way. Its output is
/// kept, and shown when a wait for it fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    leash: Leash,
    stdout: Lines,
    stderr: Lines,
}

impl Process {
    /// Starts `program`, usually `env!("CARGO_BIN_EXE_…")`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(program: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start(program, args, env, Stdio::piped(), Leash::spawn)
    }

    /// [`Process::spawn`] for a program that starts others: they are killed with it.
    ///
    /// # Panics
    /// As [`Process::spawn`].
    pub fn spawn_family(program: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start(program, args, env, Stdio::piped(), Leash::spawn_family)
    }

    /// [`Process::spawn`] with a standard error that the test chooses; what is printed there is not kept.
    ///
    /// # Panics
    /// As [`Process::spawn`].
    pub fn spawn_with_stderr(
        program: &str,
        args: &[&str],
        env: &[(&str, &str)],
        stderr: impl Into<Stdio>,
    ) -> Self {
        Self::start(program, args, env, stderr.into(), Leash::spawn)
    }

    fn start(
        program: &str,
        args: &[&str],
        env: &[(&str, &str)],
        stderr: Stdio,
        leash: impl FnOnce(&mut Command) -> std::io::Result<Leash>,
    ) -> Self {
        let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(inherited)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut leash =
            leash(&mut command).unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        let stdout = Lines::collect(leash.child().stdout.take());
        let stderr = Lines::collect(leash.child().stderr.take());
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        Self { name, leash, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.leash.pid()
    }

    /// The lines of its standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// The lines of its standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.all()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// When the write fails: the process has ended, or its input was closed.
    pub fn write(&mut self, text: &str) {
        self.write_bytes(text.as_bytes());
    }

    /// Writes any bytes to its standard input.
    ///
    /// # Panics
    /// As for [`Process::write`].
    pub fn write_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.leash.child().stdin.as_mut().expect("a standard input that is still open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).expect("a process that reads");
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.leash.child().stdin = None;
    }

    /// Waits for a line with `pattern` in it, on either stream, and returns it; a line that came
    /// earlier counts.
    ///
    /// # Panics
    /// When the process ends without it, or it does not come at all.
    pub async fn wait_line(&mut self, pattern: &str) -> String {
        let end = Instant::now() + LINE_DEADLINE;
        loop {
            // This is checked before the lines, so that the last lines of a process count.
            let ended = self.ended();
            let lines = [self.stdout(), self.stderr()].concat();
            if let Some(line) = lines.into_iter().find(|line| line.contains(pattern)) {
                return line;
            }
            assert!(ended.is_none(), "{} ended ({}) without '{pattern}'", self.output(), code(ended));
            assert!(Instant::now() < end, "not within {LINE_DEADLINE:?}: '{pattern}' of {}", self.output());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends SIGTERM.
    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name: `INT`, `STOP`, `CONT`.
    ///
    /// # Panics
    /// When there is no such signal, or the process is gone.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.is_ok_and(|status| status.success()), "{kill} ({})", self.name);
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.leash.kill();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.leash.ended().is_none()
    }

    /// Waits for its end: its exit code, or 128 and the number of the signal that killed it.
    ///
    /// # Panics
    /// When it still runs at the deadline.
    pub async fn wait_exit(&mut self, deadline: Duration) -> i32 {
        let end = Instant::now() + deadline;
        loop {
            let ended = self.ended();
            if ended.is_some() {
                return code(ended);
            }
            assert!(Instant::now() < end, "not within {deadline:?}: the end of {}", self.output());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Returns how it ended, once it has and all of its output was read.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.leash.ended().filter(|_| self.stdout.ended() && self.stderr.ended())
    }

    /// Returns its name and its output.
    fn output(&self) -> String {
        format!("{}\n{}\n{}\n", self.name, self.stdout().join("\n"), self.stderr().join("\n"))
    }
}

fn code(status: Option<ExitStatus>) -> i32 {
    status.map_or(-1, |status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

impl Lines {
    fn collect(stream: Option<impl Read + Send + 'static>) -> Self {
        let lines = Self::default();
        let filled = lines.clone();
        std::thread::spawn(move || {
            if let Some(stream) = stream {
                BufReader::new(stream).split(b'\n').map_while(Result::ok).for_each(|line| filled.push(line));
            }
            filled.0.lock().ended = true;
        });
        lines
    }

    fn push(&self, mut line: Vec<u8>) {
        line.truncate(LINE_MAX_BYTES);
        let mut printed = self.0.lock();
        if printed.lines.len() == LINES_MAX {
            printed.lines.pop_front();
        }
        printed.lines.push_back(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().lines.iter().cloned().collect()
    }

    fn ended(&self) -> bool {
        self.0.lock().ended
    }
}
