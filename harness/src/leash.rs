use std::process::{Child, Command, ExitStatus, Stdio};

/// A child process that dies with its owner: when it is dropped, and also when the whole test process
/// dies before it drops anything, or keeps it in a static, which is never dropped.
#[derive(Debug)]
pub(crate) struct Leash {
    child: Child,
    /// A shell that waits for its standard input to close, which the kernel does when we die, and
    /// then kills the child.
    watcher: Option<Child>,
}

impl Leash {
    pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let mut leash = Self { child: command.spawn()?, watcher: None };
        let watcher = Command::new("sh")
            .args(["-c", "read -r _; kill -9 \"$0\"", &leash.child.id().to_string()])
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

    /// How the child ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten()?;
        // Its number may now be given to another process, which the watcher must not kill.
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
            let _ = watcher.kill();
            let _ = watcher.wait();
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.kill();
    }
}
