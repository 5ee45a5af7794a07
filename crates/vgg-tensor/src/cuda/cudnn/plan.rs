//! The engines that can run an operation graph, and execution plans.

use cudarc::cudnn::sys;
use cudarc::cudnn::sys::{cudnnBackendHeurMode_t as Mode, cudnnBackendNumericalNote_t as Note};

use super::descriptor::{Descriptor, Kind, Name, NoteNumber};
use crate::{Engines, Precision, Result};

/// The device for which plans are created.
pub(super) enum Target {
    /// The device of a handle.
    Handle(sys::cudnnHandle_t),
    /// A device that need not be present, described by its properties.
    #[cfg_attr(not(test), expect(dead_code, reason = "plans without a GPU are for tests"))]
    Properties(Descriptor),
}

impl Target {
    fn heuristic(&self, descriptor: Descriptor) -> Result<Descriptor> {
        match self {
            Target::Handle(_) => Ok(descriptor),
            Target::Properties(device) => descriptor.part(Name::CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device),
        }
    }

    fn plan(&self, descriptor: Descriptor) -> Result<Descriptor> {
        match self {
            Target::Handle(handle) => descriptor.handle(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle),
            Target::Properties(device) => descriptor.part(Name::CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device),
        }
    }

    pub(super) fn handle(&self) -> Option<sys::cudnnHandle_t> {
        match self {
            Target::Handle(handle) => Some(*handle),
            Target::Properties(_) => None,
        }
    }
}

/// An execution plan: a configured engine, finalised for a device.
pub(super) struct Plan {
    pub(super) descriptor: Descriptor,
    pub(super) workspace_bytes: usize,
    /// Index in the list of candidates.
    pub(super) engine_index: usize,
}

impl Plan {
    pub(super) fn new(engine: &Descriptor, engine_index: usize, target: &Target) -> Result<Plan> {
        let descriptor = target
            .plan(Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?)?
            .part(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine)?
            .finish()?;
        let mut bytes = [0i64];
        descriptor.get(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, &mut bytes)?;
        Ok(Plan { descriptor, workspace_bytes: bytes[0].max(0) as usize, engine_index })
    }
}

/// Configured engines for a graph, most promising first, that are allowed and keep the precision.
pub(super) fn candidates(
    graph: &Descriptor,
    precision: Precision,
    allowed: Engines,
    target: &Target,
) -> Result<Vec<Descriptor>> {
    let (mut fitting, mut last) = (Vec::new(), None);
    for mode in [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK] {
        // If one heuristic fails, the other may succeed.
        match listed(graph, mode, target) {
            Ok(configs) => {
                let fits = |config: &Descriptor| fits(config, precision, allowed).unwrap_or(false);
                fitting.extend(configs.into_iter().filter(fits));
            }
            Err(e) => last = Some(e),
        }
    }
    match last {
        Some(e) if fitting.is_empty() => Err(e),
        _ => Ok(fitting),
    }
}

/// The configured engines that one of cuDNN's heuristics returns.
fn listed(graph: &Descriptor, mode: Mode, target: &Target) -> Result<Vec<Descriptor>> {
    let heuristic = target
        .heuristic(Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?)?
        .part(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)?
        .set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, &[mode])?
        .finish()?;
    let name = Name::CUDNN_ATTR_ENGINEHEUR_RESULTS;
    let count = heuristic.count_parts(name)?;
    let configs = (0..count).map(|_| Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    let mut configs = configs.collect::<Result<Vec<Descriptor>>>()?;
    let count = heuristic.get_parts(name, &configs)?;
    configs.truncate(count);
    Ok(configs)
}

fn fits(config: &Descriptor, precision: Precision, allowed: Engines) -> Result<bool> {
    let engine = [Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?];
    config.get_parts(Name::CUDNN_ATTR_ENGINECFG_ENGINE, &engine)?;
    let mut notes = [NoteNumber::default(); 16];
    let count = engine[0].get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, &mut notes)?;
    let has = |note: Note| notes[..count.min(notes.len())].iter().any(|known| known.0 == note as i32);
    // On float data, an engine that uses tensor cores computes in tf32.
    let rounds = precision == Precision::F32
        && (has(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE)
            || has(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS));
    let narrows = has(Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION);
    let varies = allowed == Engines::Deterministic && has(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    Ok(!rounds && !narrows && !varies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::{ConvolutionKey, ConvolutionPass, CudaLibrary, Element, cuda_libraries};

    /// Image side, input channels, filters, kernel size and padding of every convolution of A to E, with the
    /// input padded to eight channels, and of fc6 and fc7 as convolutions.
    const SHAPES: [[usize; 5]; 14] = [
        [224, 8, 64, 3, 1],
        [224, 64, 64, 3, 1],
        [112, 64, 128, 3, 1],
        [112, 128, 128, 3, 1],
        [56, 128, 256, 3, 1],
        [56, 256, 256, 3, 1],
        [56, 256, 256, 1, 0],
        [28, 256, 512, 3, 1],
        [28, 512, 512, 3, 1],
        [28, 512, 512, 1, 0],
        [14, 512, 512, 3, 1],
        [14, 512, 512, 1, 0],
        [12, 512, 4096, 7, 0],
        [6, 4096, 4096, 1, 0],
    ];

    /// The convolutions that the self-test runs in every precision, with and without ReLU.
    const SELFTEST: [[usize; 5]; 4] =
        [[9, 8, 16, 3, 1], [8, 24, 40, 3, 1], [6, 16, 8, 1, 0], [9, 8, 24, 7, 0]];

    /// cuDNN creates plans for an H100 from its properties; the GPU need not be present.
    #[test]
    fn every_convolution_of_the_paper_has_a_plan_on_an_h100() {
        let cudnn = cuda_libraries().iter().find(|status| status.library == CudaLibrary::Cudnn);
        if let Some(Err(e)) = cudnn.map(|status| &status.found) {
            vgg_testkit::skip("cudnn", e);
            return;
        }
        let json = include_str!("../../../tests/fixtures/h100.json");
        let device = Descriptor::new(Kind::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)
            .unwrap()
            .set(Name::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, json.as_bytes())
            .unwrap();
        let target = Target::Properties(device.finish().unwrap());
        for [side, c, k, r, pad] in SHAPES {
            let dense = side < 14;
            for n in if dense { [2, 16] } else { [64, 256] } {
                let passes = [
                    ConvolutionPass::Forward { relu: true },
                    ConvolutionPass::GradInput,
                    ConvolutionPass::GradWeight,
                ];
                for pass in if dense { &passes[..1] } else { &passes } {
                    let key = ConvolutionKey { pass: *pass, n, h: side, w: side, c, k, r, pad };
                    assert_planned(key, Precision::Bf16, &target);
                }
            }
        }
        for precision in [Precision::Bf16, Precision::Tf32, Precision::F32] {
            for [side, c, k, r, pad] in SELFTEST {
                for pass in [
                    ConvolutionPass::Forward { relu: true },
                    ConvolutionPass::Forward { relu: false },
                    ConvolutionPass::GradInput,
                    ConvolutionPass::GradWeight,
                ] {
                    let key = ConvolutionKey { pass, n: 2, h: side, w: side, c, k, r, pad };
                    assert_planned(key, precision, &target);
                }
            }
        }
    }

    fn assert_planned(key: ConvolutionKey, precision: Precision, target: &Target) {
        let element = if precision == Precision::Bf16 { Element::Bf16 } else { Element::F32 };
        let graph = key.graph(element, target.handle()).unwrap();
        let engines = candidates(&graph, precision, Engines::Deterministic, target)
            .unwrap_or_else(|e| panic!("{key:?}, {}: {e}", precision.name()));
        let count = engines.len();
        let plan = engines.iter().find_map(|engine| Plan::new(engine, 0, target).ok());
        let plan =
            plan.unwrap_or_else(|| panic!("{key:?}, {}: no plan from {count} engines", precision.name()));
        let mib = plan.workspace_bytes >> 20;
        println!("{}, {key:?}: {count} engines, workspace {mib} MiB", precision.name());
    }
}
