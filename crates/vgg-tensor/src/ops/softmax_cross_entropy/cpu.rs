//! Softmax cross-entropy on the CPU.

use crate::cpu::add_rows;
use crate::ops::softmax::cpu_row;

pub(super) fn forward(
    logits: &[f32],
    targets: &[u32],
    weight: f32,
    losses: &mut [f32],
    dz: &mut [f32],
    sums: &mut [f32],
) {
    let classes = sums.len();
    let rows = logits.chunks_exact(classes).zip(dz.chunks_exact_mut(classes));
    for (((x, dz), target), loss) in rows.zip(targets).zip(losses) {
        let target = *target as usize;
        let log_sum = cpu_row(x, dz);
        *loss = (log_sum - f64::from(x[target])) as f32;
        dz[target] -= 1.0;
        dz.iter_mut().for_each(|dz| *dz *= weight);
    }
    add_rows(dz, sums);
}
