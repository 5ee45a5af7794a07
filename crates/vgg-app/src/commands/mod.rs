//! The commands, a module each.

mod analyse;
mod bench;
mod convert;
mod data;
mod doctor;
mod evaluate;
mod experiment;
mod features;
mod gpu_selftest;
mod init;
mod options;
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

/// The very deep ConvNets of Simonyan & Zisserman: define, train, evaluate.
#[derive(Parser)]
#[command(name = "vgg", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write random weights.
    Init(init::Init),
    /// Train one network from an experiment file.
    Train(train::Train),
    /// Errors of a network on a data set, under one protocol.
    Evaluate(evaluate::Evaluate),
    /// Mean of the posteriors of several networks, and its errors.
    Fuse(posteriors::Fuse),
    /// Put the shards of an evaluation together.
    Merge(posteriors::Merge),
    /// Whether two networks really differ: a paired test.
    Compare(posteriors::Compare),
    /// Per-class errors, confusions and the surest mistakes of a posterior file.
    Analyse(analyse::Analyse),
    /// Classify images.
    Predict(predict::Predict),
    /// Descriptors of images from a layer, for classifiers of other data sets.
    Features(features::Features),
    /// Make a table of the paper, with our column beside it.
    Experiment(experiment::Experiment),
    /// Weights from one library to another.
    Convert(convert::Convert),
    /// Layers, shapes, parameters and arithmetic of a network.
    Summary(summary::Summary),
    /// Data sets.
    #[command(subcommand)]
    Data(data::Data),
    /// How fast a network runs here.
    Bench(bench::Bench),
    /// Every operation and whole training steps on a GPU against the CPU.
    GpuSelftest(gpu_selftest::GpuSelftest),
    /// What a training on many GPUs would take.
    Plan(plan::Plan),
    /// What this machine can do.
    Doctor(doctor::Doctor),
}

impl Cli {
    /// Does what was asked for. An interrupted command has a code of its own.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Init(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Train(c) => c.run(),
            Command::Evaluate(c) => c.run(),
            Command::Fuse(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Merge(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Compare(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Analyse(c) => c.run().map(|()| ExitCode::SUCCESS),
            Command::Predict(c) => c.run().map(|()| ExitCode::SUCCESS),
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
