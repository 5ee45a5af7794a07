//! The environment variables by which launchers assign ranks.

use crate::Error;

/// The rank of this process, as assigned by a launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// The launcher.
    pub launcher: Launcher,
    /// Rank, from 0.
    pub rank: usize,
    /// World size.
    pub size: usize,
    /// Local rank: rank among the processes on this machine, from 0.
    pub local_rank: usize,
    /// Number of local ranks; the world size if the launcher does not set it.
    pub local_size: usize,
}

/// A program that starts ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// Slurm's `srun`.
    Slurm,
    /// `mpirun` of MPICH and its derivatives.
    Mpich,
    /// PyTorch's `torchrun`, or any program that sets the same variables.
    Torchrun,
}

/// A launcher, its name, and its variables: rank, world size, local rank, local world size.
type Known = (Launcher, &'static str, [&'static str; 4]);

const KNOWN: [Known; 4] = [
    (
        Launcher::OpenMpi,
        "mpirun",
        [
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "OMPI_COMM_WORLD_LOCAL_SIZE",
        ],
    ),
    (Launcher::Slurm, "srun", ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"]),
    (Launcher::Mpich, "mpirun", ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"]),
    (Launcher::Torchrun, "torchrun", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"]),
];

impl Launch {
    /// Reads the variables of all launchers; `get` looks up a variable. Returns `None` if no launcher started
    /// this process.
    ///
    /// If several launchers set variables, `torchrun` takes precedence, because another launcher may have
    /// started it. Otherwise the first launcher with more than one rank counts, or else the first launcher.
    ///
    /// # Errors
    /// [`Error::HalfSet`] if only some of a launcher's variables are set; [`Error::Value`] if one is invalid.
    pub fn from(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Launch>, Error> {
        let by_torchrun = get("TORCHELASTIC_RUN_ID").is_some();
        let mut first = None;
        for known in KNOWN.iter().filter(|known| !by_torchrun || known.0 == Launcher::Torchrun) {
            match Launch::by(known, get)? {
                Some(launch) if launch.size > 1 => return Ok(Some(launch)),
                launch => first = first.or(launch),
            }
        }
        Ok(first)
    }

    fn by(known: &Known, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Launch>, Error> {
        let (launcher, name, [rank_name, size_name, local_rank_name, local_size_name]) = *known;
        // In a batch script, Slurm's variables describe the whole job, but srun did not start this process.
        if launcher == Launcher::Slurm && get("SLURM_STEP_ID").is_none() {
            return Ok(None);
        }
        let mut needed = vec![rank_name, size_name];
        if launcher == Launcher::Torchrun {
            needed.extend(["MASTER_ADDR", "MASTER_PORT"]);
        }
        // The address may be set for another program, so it does not identify a launcher.
        let own = [rank_name, size_name, local_rank_name, local_size_name];
        let Some(set) = own.into_iter().find(|name| get(name).is_some()) else { return Ok(None) };
        let missing: Vec<&str> = needed.into_iter().filter(|name| get(name).is_none()).collect();
        if !missing.is_empty() {
            return Err(Error::HalfSet { launcher: name, set, missing: with_verb(&missing) });
        }
        let value = |name| number(name, get(name).unwrap_or_default());
        let (rank, size) = (value(rank_name)?, value(size_name)?);
        if size == 0 || size > MAX_SIZE {
            return Err(Error::Value { name: size_name, value: size.to_string() });
        }
        let local_size = get(local_size_name).map_or(Ok(size), |value| largest(local_size_name, value))?;
        let local_size = local_size.clamp(1, size);
        let local_rank = get(local_rank_name).map(|value| number(local_rank_name, value));
        let local_rank = local_rank.transpose()?.unwrap_or(rank % local_size);
        let beyond = [(rank_name, rank, size), (local_rank_name, local_rank, local_size)];
        match beyond.into_iter().find(|(_, rank, size)| rank >= size) {
            Some((name, rank, _)) => Err(Error::Value { name, value: rank.to_string() }),
            None => Ok(Some(Launch { launcher, rank, size, local_rank, local_size })),
        }
    }

    /// [`Error::NoTransport`]: this rank cannot connect to the others for `reason`.
    pub(crate) fn no_transport(&self, reason: &str) -> Error {
        Error::NoTransport { rank: self.rank, size: self.size, reason: reason.to_owned() }
    }
}

/// Largest world size, against values that are no number of processes.
const MAX_SIZE: usize = 1 << 16;

fn number(name: &'static str, value: String) -> Result<usize, Error> {
    value.trim().parse().map_err(|_| Error::Value { name, value })
}

/// The largest number in a list such as Slurm's `4(x2),1`: two machines with four ranks and one with one.
fn largest(name: &'static str, value: String) -> Result<usize, Error> {
    let first = |part: &str| part.split('(').next().and_then(|number| number.trim().parse().ok());
    let all: Option<Vec<usize>> = value.split(',').map(first).collect();
    all.and_then(|all| all.into_iter().max()).ok_or(Error::Value { name, value })
}

/// The names and "is" or "are".
fn with_verb(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => format!("{name} is"),
        [first @ .., last] => format!("{} and {last} are", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Launch>, String> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Launch::from(&get).map_err(|e| e.to_string())
    }

    #[test]
    fn every_launcher_is_detected() {
        let launch = |launcher, rank, size, local_rank, local_size| {
            Ok(Some(Launch { launcher, rank, size, local_rank, local_size }))
        };
        let open_mpi = [
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ];
        assert_eq!(
            of(&open_mpi),
            launch(Launcher::OpenMpi, 3, 4, 1, 2),
            "consecutive local ranks by default"
        );
        let slurm = [("SLURM_PROCID", "5"), ("SLURM_NTASKS", "9"), ("SLURM_STEP_ID", "0")];
        assert_eq!(of(&slurm), launch(Launcher::Slurm, 5, 9, 5, 9));
        let whole =
            [&slurm[..], &[("SLURM_LOCALID", "1"), ("SLURM_STEP_TASKS_PER_NODE", "4(x2),1")]].concat();
        assert_eq!(of(&whole), launch(Launcher::Slurm, 5, 9, 1, 4));
        assert_eq!(of(&slurm[..2]), Ok(None), "a batch script is not a step");
        assert_eq!(of(&[("PMI_RANK", "1"), ("PMI_SIZE", "2")]), launch(Launcher::Mpich, 1, 2, 1, 2));
        let torchrun = [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")];
        assert_eq!(of(&torchrun), launch(Launcher::Torchrun, 1, 2, 1, 2));
        assert_eq!(of(&[]), Ok(None));
        // srun started one torchrun on each machine, and torchrun started two ranks.
        let slurm = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "3"), ("SLURM_STEP_ID", "0")];
        let both = [&slurm[..], &torchrun, &[("TORCHELASTIC_RUN_ID", "none")]].concat();
        assert_eq!(of(&both), launch(Launcher::Torchrun, 1, 2, 1, 2));
        // A Slurm step of one task does not exclude ranks of another launcher.
        let one = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1"), ("SLURM_STEP_ID", "0")];
        assert_eq!(of(&[&one[..], &torchrun].concat()), launch(Launcher::Torchrun, 1, 2, 1, 2));
    }

    #[test]
    fn missing_and_invalid_variables_are_named() {
        let text = of(&[("OMPI_COMM_WORLD_RANK", "3")]).unwrap_err();
        assert!(text.contains("OMPI_COMM_WORLD_RANK is set, but OMPI_COMM_WORLD_SIZE is missing"), "{text}");
        let text = of(&[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a")]).unwrap_err();
        assert!(text.contains("but MASTER_PORT is missing"), "{text}");
        let text = of(&[("PMI_RANK", "2"), ("PMI_SIZE", "2")]).unwrap_err();
        assert!(text.contains("PMI_RANK"), "{text}");
        let text = of(&[("PMI_RANK", "x"), ("PMI_SIZE", "2")]).unwrap_err();
        assert!(text.contains("\"x\""), "{text}");
        let text = of(&[("PMI_RANK", "0"), ("PMI_SIZE", "0")]).unwrap_err();
        assert!(text.contains("PMI_SIZE"), "{text}");
        let text = of(&[("PMI_RANK", "0"), ("PMI_SIZE", "2147483648")]).unwrap_err();
        assert!(text.contains("PMI_SIZE"), "{text}");
        let text = of(&[("LOCAL_RANK", "1"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")]).unwrap_err();
        assert!(text.contains("LOCAL_RANK is set, but RANK and WORLD_SIZE are missing"), "{text}");
        assert_eq!(of(&[("MASTER_ADDR", "a"), ("MASTER_PORT", "1")]), Ok(None));
    }
}
