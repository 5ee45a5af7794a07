//! The commands, one module each.

mod analyse;
mod bench;
mod convert;
mod data;
mod data_options;
mod doctor;
mod evaluate;
mod experiment;
mod features;
mod gpu_selftest;
mod init;
mod options;
mod overwrite;
mod pass;
mod plan;
mod posteriors;
mod predict;
mod ranks;
mod saving;
mod summary;
mod train;
mod train_session;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Train, evaluate and apply the very deep ConvNets (VGG) of Simonyan & Zisserman.
#[derive(Parser)]
#[command(name = "vgg", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a weights file with random weights.
    ///
    /// Example: vgg init --config D --classes 10 --out random.safetensors
    Init(init::Init),
    /// Train one network from a settings file or a preset.
    ///
    /// Example: vgg train --preset torchvision --set network.config=D --dataset data/imagenet --out runs/d
    Train(train::Train),
    /// Measure top-1 and top-5 error of a network on a data set.
    ///
    /// Example: vgg evaluate --weights vgg16.safetensors --dataset data/imagenet --test-scales 256,384,512
    Evaluate(evaluate::Evaluate),
    /// Average the posteriors of several networks (fusion) and report the errors.
    ///
    /// Example: vgg fuse d-posteriors.safetensors e-posteriors.safetensors
    Fuse(posteriors::Fuse),
    /// Join the posteriors of all parts of an evaluation, from evaluate --part.
    ///
    /// Example: vgg merge part1.safetensors part2.safetensors --out d-posteriors.safetensors
    Merge(posteriors::Merge),
    /// Compare two networks by McNemar's paired test.
    ///
    /// Example: vgg compare d-posteriors.safetensors e-posteriors.safetensors
    Compare(posteriors::Compare),
    /// Report per-class errors, confusions and the most confident mistakes of a posteriors file.
    ///
    /// Example: vgg analyse d-posteriors.safetensors --dataset data/imagenet --out analysis
    Analyse(analyse::Analyse),
    /// Classify images.
    ///
    /// Example: vgg predict --weights vgg16.safetensors cat.jpg --top 3
    Predict(predict::Predict),
    /// Extract image descriptors from a layer, for classifiers of other data sets.
    ///
    /// Example: vgg features --weights vgg16.safetensors --dataset data/voc --out features.safetensors
    Features(features::Features),
    /// Reproduce a table of the paper and compare with the paper's results.
    ///
    /// Example: vgg experiment table3 --profile mini
    Experiment(experiment::Experiment),
    /// Convert weights between libraries and file formats.
    ///
    /// Example: vgg convert VGG_ILSVRC_16_layers.caffemodel vgg16.safetensors
    Convert(convert::Convert),
    /// Print layers, shapes, parameters and MACs of a network.
    ///
    /// Example: vgg summary --config D
    Summary(summary::Summary),
    /// Prepare, check and inspect data sets.
    #[command(subcommand)]
    Data(data::Data),
    /// Measure the throughput of a network on this machine.
    ///
    /// Example: vgg bench --config D --mode train --batch 32 --layers
    Bench(bench::Bench),
    /// Check every operation and whole training steps on a GPU against the CPU.
    ///
    /// Example: vgg gpu-selftest --gpu 0
    GpuSelftest(gpu_selftest::GpuSelftest),
    /// Estimate time, bandwidth and price of training on many GPUs.
    ///
    /// Example: vgg plan --config D --gpus 8,64
    Plan(plan::Plan),
    /// Report devices, CUDA libraries and speed of this machine.
    ///
    /// Example: vgg doctor --json
    Doctor(doctor::Doctor),
}

impl Cli {
    /// Runs the command. The exit code of an interrupted command depends on the signal.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Init(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Train(c) => c.run(),
            Command::Evaluate(c) => c.run(),
            Command::Fuse(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Merge(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Compare(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Analyse(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Predict(c) => c.run(),
            Command::Features(c) => c.run(),
            Command::Experiment(c) => c.run(),
            Command::Convert(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Summary(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Data(c) => c.run(),
            Command::Bench(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::GpuSelftest(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Plan(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Doctor(c) => c.run().map(|()| ExitCode::SUCCESS),
        }
    }
}
