//! Global average pooling on the CPU, summed in f64.

use crate::cpu::Cpu;

/// `map [N, cells, classes]` to `y [N, classes]`.
pub(super) fn forward(cpu: Cpu, classes: usize, map: &[f32], y: &mut [f32]) {
    let per_image = map.len() / (y.len() / classes);
    let cells = per_image / classes;
    cpu.for_each_chunk(y, classes, |image, y| {
        let map = &map[image * per_image..][..per_image];
        for (class, y) in y.iter_mut().enumerate() {
            let sum: f64 = map[class..].iter().step_by(classes).map(|x| f64::from(*x)).sum();
            *y = (sum / cells as f64) as f32;
        }
    });
}
