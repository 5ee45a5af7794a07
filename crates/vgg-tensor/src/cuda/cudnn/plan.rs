//! Engines that can run a graph, and the plan of one.

use cudarc::cudnn::sys;
use cudarc::cudnn::sys::{cudnnBackendHeurMode_t as Mode, cudnnBackendNumericalNote_t as Note};

use super::descriptor::{Descriptor, Kind, Name, Type};
use crate::{Precision, Result};

/// What runs: an engine with its settings, made ready for the device.
pub(super) struct Plan {
    pub(super) descriptor: Descriptor,
    pub(super) workspace_bytes: usize,
}

impl Plan {
    pub(super) fn new(engine: Descriptor, handle: sys::cudnnHandle_t) -> Result<Plan> {
        let descriptor = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Type::CUDNN_TYPE_HANDLE, &[handle])?
            .part(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &engine)?
            .finish()?;
        let mut bytes = [0i64];
        descriptor.get(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, Type::CUDNN_TYPE_INT64, &mut bytes)?;
        Ok(Plan { descriptor, workspace_bytes: bytes[0].max(0) as usize })
    }
}

/// Engines for a graph, the most promising first: those that give the same bits each time, and keep to the precision.
pub(super) fn candidates(graph: &Descriptor, precision: Precision) -> Result<Vec<Descriptor>> {
    let mut all = Vec::new();
    for mode in [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK] {
        let heuristic = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
            .part(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)?
            .set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, &[mode])?
            .finish()?;
        let name = Name::CUDNN_ATTR_ENGINEHEUR_RESULTS;
        let count = heuristic.count(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR)?;
        let configs = (0..count).map(|_| Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
        let mut configs = configs.collect::<Result<Vec<Descriptor>>>()?;
        let count = heuristic.get_parts(name, &configs)?;
        configs.truncate(count);
        all.extend(configs);
    }
    let mut fitting = Vec::new();
    for config in all {
        if fits(&config, precision)? {
            fitting.push(config);
        }
    }
    Ok(fitting)
}

fn fits(config: &Descriptor, precision: Precision) -> Result<bool> {
    let engine = [Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?];
    config.get_parts(Name::CUDNN_ATTR_ENGINECFG_ENGINE, &engine)?;
    let mut notes = [Note::CUDNN_NUMERICAL_NOTE_TYPE_COUNT; 16];
    let count =
        engine[0].get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Type::CUDNN_TYPE_NUMERICAL_NOTE, &mut notes)?;
    let has = |note| notes[..count.min(notes.len())].contains(&note);
    // On float data, tensor cores mean tf32.
    let rounds = precision == Precision::F32
        && (has(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE)
            || has(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS));
    let narrows = has(Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION);
    Ok(!rounds && !narrows && !has(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC))
}
