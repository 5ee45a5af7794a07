//! Starts the binary on several ranks, with and without MPI.

#![allow(dead_code, reason = "not every test uses every helper")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;

/// How the ranks are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// Open MPI's `mpirun`.
    Mpirun,
    /// By environment variables, as `torchrun` does.
    Variables,
}

/// The launchers that this build supports.
pub fn launchers() -> &'static [Launcher] {
    if cfg!(feature = "mpi") {
        return &[Launcher::Variables, Launcher::Mpirun];
    }
    static SAID: Once = Once::new();
    SAID.call_once(|| vgg_testkit::skip("ranks of MPI", &"this build has no feature mpi"));
    &[Launcher::Variables]
}

/// Running ranks.
pub struct Ranks {
    /// One process that a launcher started, or all ranks.
    pub children: Vec<Child>,
    launcher: Launcher,
}

/// Starts the binary on `ranks` ranks.
pub fn start(launcher: Launcher, dir: &Path, ranks: usize, arguments: &[&str]) -> Ranks {
    let binary = Path::new(env!("CARGO_BIN_EXE_vgg"));
    if launcher == Launcher::Variables {
        return start_by_variables(binary, &[], dir, ranks, arguments);
    }
    let mut command = Command::new("mpirun");
    // Containers often have a single user, root, and fewer cores than ranks.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(["--oversubscribe", "-n", &ranks.to_string()]).arg(binary);
    Ranks { children: vec![spawn(command, dir, arguments)], launcher }
}

/// Starts a program on several ranks as `torchrun` does, with additional variables.
pub fn start_by_variables(
    program: &Path,
    variables: &[(&str, &str)],
    dir: &Path,
    ranks: usize,
    arguments: &[&str],
) -> Ranks {
    let (port, of) = (free_port().to_string(), ranks.to_string());
    let start = |rank: usize| {
        let rank = rank.to_string();
        let mut command = Command::new(program);
        command.envs([("RANK", &rank), ("LOCAL_RANK", &rank)]);
        command.envs([("WORLD_SIZE", &of), ("LOCAL_WORLD_SIZE", &of)]);
        command.envs([("MASTER_ADDR", "localhost"), ("MASTER_PORT", &port)]);
        command.envs(variables.iter().copied());
        spawn(command, dir, arguments)
    };
    Ranks { children: (0..ranks).map(start).collect(), launcher: Launcher::Variables }
}

fn spawn(mut command: Command, dir: &Path, arguments: &[&str]) -> Child {
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

impl Ranks {
    /// Waits for all ranks. The status is the first failure, if any; the output is that of all ranks.
    pub fn end(self) -> Output {
        let outputs: Vec<Output> =
            self.children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let status = outputs.iter().find(|output| !output.status.success()).unwrap_or(&outputs[0]).status;
        let all =
            |of: fn(&Output) -> &Vec<u8>| outputs.iter().flat_map(|output| of(output).clone()).collect();
        Output { status, stdout: all(|output| &output.stdout), stderr: all(|output| &output.stderr) }
    }

    /// Sends a signal to the last rank.
    pub fn signal_last(&self, signal: &str) {
        let last = match self.launcher {
            Launcher::Variables => self.children.last().unwrap().id().to_string(),
            Launcher::Mpirun => {
                let mpirun = self.children[0].id().to_string();
                let of_program = Command::new("pgrep").args(["-P", &mpirun]).output().unwrap();
                String::from_utf8(of_program.stdout).unwrap().split_whitespace().last().unwrap().to_owned()
            }
        };
        assert!(Command::new("kill").args([signal, &last]).status().unwrap().success());
    }
}

/// A free port whose successor is free, too.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("localhost:0").unwrap().local_addr().unwrap().port();
        if let Some(next) = port.checked_add(1)
            && TcpListener::bind(("localhost", next)).is_ok()
        {
            return port;
        }
    }
}
