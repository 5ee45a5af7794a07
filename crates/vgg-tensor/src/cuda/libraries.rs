//! The libraries of CUDA: where they are, whether they fit each other, and what to install if they do not.
//!
//! Nothing is linked. Each library is opened by its absolute path from the first place that has it, so that whoever asks
//! the system for it by name afterwards gets the same one: a folder named in `VGG_CUDA_PATH`, what the system's loader
//! finds, a CUDA toolkit, the `nvidia-*` wheels of a Python environment.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[cfg(not(unix))]
use libloading::Library as Opened;
#[cfg(unix)]
use libloading::os::unix::Library as Opened;

/// A library that GPUs need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CudaLibrary {
    /// The driver.
    Driver,
    /// The compiler of kernels.
    Nvrtc,
    /// Matrix products.
    CublasLt,
    /// Convolutions.
    Cudnn,
    /// Sums over several GPUs; one GPU does without.
    Nccl,
}

/// Whether a library can be used.
#[derive(Debug, Clone)]
pub struct CudaLibraryStatus {
    /// Which.
    pub library: CudaLibrary,
    /// Version and path, or what is wrong and what to do.
    pub found: Result<(String, PathBuf), String>,
    /// Where its version function lies, by which libraries are told apart.
    address: usize,
}

/// Of CUDA, as the driver counts.
const OLDEST_DRIVER: (u32, u32) = (12, 0);

struct Facts {
    /// File names, newest first.
    names: &'static [&'static str],
    version_function: &'static [u8],
    install: &'static str,
}

impl CudaLibrary {
    /// All of them.
    pub const ALL: [CudaLibrary; 5] = [
        CudaLibrary::Driver,
        CudaLibrary::Nvrtc,
        CudaLibrary::CublasLt,
        CudaLibrary::Cudnn,
        CudaLibrary::Nccl,
    ];

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            CudaLibrary::Driver => "NVIDIA driver",
            CudaLibrary::Nvrtc => "NVRTC",
            CudaLibrary::CublasLt => "cuBLASLt",
            CudaLibrary::Cudnn => "cuDNN",
            CudaLibrary::Nccl => "NCCL",
        }
    }

    fn facts(self) -> Facts {
        match self {
            CudaLibrary::Driver => Facts {
                names: &["libcuda.so.1"],
                version_function: b"cuDriverGetVersion\0",
                install: "install the NVIDIA driver, 525 or newer",
            },
            CudaLibrary::Nvrtc => Facts {
                names: &["libnvrtc.so.13", "libnvrtc.so.12"],
                version_function: b"nvrtcVersion\0",
                install: "install a CUDA toolkit of version 12 or 13, or `pip install nvidia-cuda-nvrtc`",
            },
            CudaLibrary::CublasLt => Facts {
                names: &["libcublasLt.so.13", "libcublasLt.so.12"],
                version_function: b"cublasLtGetVersion\0",
                install: "install a CUDA toolkit of version 12 or 13, or `pip install nvidia-cublas`",
            },
            CudaLibrary::Cudnn => Facts {
                names: &["libcudnn.so.9"],
                version_function: b"cudnnGetVersion\0",
                install: "install cuDNN 9, or `pip install nvidia-cudnn-cu13` (or -cu12)",
            },
            CudaLibrary::Nccl => Facts {
                names: &["libnccl.so.2"],
                version_function: b"ncclGetVersion\0",
                install: "install NCCL 2, or `pip install nvidia-nccl-cu13` (or -cu12)",
            },
        }
    }
}

/// The state of every library, found out once.
pub fn cuda_libraries() -> &'static [CudaLibraryStatus] {
    static ALL: OnceLock<Vec<CudaLibraryStatus>> = OnceLock::new();
    ALL.get_or_init(find_all)
}

/// Nothing, if all that one GPU needs is there, and is what cudarc will use; else the first reason why not.
pub(super) fn check() -> Result<(), String> {
    let mut needed = cuda_libraries().iter().filter(|status| status.library != CudaLibrary::Nccl);
    needed.try_for_each(|status| {
        let (version, path) = status.found.as_ref().map_err(Clone::clone)?;
        // cudarc asks the system's loader by names of its own, unversioned ones first.
        let loaded = address_in_cudarc(status.library);
        if loaded == Some(status.address) {
            return Ok(());
        }
        let name = status.library.name();
        Err(format!(
            "the system's loader has another {name} than {version} in {}; have VGG_CUDA_PATH name the folder of that one, \
             or nothing",
            path.display()
        ))
    })
}

/// NCCL, which cudarc would not find by the name that it has in a wheel.
pub(crate) fn open_nccl() -> Result<Opened, String> {
    let mut all = cuda_libraries().iter();
    let status = all.find(|status| status.library == CudaLibrary::Nccl).ok_or("NCCL is not looked for")?;
    let (_, path) = status.found.as_ref().map_err(Clone::clone)?;
    open(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn find_all() -> Vec<CudaLibraryStatus> {
    let folders = folders();
    let mut driver_major = None;
    CudaLibrary::ALL
        .map(|library| {
            let found = find(library, &folders, driver_major);
            if let (CudaLibrary::Driver, Ok((version, ..))) = (library, &found) {
                driver_major = version.split('.').next().and_then(|major| major.parse().ok());
            }
            match found {
                Ok((version, path, address)) => {
                    CudaLibraryStatus { library, found: Ok((version, path)), address }
                }
                Err(problem) => CudaLibraryStatus { library, found: Err(problem), address: 0 },
            }
        })
        .to_vec()
}

/// Where the version function lies in the library that cudarc opens. It must be one that can be opened.
fn address_in_cudarc(library: CudaLibrary) -> Option<usize> {
    // SAFETY: each library was opened by one of the names that cudarc tries.
    let opened = unsafe {
        match library {
            CudaLibrary::Driver => cudarc::driver::sys::culib(),
            CudaLibrary::Nvrtc => cudarc::nvrtc::sys::culib(),
            CudaLibrary::CublasLt => cudarc::cublaslt::sys::culib(),
            CudaLibrary::Cudnn => cudarc::cudnn::sys::culib(),
            CudaLibrary::Nccl => return None,
        }
    };
    // SAFETY: only the address is taken.
    let function = unsafe { opened.get::<unsafe extern "C" fn()>(library.facts().version_function) };
    function.ok().map(|function| *function as usize)
}

fn find(
    library: CudaLibrary,
    folders: &[PathBuf],
    driver_major: Option<u32>,
) -> Result<(String, PathBuf, usize), String> {
    let facts = library.facts();
    let (name, install) = (library.name(), facts.install);
    // What the driver cannot load is not looked for.
    let fits = |file: &&str| match (driver_major, file.rsplit('.').next().and_then(|v| v.parse::<u32>().ok()))
    {
        (Some(driver), Some(major)) if matches!(library, CudaLibrary::Nvrtc | CudaLibrary::CublasLt) => {
            major <= driver
        }
        _ => true,
    };
    let names: Vec<&str> = facts.names.iter().copied().filter(fits).collect();
    // In a folder by version, newest first; by the system's loader as cudarc does, without a version first.
    let unversioned = facts.names[0].split(".so").next().map(|stem| format!("{stem}.so")).unwrap_or_default();
    let places = folders.iter().flat_map(|folder| {
        let bare = folder.as_os_str().is_empty().then(|| PathBuf::from(&unversioned));
        bare.into_iter().chain(names.iter().map(move |file| folder.join(file))).collect::<Vec<_>>()
    });
    let mut refused = None;
    for path in places {
        // A bare name is for the system's loader; a path must be there.
        if path.components().count() > 1 && !path.exists() {
            continue;
        }
        match open(&path) {
            Ok(opened) => {
                let version = version(&opened, library, facts.version_function)?;
                if library == CudaLibrary::Driver && version < OLDEST_DRIVER {
                    return Err(format!("the {name} is for CUDA {}; {install}", text(version)));
                }
                if library == CudaLibrary::Cudnn && version.0 != 9 {
                    return Err(format!("{name} {} is not supported; {install}", text(version)));
                }
                // SAFETY: only the address is taken.
                let function = unsafe { opened.get::<unsafe extern "C" fn()>(facts.version_function) };
                let address = function.map(|function| *function as usize).unwrap_or_default();
                // It stays open for as long as the program runs.
                std::mem::forget(opened);
                return Ok((text(version), path, address));
            }
            Err(e) if path.components().count() > 1 => refused = Some(format!("{}: {e}", path.display())),
            Err(_) => {}
        }
    }
    let of_driver = match driver_major {
        Some(major) if names.len() < facts.names.len() => format!(" for a driver of CUDA {major}"),
        _ => String::new(),
    };
    Err(match refused {
        Some(why) => format!("{name} cannot be opened: {why}"),
        None => format!("{} ({name}{of_driver}) was not found; {install}", names.join(" or ")),
    })
}

fn open(path: &Path) -> Result<Opened, libloading::Error> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // NVRTC asks for its builtins by name, which are beside it.
        let builtins =
            files(folder).into_iter().filter(|file| file.to_string_lossy().contains("libnvrtc-builtins.so"));
        for file in builtins {
            if let Ok(opened) = open_one(&file) {
                std::mem::forget(opened);
            }
        }
    }
    open_one(path)
}

#[cfg(unix)]
fn open_one(path: &Path) -> Result<Opened, libloading::Error> {
    use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};
    // SAFETY: NVIDIA's libraries may be opened at any time.
    unsafe { Opened::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
}

#[cfg(not(unix))]
fn open_one(path: &Path) -> Result<Opened, libloading::Error> {
    // SAFETY: NVIDIA's libraries may be opened at any time.
    unsafe { Opened::new(path) }
}

/// Major and minor version.
fn version(opened: &Opened, library: CudaLibrary, function: &[u8]) -> Result<(u32, u32), String> {
    let missing = |e: libloading::Error| format!("{} has no version: {e}", library.name());
    let (mut major, mut minor, mut wide) = (0, 0, 0usize);
    // SAFETY: the functions have these signatures in all versions that have these names.
    unsafe {
        match library {
            CudaLibrary::Driver | CudaLibrary::Nccl => {
                let get = opened.get::<unsafe extern "C" fn(*mut i32) -> i32>(function).map_err(missing)?;
                get(&mut major);
            }
            CudaLibrary::Nvrtc => {
                let get = opened
                    .get::<unsafe extern "C" fn(*mut i32, *mut i32) -> i32>(function)
                    .map_err(missing)?;
                get(&mut major, &mut minor);
            }
            CudaLibrary::CublasLt | CudaLibrary::Cudnn => {
                wide = opened.get::<unsafe extern "C" fn() -> usize>(function).map_err(missing)?();
            }
        }
    }
    let (major, minor, wide) = (major as u32, minor as u32, wide as u32);
    Ok(match library {
        CudaLibrary::Driver => (major / 1000, major % 1000 / 10),
        CudaLibrary::Nvrtc => (major, minor),
        CudaLibrary::CublasLt | CudaLibrary::Cudnn => (wide / 10_000, wide % 10_000 / 100),
        CudaLibrary::Nccl => (major / 10_000, major % 10_000 / 100),
    })
}

fn text(version: (u32, u32)) -> String {
    format!("{}.{}", version.0, version.1)
}

/// Where to look, in this order.
fn folders() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    let mut folders: Vec<PathBuf> =
        variable("VGG_CUDA_PATH").iter().flat_map(std::env::split_paths).collect();
    // The system's loader, by the bare name.
    folders.push(PathBuf::new());
    let toolkits =
        ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"].into_iter().filter_map(variable).map(PathBuf::from);
    let mut toolkits: Vec<PathBuf> = toolkits.collect();
    toolkits.extend(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from));
    toolkits.extend(
        files(Path::new("/usr/local")).into_iter().filter(|path| path.to_string_lossy().contains("cuda-1")),
    );
    folders.extend(toolkits.iter().flat_map(|toolkit| [toolkit.join("lib64"), toolkit.join("lib")]));
    folders.extend(["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib"].map(PathBuf::from));
    folders.extend(wheels());
    folders
}

/// `site-packages/nvidia/*/lib` of the Python environments that there may be.
fn wheels() -> Vec<PathBuf> {
    let roots = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local"));
    let roots = roots.chain(home).chain(["/usr/local", "/usr", "/opt/venv"].map(PathBuf::from));
    let pythons = roots.flat_map(|root| files(&root.join("lib"))).filter(|path| is_named(path, "python3"));
    let packages =
        pythons.flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.join(name)));
    packages.flat_map(|package| files(&package.join("nvidia"))).map(|part| part.join("lib")).collect()
}

fn is_named(path: &Path, start: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

/// What is in a folder, in order; nothing if it cannot be read.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}
