use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A child process that is killed with its owner: when it is dropped, and also when the whole test process dies before it
/// drops anything, or keeps it in a static, which is never dropped.
#[derive(Debug)]
pub(crate) struct Leash {
    child: Child,
    /// Whether the processes that the child has started are killed with it.
    family: bool,
    /// A shell that waits until its standard input is closed, which the kernel does when this process dies, and then kills
    /// the child.
    watcher: Option<Child>,
}

impl Leash {
    /// Starts a child.
    pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Self> {
        Self::watch(command, false)
    }

    /// Starts a child that is killed together with all that it has started.
    pub(crate) fn spawn_family(command: &mut Command) -> std::io::Result<Self> {
        Self::watch(command.process_group(0), true)
    }

    fn watch(command: &mut Command, family: bool) -> std::io::Result<Self> {
        let mut leash = Self { child: command.spawn()?, family, watcher: None };
        // A process group is named by the number of its first process, with a minus.
        let doomed = format!("{}{}", if family { "-" } else { "" }, leash.child.id());
        let watcher = Command::new("sh")
            .args(["-c", "read -r _; kill -9 \"$0\"", &doomed])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        leash.watcher = Some(watcher);
        Ok(leash)
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns how the child ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten()?;
        // Its id may now belong to another process, which the watcher must not kill.
        self.stop_watching();
        Some(status)
    }

    pub(crate) fn kill(&mut self) {
        self.stop_watching();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn stop_watching(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            if self.family {
                // The watcher does its work: the family may outlive the child.
                drop(watcher.stdin.take());
            } else {
                let _ = watcher.kill();
            }
            let _ = watcher.wait();
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.kill();
    }
}
