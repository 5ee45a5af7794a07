//! Search for the CUDA libraries: their paths and versions, whether they are compatible, and what to install
//! otherwise.
//!
//! Nothing is linked. Each library is opened from the first place that has it, so that a later lookup by name
//! returns the same library. The places, in order: the folders in `VGG_CUDA_PATH`, the system's loader, CUDA
//! toolkits, and the `nvidia-*` wheels of Python environments.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[cfg(not(unix))]
use libloading::Library as Opened;
#[cfg(unix)]
use libloading::os::unix::Library as Opened;
use vgg_error::printable;

/// A library that GPU support needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CudaLibrary {
    /// The NVIDIA driver.
    Driver,
    /// NVRTC, the compiler of kernels.
    Nvrtc,
    /// cuBLASLt, for matrix products.
    CublasLt,
    /// cuDNN, for convolutions.
    Cudnn,
    /// NCCL, for all-reduce over several GPUs; one GPU does not need it.
    Nccl,
}

/// Whether a library can be used.
#[derive(Debug, Clone)]
pub struct CudaLibraryStatus {
    /// The library.
    pub library: CudaLibrary,
    /// Version and path, or the problem and how to solve it.
    pub found: Result<(String, PathBuf), String>,
    /// Address of its version function, which identifies the loaded library.
    address: usize,
}

/// The oldest supported driver, by the CUDA version that it supports.
const OLDEST_DRIVER: (u32, u32) = (12, 0);

struct Facts {
    /// File names, newest first.
    names: &'static [&'static str],
    version_function: &'static [u8],
    install: &'static str,
}

impl CudaLibrary {
    /// Every library.
    pub const ALL: [CudaLibrary; 5] = [
        CudaLibrary::Driver,
        CudaLibrary::Nvrtc,
        CudaLibrary::CublasLt,
        CudaLibrary::Cudnn,
        CudaLibrary::Nccl,
    ];

    /// The library's usual name.
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

/// The status of every library, determined by the first call.
pub fn cuda_libraries() -> &'static [CudaLibraryStatus] {
    static ALL: OnceLock<Vec<CudaLibraryStatus>> = OnceLock::new();
    ALL.get_or_init(find_all)
}

/// Checks that every library that one GPU needs was found and is the one that cudarc opens.
///
/// # Errors
/// The first problem.
pub(super) fn check() -> Result<(), String> {
    let mut needed = cuda_libraries().iter().filter(|status| status.library != CudaLibrary::Nccl);
    needed.try_for_each(|status| {
        let (version, path) = status.found.as_ref().map_err(Clone::clone)?;
        // cudarc asks the system's loader for its own list of names, unversioned names first.
        let loaded = address_in_cudarc(status.library);
        if loaded == Some(status.address) {
            return Ok(());
        }
        let name = status.library.name();
        Err(format!(
            "the system's loader opens a {name} other than {version} in {}; set VGG_CUDA_PATH to the folder \
             of the loader's library, or unset it",
            printable(path)
        ))
    })
}

/// Opens NCCL, which cudarc does not find under its file name in a wheel.
pub(crate) fn open_nccl() -> Result<Opened, String> {
    let mut all = cuda_libraries().iter();
    let status = all
        .find(|status| status.library == CudaLibrary::Nccl)
        .ok_or("NCCL is not in the list of libraries")?;
    let (_, path) = status.found.as_ref().map_err(Clone::clone)?;
    open(path).map_err(|e| format!("{}: {e}", printable(path)))
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

/// Address of the version function in the library that cudarc opens. cudarc must be able to open it.
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
    // Versions that the driver cannot load are skipped.
    let fits = |file: &&str| match (driver_major, file.rsplit('.').next().and_then(|v| v.parse::<u32>().ok()))
    {
        (Some(driver), Some(major)) if matches!(library, CudaLibrary::Nvrtc | CudaLibrary::CublasLt) => {
            major <= driver
        }
        _ => true,
    };
    let names: Vec<&str> = facts.names.iter().copied().filter(fits).collect();
    // In a folder: versioned names, newest first. In the system's loader: the unversioned name first, as in
    // cudarc.
    let unversioned = facts.names[0].split(".so").next().map(|stem| format!("{stem}.so")).unwrap_or_default();
    let places = folders.iter().flat_map(|folder| {
        let bare = folder.as_os_str().is_empty().then(|| PathBuf::from(&unversioned));
        bare.into_iter().chain(names.iter().map(move |file| folder.join(file))).collect::<Vec<_>>()
    });
    let mut refused = None;
    for path in places {
        // A bare name is for the system's loader; a path must exist.
        if path.components().count() > 1 && !path.exists() {
            continue;
        }
        match open(&path) {
            Ok(opened) => {
                let version = version(&opened, library, facts.version_function)?;
                if library == CudaLibrary::Driver && version < OLDEST_DRIVER {
                    return Err(format!(
                        "the {name} is too old: it supports CUDA {}; {install}",
                        text(version)
                    ));
                }
                if library == CudaLibrary::Cudnn && version.0 != 9 {
                    return Err(format!("{name} {} is not supported; {install}", text(version)));
                }
                // SAFETY: only the address is taken.
                let function = unsafe { opened.get::<unsafe extern "C" fn()>(facts.version_function) };
                let address = function.map(|function| *function as usize).unwrap_or_default();
                // The library stays open until the process exits.
                std::mem::forget(opened);
                return Ok((text(version), path, address));
            }
            Err(e) if path.components().count() > 1 => refused = Some(format!("{}: {e}", printable(&path))),
            Err(_) => {}
        }
    }
    let of_driver = match driver_major {
        Some(major) if names.len() < facts.names.len() => format!(" for a driver that supports CUDA {major}"),
        _ => String::new(),
    };
    Err(match refused {
        Some(why) => format!("{name} cannot be opened: {why}"),
        None => format!("{} ({name}{of_driver}) was not found; {install}", names.join(" or ")),
    })
}

fn open(path: &Path) -> Result<Opened, libloading::Error> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // NVRTC opens its builtins by name; they are in the same folder.
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

/// The major and minor version.
fn version(opened: &Opened, library: CudaLibrary, function: &[u8]) -> Result<(u32, u32), String> {
    let missing = |e: libloading::Error| format!("cannot read the version of {}: {e}", library.name());
    let (mut major, mut minor, mut wide) = (0, 0, 0usize);
    // SAFETY: the functions have these signatures in all library versions with these file names.
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

/// The folders to search, in order.
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

/// `site-packages/nvidia/*/lib` of all Python environments in the usual places.
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

/// The entries of a folder, sorted; none if it cannot be read.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}
