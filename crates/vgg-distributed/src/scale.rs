//! A model of the duration of a training step on many GPUs, described in `docs/scale.md`.

/// Fixed seconds per step, and seconds per image, of ConvNet D on an H100 in bf16: fitted to the measured
/// 4,840 images/s at batch 64 and 5,482 images/s at batch 256.
const STEP_S: f64 = 0.002_06;
const IMAGE_S: f64 = 1.743_7e-4;
/// Multiply-adds per image of ConvNet D. The compute time of other networks is proportional to their
/// multiply-adds.
const MACS_OF_D: f64 = 15_470_264_320.0;
/// Share of the backward pass in a step. The all-reduce of gradients overlaps it.
const BACKWARD: f64 = 0.6;
/// Bytes of a gradient bucket, and latency of its all-reduce in seconds for each doubling of the ranks.
const BUCKET_BYTES: f64 = 4_194_304.0;
const LATENCY_S: f64 = 10e-6;
/// Number of GPUs of a machine, which share its network.
const GPUS_PER_MACHINE: usize = 8;

/// The training to estimate.
#[derive(Debug, Clone, Copy)]
pub struct ScaleWorkload {
    /// Number of weights and biases, whose gradients are all-reduced in f32.
    pub parameters: usize,
    /// Multiply-adds of the forward pass per image.
    pub macs_per_image: f64,
    /// Bytes of a stored image.
    pub image_bytes: f64,
    /// Batch over all GPUs; `None`: the larger of 256 and 32 per GPU.
    pub batch: Option<usize>,
}

/// The hardware of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Cluster {
    /// GB/s between two GPUs of a machine.
    pub intra_node_gb_per_s: f64,
    /// GB/s between machines, per GPU.
    pub inter_node_gb_per_s: f64,
    /// GB/s from the object store to each machine of eight GPUs.
    pub store_gb_per_s: f64,
    /// CPU cores per GPU.
    pub cores_per_gpu: usize,
    /// Images per second that a core decodes and augments.
    pub images_per_core_s: f64,
}

/// The estimate for a step. Times are in seconds.
#[derive(Debug, Clone, Copy)]
pub struct StepEstimate {
    /// Number of GPUs.
    pub gpus: usize,
    /// Batch over all GPUs.
    pub batch: usize,
    /// Forward and backward pass.
    pub compute_s: f64,
    /// All-reduce of the gradients.
    pub all_reduce_s: f64,
    /// Exposed all-reduce: the part that does not overlap the backward pass.
    pub exposed_s: f64,
    /// The whole step.
    pub step_s: f64,
    /// Images per second.
    pub images_per_s: f64,
    /// Images per second if reading and decoding were no limit.
    pub wanted_images_per_s: f64,
    /// The resource that limits the step.
    pub bottleneck: Bottleneck,
}

/// The resource that limits a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bottleneck {
    /// The GPUs.
    Compute,
    /// The all-reduce of gradients.
    AllReduce,
    /// The object store.
    Reading,
    /// The cores that decode images.
    Decoding,
}

impl StepEstimate {
    /// Estimates a step on `gpus` GPUs, at least one.
    pub fn new(gpus: usize, workload: &ScaleWorkload, cluster: &Cluster) -> StepEstimate {
        let batch = workload.batch.unwrap_or(256.max(32 * gpus));
        let per_gpu = batch as f64 / gpus as f64;
        let compute = (STEP_S + IMAGE_S * per_gpu) * (workload.macs_per_image / MACS_OF_D);
        let bytes = workload.parameters as f64 * 4.0;
        let all_reduce = all_reduce_s(gpus, bytes, cluster);
        // The backward pass ends with the first convolutions, so the all-reduce of the last bucket is always
        // exposed.
        let last = if gpus > 1 { (all_reduce * BUCKET_BYTES / bytes).min(all_reduce) } else { 0.0 };
        let exposed = (all_reduce - BACKWARD * compute).max(last);
        let machines = gpus.div_ceil(GPUS_PER_MACHINE) as f64;
        let read = batch as f64 * workload.image_bytes / (cluster.store_gb_per_s * 1e9 * machines);
        let decode = batch as f64 / (cluster.images_per_core_s * (cluster.cores_per_gpu * gpus) as f64);
        let step = (compute + exposed).max(read).max(decode);
        let bottleneck = if read.max(decode) > compute + exposed {
            if decode >= read { Bottleneck::Decoding } else { Bottleneck::Reading }
        } else if exposed >= compute {
            Bottleneck::AllReduce
        } else {
            Bottleneck::Compute
        };
        StepEstimate {
            gpus,
            batch,
            compute_s: compute,
            all_reduce_s: all_reduce,
            exposed_s: exposed,
            step_s: step,
            images_per_s: batch as f64 / step,
            wanted_images_per_s: batch as f64 / (compute + exposed),
            bottleneck,
        }
    }
}

/// Seconds of an all-reduce. Within a machine, each GPU sends and receives all but its own part, twice;
/// between machines, it does the same with the part that it has reduced within its machine.
fn all_reduce_s(gpus: usize, bytes: f64, cluster: &Cluster) -> f64 {
    let within = gpus.min(GPUS_PER_MACHINE) as f64;
    let machines = gpus.div_ceil(GPUS_PER_MACHINE) as f64;
    let share = |n: f64| 2.0 * (n - 1.0) / n;
    let latency = LATENCY_S * (gpus as f64).log2().ceil() * (bytes / BUCKET_BYTES).ceil();
    let inside = bytes / (cluster.intra_node_gb_per_s * 1e9);
    let between = bytes / within / (cluster.inter_node_gb_per_s * 1e9);
    share(within) * inside + share(machines) * between + latency
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: ScaleWorkload = ScaleWorkload {
        parameters: 138_357_544,
        macs_per_image: MACS_OF_D,
        image_bytes: 30_000.0,
        batch: None,
    };
    const CLUSTER: Cluster = Cluster {
        intra_node_gb_per_s: 300.0,
        inter_node_gb_per_s: 40.0,
        store_gb_per_s: 10.0,
        cores_per_gpu: 12,
        images_per_core_s: 1030.0,
    };

    #[test]
    fn one_gpu_matches_the_measurements() {
        for (batch, measured) in [(64, 4840.0), (256, 5482.0)] {
            let step = StepEstimate::new(1, &ScaleWorkload { batch: Some(batch), ..D }, &CLUSTER);
            let apart = (step.images_per_s / measured - 1.0_f64).abs();
            assert!(apart < 0.002 && step.exposed_s == 0.0, "{batch}: {} of {measured}", step.images_per_s);
        }
    }

    #[test]
    fn an_all_reduce_over_two_machines_matches_a_calculation_by_hand() {
        // 8 GPUs per machine: 2 * 7/8 of 553.4 MB at 300 GB/s, 2 * 1/2 of an eighth of it at 40 GB/s, and the
        // latency of 132 buckets for 4 doublings.
        let expected = 1.75 * 553.430_176e6 / 300e9 + 553.430_176e6 / 8.0 / 40e9 + 10e-6 * 4.0 * 132.0;
        let step = StepEstimate::new(16, &D, &CLUSTER);
        assert!((step.all_reduce_s / expected - 1.0).abs() < 1e-12, "{}", step.all_reduce_s);
        assert_eq!(step.batch, 512);
    }

    #[test]
    fn every_resource_can_be_the_bottleneck() {
        let of = |gpus, workload, cluster| StepEstimate::new(gpus, workload, cluster).bottleneck;
        assert_eq!(of(1, &D, &CLUSTER), Bottleneck::Compute);
        let fixed = ScaleWorkload { batch: Some(256), ..D };
        assert_eq!(of(64, &fixed, &CLUSTER), Bottleneck::AllReduce);
        let few_cores = Cluster { cores_per_gpu: 1, ..CLUSTER };
        assert_eq!(of(8, &D, &few_cores), Bottleneck::Decoding);
        assert_eq!(of(8, &D, &Cluster { store_gb_per_s: 0.1, ..CLUSTER }), Bottleneck::Reading);
        let step = StepEstimate::new(8, &D, &few_cores);
        assert!(step.images_per_s < step.wanted_images_per_s);
    }
}
