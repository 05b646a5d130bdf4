//! The child processes of a supervisor, each with a log file. It must not know which programs they are.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::layout::Layout;
use super::settings::Settings;

/// How much of a failing component's log an error shows.
const TAIL_LINES: usize = 25;

/// A program to run: its name (also of its log) and arguments.
#[derive(Debug, Clone)]
pub struct Component {
    /// The program's file name.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Component {
    /// A program with arguments.
    pub fn new<A: Into<OsString>>(program: &'static str, arguments: impl IntoIterator<Item = A>) -> Self {
        Self { program, arguments: arguments.into_iter().map(Into::into).collect() }
    }
}

/// All children that run.
#[derive(Debug)]
pub struct Children<'a> {
    layout: &'a Layout,
    settings: &'a Settings,
    running: Vec<(Component, Child)>,
}

impl<'a> Children<'a> {
    /// None yet.
    pub fn new(layout: &'a Layout, settings: &'a Settings) -> Self {
        Self { layout, settings, running: Vec::new() }
    }

    /// Kills a component, as the kernel would, and starts it again with the same arguments; its log goes on.
    pub fn restart(&mut self, program: &str) -> Result<()> {
        let named = self.running.iter_mut().find(|(component, _)| component.program == program);
        let (component, child) = named.with_context(|| format!("no `{program}` runs in this cluster"))?;
        child.kill().with_context(|| format!("killing {program}"))?;
        child.wait().with_context(|| format!("waiting for the killed {program}"))?;
        *child = spawn(self.layout, self.settings, component)?;
        Ok(())
    }

    /// Starts a component in the network namespace of the calling thread, which must live as long as the child should:
    /// the kernel kills the child when that thread ends, even if this process is killed and can no longer clean up.
    pub fn start(&mut self, component: &Component) -> Result<()> {
        let child = spawn(self.layout, self.settings, component)?;
        self.running.push((component.clone(), child));
        Ok(())
    }

    /// Fails with the tail of the log if any child has ended.
    pub fn check(&mut self) -> Result<()> {
        for (Component { program, .. }, child) in &mut self.running {
            let ended = child.try_wait().with_context(|| format!("watching {program}"))?;
            if let Some(status) = ended {
                bail!("{program} ended with {status}\n{}", tail(&self.layout.log(program)));
            }
        }
        Ok(())
    }

    /// The last lines of every log, for an error that no single component explains.
    pub fn tails(&self) -> String {
        let logs = self.running.iter().map(|(component, _)| {
            let program = component.program;
            format!("--- {program}\n{}", tail(&self.layout.log(program)))
        });
        logs.collect::<Vec<_>>().join("\n")
    }

    /// Kills them, the last started first. A throw-away cluster has nothing to flush.
    pub fn kill(&mut self) {
        while let Some((_, mut child)) = self.running.pop() {
            // Both fail only for a child that has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Children<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(layout: &Layout, settings: &Settings, component: &Component) -> Result<Child> {
    let program = settings.require(component.program)?;
    let path = layout.log(component.program);
    let log = File::options().create(true).append(true).open(&path).with_context(|| format!("opening {}", path.display()))?;
    let errors = log.try_clone().context("sharing a log file")?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .args(&component.arguments)
        // A proxy or a kubeconfig of the caller must not leak into the cluster.
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", layout.dir())
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // Out of the terminal's group: Ctrl-C is for the supervisor, which stops them in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {} through `setpriv`", component.program))
}

/// The last lines of a log file; says so if there is none.
pub fn tail(path: &Path) -> String {
    let Ok(file) = fs::File::open(path) else {
        return format!("  (no log at {})", path.display());
    };
    let mut last = VecDeque::with_capacity(TAIL_LINES);
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        if last.len() == TAIL_LINES {
            last.pop_front();
        }
        last.push_back(format!("  {}", String::from_utf8_lossy(&line)));
    }
    last.into_iter().collect::<Vec<_>>().join("\n")
}

/// The processes of this machine whose command line can be read: process id and arguments.
pub fn all() -> Result<Vec<(i32, Vec<PathBuf>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("listing processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end at any moment.
        if let Ok(line) = fs::read(entry.path().join("cmdline")) {
            let words = line.split(|byte| *byte == 0);
            found.push((pid, words.map(|word| String::from_utf8_lossy(word).into_owned().into()).collect()));
        }
    }
    Ok(found)
}
