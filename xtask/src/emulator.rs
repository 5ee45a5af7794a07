//! `cargo xtask cuda-emulator`: builds an emulated GPU from the kernels' sources. See `tests/cuda_emulator`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::{metadata, root};

/// The libraries that the emulator replaces.
const NAMES: [&str; 5] =
    ["libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libnccl.so.2"];
/// Sources of the emulator other than the kernels.
const SOURCES: [&str; 5] = ["driver.cpp", "nvrtc.cpp", "cublaslt.cpp", "cudnn.cpp", "nccl.cpp"];
const KERNEL: &str = "KERNEL void ";

/// The guard of a file whose kernels exist only in bf16.
const BF16_ALONE: &str = "\n#ifdef VGG_BF16\n";

/// Builds the emulator and prints its folder.
pub(crate) fn run() -> Result<ExitCode> {
    let folder = build()?;
    print_line!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the emulator and returns its folder.
pub(crate) fn build() -> Result<PathBuf> {
    let target = metadata()?["target_directory"].as_str().map(PathBuf::from);
    let folder = target.context("cargo metadata names no target directory")?.join("cuda-emulator");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (kernels, library) = (folder.join("kernels.cpp"), folder.join("libemulator.so"));
    std::fs::write(&kernels, kernels_source()?)
        .with_context(|| format!("cannot write {}", kernels.display()))?;
    let sources = root().join("tests").join("cuda_emulator");
    let mut compiler = Command::new("g++");
    compiler
        .args(["-std=c++20", "-O2", "-g", "-fPIC", "-shared", "-Wall", "-o"])
        .arg(&library)
        .arg("-I")
        .arg(&sources);
    // For an address-sanitized build, the library is sanitized, too.
    if std::env::var_os("VGG_EMULATOR_ASAN").is_some() {
        compiler.arg("-fsanitize=address");
    }
    compiler.arg(&kernels);
    compiler.args(SOURCES.map(|file| sources.join(file)));
    compiler.arg("-Wl,-soname,libemulator.so");
    let status = compiler.status().context("cannot run g++")?;
    ensure!(status.success(), "g++: {status}");
    for name in NAMES {
        alias(&folder, name)?;
    }
    Ok(folder)
}

/// Builds an empty library of this name that loads the emulator. The loader identifies a library by its
/// soname.
fn alias(folder: &Path, name: &str) -> Result<()> {
    let mut linker = Command::new("g++");
    linker.args(["-shared", "-o"]).arg(folder.join(name)).arg(format!("-Wl,-soname,{name},-rpath,$ORIGIN"));
    linker.args(["-Wl,--no-as-needed"]).arg("-L").arg(folder).arg("-lemulator");
    let status = linker.status().context("cannot run g++")?;
    ensure!(status.success(), "g++ of {name}: {status}");
    Ok(())
}

/// The source of every kernel in both precisions, and a table of them.
fn kernels_source() -> Result<String> {
    let src = root().join("crates").join("vgg-tensor").join("src");
    let mut files = Vec::new();
    sources(&src, &mut files)?;
    let common = src.join("cuda").join("common.cuh");
    let mut text = String::from("#define EMULATE_KERNELS\n#include \"kernel.h\"\n");
    let mut table = String::new();
    for (space, define) in [("f32", ""), ("bf16", "#define VGG_BF16\n")] {
        write!(text, "namespace precision_{space} {{\n{define}#include \"{}\"\n", common.display())?;
        for file in &files {
            writeln!(text, "#include \"{}\"", file.display())?;
            let source =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            if define.is_empty() && source.contains(BF16_ALONE) {
                continue;
            }
            for kernel in source.split(KERNEL).skip(1) {
                let name = kernel.split('(').next().unwrap_or_default();
                // With barriers, the emulator runs the threads of a block as fibers, else one after another,
                // which is faster. The kernels have barriers only around accesses to shared memory; the
                // emulator stops at a barrier in a kernel without it.
                let barriers = kernel.contains("__shared__");
                writeln!(
                    table,
                    "    kernels()[\"{space}/{name}\"] = {{bind<precision_{space}::{name}>, {barriers}}};"
                )?;
            }
        }
        text.push_str("#undef THREADS\n}\n");
    }
    write!(
        text,
        "namespace {{\nusing namespace emulator;\nconst bool registered = [] {{\n{table}    return true;\n}}();\n}}\n"
    )?;
    Ok(text)
}

/// Collects all `.cu` files below a folder, sorted.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "cu") {
            files.push(path);
        }
    }
    Ok(())
}
